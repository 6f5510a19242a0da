package dirfd

import (
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxName is the longest name of an entry that Linux file systems have (NAME_MAX).
const maxName = 255

// cname is a name as the kernel takes it. It lives on the stack.
type cname [maxName + 1]byte

func (c *cname) set(name string) syscall.Errno {
	if len(name) > maxName {
		return unix.ENAMETOOLONG
	}
	if strings.IndexByte(name, 0) >= 0 {
		return unix.EINVAL
	}
	c[copy(c[:], name)] = 0
	return 0
}

// Open is openat(2) with O_CLOEXEC and O_NOFOLLOW, tried again when it is
// interrupted.
func Open(dir int, name string, flags int, mode uint32) (int, error) {
	return open(dir, name, flags|unix.O_NOFOLLOW, mode)
}

// OpenFollow is Open, and follows a symlink.
func OpenFollow(dir int, name string, flags int, mode uint32) (int, error) {
	return open(dir, name, flags, mode)
}

func open(dir int, name string, flags int, mode uint32) (int, error) {
	var c cname
	if e := c.set(name); e != 0 {
		return -1, e
	}
	for {
		fd, _, e := syscall.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&c[0])),
			uintptr(flags|unix.O_CLOEXEC|unix.O_LARGEFILE), uintptr(mode), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return -1, e
		}
		return int(fd), nil
	}
}

// OpenRead opens for reading without a trace in the access time, where that is
// permitted, and without waiting for the other end of a FIFO.
func OpenRead(dir int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NONBLOCK
	fd, err := Open(dir, name, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = Open(dir, name, flags, 0)
	}
	if err == unix.EWOULDBLOCK { // a lease, of a file server for one: wait until it is given up
		fd, err = Open(dir, name, flags&^unix.O_NONBLOCK, 0)
	}
	return fd, err
}

// Statx fills st with the basic attributes of name itself.
func Statx(dir int, name string, st *unix.Statx_t) error {
	return statx(dir, name, unix.AT_SYMLINK_NOFOLLOW, st)
}

// StatxFollow is Statx, and follows a symlink.
func StatxFollow(dir int, name string, st *unix.Statx_t) error {
	return statx(dir, name, 0, st)
}

// StatxFd is Statx of an open file.
func StatxFd(fd int, st *unix.Statx_t) error {
	return statx(fd, "", unix.AT_EMPTY_PATH, st)
}

func statx(dir int, name string, flags int, st *unix.Statx_t) error {
	var c cname
	if e := c.set(name); e != 0 {
		return e
	}
	for {
		_, _, e := syscall.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&c[0])),
			uintptr(flags), unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, uintptr(unsafe.Pointer(st)), 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		return nil
	}
}

// Rename is renameat(2) within one directory.
func Rename(dir int, from, to string) error {
	var c, d cname
	if e := c.set(from); e != 0 {
		return e
	}
	if e := d.set(to); e != 0 {
		return e
	}
	_, _, e := syscall.Syscall6(unix.SYS_RENAMEAT2, uintptr(dir), uintptr(unsafe.Pointer(&c[0])),
		uintptr(dir), uintptr(unsafe.Pointer(&d[0])), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// SetTimes sets the access and modification times of an open file.
func SetTimes(fd int, times *[2]unix.Timespec) error {
	_, _, e := syscall.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(times)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// Readlink returns what the symlink says, however long it is.
func Readlink(dir int, name string) (string, error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := unix.Readlinkat(dir, name, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 16*len(buf))
	}
}
