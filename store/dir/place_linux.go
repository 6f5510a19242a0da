package dir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// place gives the file its name instead of the one in .tmp, unless that is taken.
func place(f *os.File, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return link(f, path) // NFS, for one, cannot rename without replacing
	}
	return &os.LinkError{Op: "rename", Old: f.Name(), New: path, Err: err}
}
