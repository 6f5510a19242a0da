//go:build unix

package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const hasModes = true

// room returns the free bytes and inodes of a folder's disk.
func room(path string) (bytes, nodes uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("look for room in %s: %w", path, err)
	}
	nodes = unlimited
	if st.Files > 0 {
		nodes = uint64(st.Ffree)
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nodes, nil
}

// writable returns why a folder cannot be written to, as its file system says.
func writable(path string) error { return unix.Access(path, unix.W_OK) }

// foreign returns the owner of a file if that is neither root nor this user.
func foreign(info fs.FileInfo) (uid uint32, ok bool) {
	st, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 0, false
	}
	return st.Uid, st.Uid != 0 && int(st.Uid) != os.Geteuid()
}

func ownedBy(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf(", uid %d, gid %d", st.Uid, st.Gid)
}

func runnable(info fs.FileInfo) bool { return info.Mode().Perm()&0o111 != 0 }
