package files

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/restore/target"
)

// Blocks are shared only in whole ones, of this size at most on the file systems
// that can.
const (
	shareUnit  = 4096
	copyBuffer = 256 << 10
)

func (f *file) Reuse(old target.Existing, off, length int64) error {
	e, ok := old.(*existing)
	if !ok || e.fd < 0 {
		return fmt.Errorf("reuse: %w", errClosed)
	}
	if off < 0 || length < 0 || off+length > e.size {
		return fmt.Errorf("reuse: %w", errShorter)
	}
	if length == 0 {
		return nil
	}
	if !f.share(e, off, length) {
		if err := f.copyData(e, off, off+length); err != nil {
			return fail("reuse", err)
		}
	}
	return nil
}

// share lets the range have the blocks of the old file.
func (f *file) share(e *existing, off, length int64) bool {
	if f.d.s.noClone.Load() || off%shareUnit != 0 || length%shareUnit != 0 && off+length != e.size {
		return false
	}
	err := unix.IoctlFileCloneRange(f.fd, &unix.FileCloneRange{
		Src_fd: int64(e.fd), Src_offset: uint64(off), Src_length: uint64(length), Dest_offset: uint64(off),
	})
	if err == unix.EOPNOTSUPP || err == unix.ENOTTY {
		f.d.s.noClone.Store(true)
	}
	if err == nil {
		f.wrote(off + length)
	}
	return err == nil
}

// copyData copies what is data in the range; its holes are holes here already.
func (f *file) copyData(e *existing, off, end int64) error {
	for off < end {
		data, err := unix.Seek(e.fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // a hole until the end
		}
		hole := end
		switch err {
		case nil:
			if data >= end {
				return nil
			}
			if hole, err = unix.Seek(e.fd, data, unix.SEEK_HOLE); err != nil {
				return err
			}
		case unix.EINVAL, unix.EOPNOTSUPP: // the file system does not know
			data = off
		default:
			return err
		}
		hole = min(hole, end)
		if err := f.copyRange(e, data, hole); err != nil {
			return err
		}
		f.wrote(hole)
		off = hole
	}
	return nil
}

// copyRange copies in the kernel where it can.
func (f *file) copyRange(e *existing, off, end int64) error {
	for off < end {
		from, to := off, off
		n, err := unix.CopyFileRange(e.fd, &from, f.fd, &to, int(min(end-off, 1<<30)), 0)
		switch {
		case err == unix.EINTR:
		case err == unix.ENOSPC || err == unix.EDQUOT || err == unix.EIO:
			return err
		case err != nil:
			return f.copyThrough(e, off, end)
		case n == 0:
			return errShorter
		default:
			off += int64(n)
		}
	}
	return nil
}

// copyThrough copies through memory.
func (f *file) copyThrough(e *existing, off, end int64) error {
	buf := make([]byte, min(end-off, copyBuffer))
	for off < end {
		p := buf[:min(int64(len(buf)), end-off)]
		if _, err := e.ReadAt(p, off); err != nil {
			return err
		}
		if _, err := f.WriteAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}
