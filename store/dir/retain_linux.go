package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/store"
)

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// unsupported says why a folder cannot keep objects, and what helps.
func unsupported(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: this process may not make files immutable (%v); run it as root or with CAP_LINUX_IMMUTABLE, "+
			"or use a bucket with object lock", errors.ErrUnsupported, err)
	}
	return fmt.Errorf("%w: the file system cannot make files immutable (%v); use ext4, xfs or btrfs on this machine, "+
		"or a bucket with object lock", errors.ErrUnsupported, err)
}

// isUnsupported tells whether a file system answers so that it knows no attributes.
func isUnsupported(err error) bool {
	for _, e := range []error{unix.ENOTTY, unix.ENOTSUP, unix.ENOSYS, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// seal makes the file one that is only read, where the file system has modes. It keeps
// nobody out, but slips.
func seal(f *os.File) { _ = f.Chmod(0o400) }

func unseal(f *os.File) { _ = f.Chmod(0o600) }

// protect writes into a file that has no name yet how long it is to be kept, and
// finds out whether it can be.
func protect(f *os.File, r store.Retention) error {
	if r.Until.IsZero() {
		return nil
	}
	if err := mark(f, r); err != nil {
		return err
	}
	// A frozen file cannot be given its name. A crash between the two leaves a frozen
	// file in .tmp, which the next Open thaws.
	if err := freeze(f); err != nil {
		return err
	}
	return thaw(f)
}

// mark writes the attribute.
func mark(f *os.File, r store.Retention) error {
	err := unix.Fsetxattr(int(f.Fd()), attribute, []byte(formatKept(r)), 0)
	if err != nil && isUnsupported(err) {
		return unsupported(err)
	}
	if err != nil {
		return &os.PathError{Op: "set attribute of", Path: f.Name(), Err: err}
	}
	return nil
}

// keptOf reads the attribute. The zero Retention if there is none.
func keptOf(f *os.File) (store.Retention, error) {
	return kept(f.Name(), func(p []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), attribute, p) })
}

func keptAt(path string) (store.Retention, error) {
	return kept(path, func(p []byte) (int, error) { return unix.Lgetxattr(path, attribute, p) })
}

func kept(path string, read func([]byte) (int, error)) (store.Retention, error) {
	var p [64]byte
	n, err := read(p[:])
	switch {
	case err == nil:
		return parseKept(path, p[:n])
	case errors.Is(err, unix.ENODATA), isUnsupported(err):
		return store.Retention{}, nil
	case errors.Is(err, unix.ERANGE):
		return parseKept(path, nil)
	}
	return store.Retention{}, &os.PathError{Op: "read attribute of", Path: path, Err: err}
}

// freeze sets the immutable attribute.
func freeze(f *os.File) error {
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable == 0 {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|immutable))
	}
	switch {
	case err == nil:
		return nil
	case isUnsupported(err), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return unsupported(err)
	}
	return &os.PathError{Op: "make immutable", Path: f.Name(), Err: err}
}

// thaw takes it away.
func thaw(f *os.File) error {
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil && isUnsupported(err) || err == nil && flags&immutable == 0 {
		return nil
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags&^immutable))
	}
	if err != nil {
		return &os.PathError{Op: "make mutable", Path: f.Name(), Err: err}
	}
	return nil
}

// frozen explains an error of a removal: the attribute that stands in its way was set
// by hand, or by somebody who was quicker than we.
func frozen(path string, err error) error {
	var st unix.Statx_t
	if errors.Is(err, unix.EPERM) && unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st) == nil &&
		st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 {
		return fmt.Errorf("%w: it has the immutable or the append-only attribute; if it is not to be kept: chattr -i -a", store.ErrLocked)
	}
	return err
}

// openLocked opens the file of an object and locks it, against others who would
// change its retention.
func openLocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil && !isUnsupported(err) {
		_ = f.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	if !linked(f) {
		_ = f.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: fs.ErrNotExist}
	}
	return f, nil
}

// linked tells whether the file has a name.
func linked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}

// thawStale thaws a leftover in .tmp that a crash left frozen. If it has another name
// it is that of an object, which is to stay as it is.
func thawStale(f *os.File) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 1 {
		_ = thaw(f) // if it cannot be thawed it stays, in nobody's way
	}
}
