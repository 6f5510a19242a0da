package dirfd

import (
	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
)

// Type returns the type of what st describes; 0 for a socket.
func Type(st *unix.Statx_t) tree.Type {
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		return tree.File
	case unix.S_IFDIR:
		return tree.Dir
	case unix.S_IFLNK:
		return tree.Symlink
	case unix.S_IFIFO:
		return tree.FIFO
	case unix.S_IFCHR:
		return tree.CharDevice
	case unix.S_IFBLK:
		return tree.BlockDevice
	}
	return 0
}

// Dev returns the number of the file system.
func Dev(st *unix.Statx_t) uint64 { return uint64(st.Dev_major)<<32 | uint64(st.Dev_minor) }

// Time converts a timestamp.
func Time(ts unix.StatxTimestamp) tree.Time { return tree.Time{Sec: ts.Sec, Nsec: ts.Nsec} }

// Node returns all that st says about name.
func Node(st *unix.Statx_t, name string) *tree.Node {
	n := &tree.Node{
		Name:  name,
		Type:  Type(st),
		Mode:  uint32(st.Mode) & 0o7777,
		UID:   st.Uid,
		GID:   st.Gid,
		MTime: Time(st.Mtime),
		CTime: Time(st.Ctime),
		Inode: st.Ino,
	}
	switch n.Type {
	case tree.File:
		n.Size = st.Size
	case tree.CharDevice, tree.BlockDevice:
		n.Device = uint64(st.Rdev_major)<<32 | uint64(st.Rdev_minor)
	}
	if st.Nlink > 1 && n.Type != tree.Dir {
		n.Link = &tree.Inode{Dev: Dev(st), Inode: st.Ino}
	}
	return n
}
