package files

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
)

// errMount: the directory to be removed is a mount point.
var errMount = errors.New("another file system is mounted there")

// Remove stops at the first entry that cannot be removed.
func (d *dir) Remove(name string) error {
	if err := d.check(name); err != nil {
		return err
	}
	var st unix.Statx_t
	if err := dirfd.StatxFd(d.fd, &st); err != nil {
		return fail("stat directory", err)
	}
	var lists dirfd.List
	if err := removeAll(d.fd, name, mountOf(&st), &lists); err != nil {
		return fail("remove", err)
	}
	return nil
}

// mount tells file systems apart, and several mounts of one.
type mount struct{ dev, id uint64 }

func mountOf(st *unix.Statx_t) mount {
	m := mount{dev: dirfd.Dev(st)}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		m.id = st.Mnt_id
	}
	return m
}

// removeAll removes name and all below it that is on the mount.
func removeAll(dir int, name string, on mount, lists *dirfd.List) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM { // EPERM: what POSIX says of directories
		return err
	}
	fd, openErr := openToRemove(dir, name)
	if openErr != nil {
		if openErr == unix.ENOTDIR {
			return err
		}
		return fmt.Errorf("open %q: %w", name, openErr)
	}
	err = empty(fd, on, lists)
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// openToRemove opens a directory and permits its owner to empty it.
func openToRemove(dir int, name string) (int, error) {
	fd, err := dirfd.Open(dir, name, unix.O_DIRECTORY|unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	was, err := haveOf(fd)
	if err != nil {
		return -1, err
	}
	if was.typ != tree.Dir {
		return -1, unix.ENOTDIR
	}
	if uid := unix.Geteuid(); uid != 0 && int(was.uid) == uid && was.mode&0o700 != 0o700 {
		if err := unix.Chmod(dirfd.ProcPath(fd, ""), was.mode|0o700); err != nil {
			return -1, err
		}
	}
	return dirfd.Open(fd, ".", unix.O_DIRECTORY|unix.O_RDONLY, 0)
}

func empty(fd int, on mount, lists *dirfd.List) error {
	var st unix.Statx_t
	if err := dirfd.StatxFd(fd, &st); err != nil {
		return err
	}
	if mountOf(&st) != on {
		return errMount
	}
	names, err := lists.Read(fd, nil)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := removeAll(fd, name, on, lists); err != nil {
			return err
		}
	}
	return nil
}
