package files

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
	"github.com/cofferbackup/coffer/restore/target"
)

// tries is how many temporary names may be taken already.
const tries = 100

// file is being written under a temporary name.
type file struct {
	d    *dir
	node *tree.Node
	temp string
	fd   int
	end  atomic.Int64 // how far it was written

	// writing is held during a write. The kernel lets one writer into a file at a
	// time, and whoever waits for it there keeps a processor from its other work.
	writing sync.Mutex
}

func (d *dir) Create(node *tree.Node) (target.File, error) {
	if err := d.check(node.Name); err != nil {
		return nil, err
	}
	if node.Type != tree.File {
		return nil, fmt.Errorf("create: a %s is not a file", node.Type)
	}
	f := &file{d: d, node: node, fd: -1}
	var err error
	for range tries {
		f.temp = d.s.tempName()
		f.fd, err = dirfd.Open(d.fd, f.temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, tempMode)
		if err != unix.EEXIST {
			break
		}
	}
	if err != nil {
		return nil, fail("create", err)
	}
	// Where files cannot be locked, what a dead restore leaves is not removed.
	_ = unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB)
	d.s.mu.Lock()
	d.s.files[f] = struct{}{}
	d.s.mu.Unlock()
	return f, nil
}

// take takes the file out of the sink's hands; false if it is not there any more.
func (f *file) take() bool {
	s := f.d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.files[f]
	delete(s.files, f)
	return ok
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, fail("write", err)
		}
		done += n
	}
	f.wrote(off + int64(len(p)))
	return done, nil
}

func (f *file) wrote(end int64) {
	for {
		old := f.end.Load()
		if end <= old || f.end.CompareAndSwap(old, end) {
			return
		}
	}
}

// Commit removes the file if it returns an error. A crash in here leaves either
// the temporary file or the complete one.
func (f *file) Commit() error {
	if !f.take() {
		return fmt.Errorf("commit: %w", errClosed)
	}
	err := f.finish()
	if closeErr := unix.Close(f.fd); err == nil && closeErr != nil {
		err = fail("close", closeErr)
	}
	f.fd = -1
	if err == nil {
		err = f.d.place(f.temp, f.node.Name)
	}
	if err != nil {
		_ = unix.Unlinkat(f.d.fd, f.temp, 0) // an unfinished file does no harm
	}
	return err
}

func (f *file) finish() error {
	if size := int64(f.node.Size); f.end.Load() < size {
		if err := unix.Ftruncate(f.fd, size); err != nil {
			return fail("set size", err)
		}
	}
	was, err := f.d.born(f.fd)
	if err != nil {
		return fail("stat", err)
	}
	return f.d.apply(handle{fd: f.fd}, f.node, was, f.node.Name)
}

// born returns what a new file is. All that one process makes in one directory
// get one owner: it is asked for once.
func (d *dir) born(fd int) (have, error) {
	owner := d.birth.Load()
	if owner == 0 {
		h, err := haveOf(fd)
		if err != nil {
			return have{}, err
		}
		owner = (uint64(h.uid)<<32 | uint64(h.gid)) + 1
		d.birth.Store(owner)
	}
	owner--
	return have{typ: tree.File, uid: uint32(owner >> 32), gid: uint32(owner), mode: tempMode, fresh: true}, nil
}

// place renames what is complete, in place of what is there unless that is a
// directory.
func (d *dir) place(temp, name string) error {
	err := dirfd.Rename(d.fd, temp, name)
	if err == unix.EISDIR || err == unix.ENOTEMPTY || err == unix.EEXIST {
		return fmt.Errorf("rename: %w: %w", target.ErrInTheWay, err)
	}
	if err != nil {
		return fail("rename", err)
	}
	return nil
}

func (f *file) Abort() {
	if f.take() {
		f.discard()
	}
}

func (f *file) discard() {
	_ = unix.Unlinkat(f.d.fd, f.temp, 0) // an unfinished file does no harm
	_ = unix.Close(f.fd)
	f.fd = -1
}

// preadFull is io.ReaderAt on a descriptor.
func preadFull(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// errShorter: the existing file is not as long as it was.
var errShorter = errors.New("the existing file has become shorter")
