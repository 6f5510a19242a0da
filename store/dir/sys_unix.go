//go:build !windows

package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/store"
)

// classify gives an error of the operating system its sentinel.
func classify(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", store.ErrDenied, err)
	case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTDOWN),
		errors.Is(err, unix.ENFILE), errors.Is(err, unix.EMFILE):
		// A network file system whose server is away, or no file left to open.
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// isAbsent tells whether err says that there is no such file: none of that name,
// or a file where its folder would be.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err // a file system that cannot sync folders has no need to
	}
	return nil
}

// lockNew locks a file that this process has just made, until it is closed, and
// tells whether it is still there.
func lockNew(f *os.File) bool {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return false // removeStale has it
	}
	// On a file system without locks removeStale cannot lock either, and so never
	// removes anything.
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}

// removeStale removes a file that nobody holds a lock on.
func removeStale(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil { // perhaps only for writing, which NFS wants for a lock
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		thawStale(f)
		_ = os.Remove(path)
	}
}
