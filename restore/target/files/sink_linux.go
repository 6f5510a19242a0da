package files

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/internal/dirfd"
	"github.com/cofferbackup/coffer/restore/target"
)

// sink is a session. It knows everything that is open, to release it.
type sink struct {
	opts          target.Options
	begun         time.Time
	users, groups *ids
	top           int
	temp          atomic.Uint32 // the number of the last temporary name
	noClone       atomic.Bool   // the file system cannot share blocks
	lists         sync.Pool     // of *dirfd.List

	mu     sync.Mutex
	dirs   map[*dir]struct{}
	files  map[*file]struct{}
	olds   map[*existing]struct{}
	mounts map[uint64]int // file systems below the top one, by number: an open directory of each
}

func open(cfg Config, opts target.Options) (*sink, error) {
	if err := os.MkdirAll(cfg.Path, 0o700); err != nil {
		return nil, fail("make directory", errnoOf(err))
	}
	return openThere(cfg, opts)
}

// openThere opens a top directory that must be there.
func openThere(cfg Config, opts target.Options) (*sink, error) {
	fd, err := unix.Open(cfg.Path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &sink{
		opts: opts, begun: cfg.Clock(), top: fd,
		dirs: make(map[*dir]struct{}), files: make(map[*file]struct{}), olds: make(map[*existing]struct{}), mounts: make(map[uint64]int),
	}
	s.temp.Store(rand.Uint32())
	if opts.NumericOwner {
		opts.Users, opts.Groups = nil, nil
	}
	s.users, s.groups = newUsers(opts.Users), newGroups(opts.Groups)
	return s, nil
}

// Root returns the top directory, each time opened anew. Where that is not
// possible every method of it says why.
func (s *sink) Root() target.Dir {
	d := s.viewRoot().(*dir)
	if d.broken == nil {
		d.broken = d.settle()
	}
	return d
}

// viewRoot opens the top directory to look at it.
func (s *sink) viewRoot() viewer {
	d := &dir{s: s, fd: -1}
	fd, err := unix.FcntlInt(uintptr(s.top), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		d.broken = fmt.Errorf("open target: %w", err)
		return d
	}
	d.fd = fd
	s.add(d)
	return d
}

func (s *sink) add(d *dir) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirs[d] = struct{}{}
}

// Finish syncs every file system that was written to. A crash before that may
// leave files empty that were committed; the restore has not said that it is done.
func (s *sink) Finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := unix.Syncfs(s.top)
	for _, fd := range s.mounts {
		err = errors.Join(err, unix.Syncfs(fd))
	}
	if err != nil {
		return fail("sync", err)
	}
	return nil
}

func (s *sink) Close() error {
	s.mu.Lock()
	files, olds, dirs, mounts := s.files, s.olds, s.dirs, s.mounts
	s.files, s.olds, s.dirs, s.mounts = make(map[*file]struct{}), make(map[*existing]struct{}), make(map[*dir]struct{}), nil
	top := s.top
	s.top = -1
	s.mu.Unlock()
	if top < 0 {
		return nil
	}
	for f := range files {
		f.discard()
	}
	var err error
	for e := range olds {
		err = errors.Join(err, unix.Close(e.fd))
	}
	for d := range dirs {
		err = errors.Join(err, unix.Close(d.fd))
	}
	for _, fd := range mounts {
		err = errors.Join(err, unix.Close(fd))
	}
	return errors.Join(err, unix.Close(top))
}

// mounted remembers an open directory of a file system other than the top's.
func (s *sink) mounted(dev uint64, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.mounts[dev]; ok || s.mounts == nil {
		return
	}
	if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		s.mounts[dev] = dup
	}
}

// The form of temporary names, and the mode that tells them from other files.
const (
	tempPrefix = ".coffer-"
	tempSuffix = ".tmp"
	tempMode   = 0o1600
)

func (s *sink) tempName() string {
	return fmt.Sprintf(tempPrefix+"%08x"+tempSuffix, s.temp.Add(1))
}

func isTemp(name string) bool {
	return len(name) == len(tempPrefix)+8+len(tempSuffix) && name[:len(tempPrefix)] == tempPrefix &&
		name[len(name)-len(tempSuffix):] == tempSuffix
}

// unfinished tells whether the name is that of a file that is not committed.
func unfinished(dir int, name string) bool {
	var st unix.Statx_t
	return isTemp(name) && dirfd.Statx(dir, name, &st) == nil && st.Mode == unix.S_IFREG|tempMode
}

// sweep removes what dead restores left in the directory. A directory that was
// changed since the session began was made or swept by it.
func (d *dir) sweep() error {
	names, err := d.list(func(name string, _ uint8) bool { return unfinished(d.fd, name) })
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := dirfd.OpenRead(d.fd, name, 0)
		if err != nil {
			continue // not ours, or gone
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil { // else a restore is writing it
			_ = unix.Unlinkat(d.fd, name, 0) // an unfinished file does no harm
		}
		unix.Close(fd)
	}
	return nil
}

func (d *dir) list(keep func(string, uint8) bool) ([]string, error) {
	list, _ := d.s.lists.Get().(*dirfd.List)
	if list == nil {
		list = new(dirfd.List)
	}
	defer d.s.lists.Put(list)
	// The offset of d.fd is shared by its users; a list has its own.
	fd, err := dirfd.Open(d.fd, ".", unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return list.Read(fd, keep)
}

// fail says what was being done, and whether anything after it would fail too.
func fail(doing string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s: %w: %w", doing, target.ErrFull, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: %w: %w", doing, target.ErrReadOnly, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// errnoOf drops the path from an error of package os, which the caller says.
func errnoOf(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
