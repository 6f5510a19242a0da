package files

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
)

// sequentialSize is from where it pays to tell the kernel to read ahead.
const sequentialSize = 4 << 20

// stamp is what changes when a file is changed.
type stamp struct {
	size, inode  uint64
	mtime, ctime unix.StatxTimestamp
}

func stampOf(st *unix.Statx_t) stamp {
	return stamp{size: st.Size, inode: st.Ino, mtime: st.Mtime, ctime: st.Ctime}
}

type file struct {
	s    *session
	name string
	fd   int
	was  stamp      // when it was opened or rewound
	node *tree.Node // what Stat made of it, if it was then as it is in was
	// sparse says that fewer blocks are allocated than the size needs.
	sparse   bool
	pos, end int64 // the rest of the current range
}

func (d *dir) Open(ctx context.Context, name string) (source.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := dirfd.OpenRead(d.fd, name, 0)
	if err != nil {
		return nil, failed("open", err)
	}
	f := &file{s: d.s, name: name, fd: fd}
	if err := f.Rewind(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if d.last != nil && d.last.Name == name && stampOf(&d.st) == f.was {
		f.node = d.last
	}
	if f.was.size >= sequentialSize {
		_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) // advice
	}
	return f, nil
}

func (f *file) Rewind() error {
	var st unix.Statx_t
	if err := dirfd.StatxFd(f.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if dirfd.Type(&st) != tree.File {
		return errors.New("open: it is no longer a regular file")
	}
	f.was = stampOf(&st)
	f.sparse = st.Blocks*512 < st.Size
	f.pos, f.end, f.node = 0, 0, nil
	return nil
}

func (f *file) NextData() (off, length int64, err error) {
	size := int64(f.was.size)
	f.pos = f.end
	if f.pos >= size {
		return size, 0, io.EOF
	}
	f.end = size
	if !f.sparse {
		return f.pos, f.end - f.pos, nil
	}
	data, err := unix.Seek(f.fd, f.pos, unix.SEEK_DATA)
	switch err {
	case nil:
	case unix.ENXIO: // a hole until the end
		return size, 0, io.EOF
	case unix.EINVAL, unix.EOPNOTSUPP: // the file system does not know
		return f.pos, f.end - f.pos, nil
	default:
		return 0, 0, fmt.Errorf("look for data: %w", err)
	}
	hole, err := unix.Seek(f.fd, data, unix.SEEK_HOLE)
	if err != nil && err != unix.ENXIO { // ENXIO: it became shorter
		return 0, 0, fmt.Errorf("look for a hole: %w", err)
	}
	if err == unix.ENXIO || data >= size {
		return size, 0, io.EOF
	}
	f.pos, f.end = data, min(hole, size)
	return f.pos, f.end - f.pos, nil
}

func (f *file) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), f.end-f.pos)]
	if f.pos >= f.end {
		return 0, io.EOF
	}
	for {
		n, err := unix.Pread(f.fd, p, f.pos)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if n == 0 && len(p) > 0 {
			return 0, io.EOF // it became shorter
		}
		f.pos += int64(n)
		return n, nil
	}
}

func (f *file) Changed() (*tree.Node, bool, error) {
	var st unix.Statx_t
	if err := dirfd.StatxFd(f.fd, &st); err != nil {
		return nil, false, fmt.Errorf("stat: %w", err)
	}
	changed := stampOf(&st) != f.was
	if !changed && f.node != nil {
		return f.node, false, nil
	}
	node := dirfd.Node(&st, f.name)
	var err error
	if node.Xattrs, err = dirfd.XattrsFd(f.fd); err != nil {
		return nil, false, fmt.Errorf("read extended attributes: %w", err)
	}
	if f.s.racy(node.MTime, node.CTime) {
		node.CTime = tree.Time{}
	}
	return node, changed, nil
}

func (f *file) Close() error {
	if f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	return unix.Close(fd)
}
