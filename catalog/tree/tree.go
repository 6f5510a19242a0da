// Package tree is what a point says about a file system: nodes, the extents of
// their content, and the chunks in which both are kept.
//
// A directory is a list of nodes sorted by name (bytewise), kept as one or more
// tree chunks. A file's content is a list of extents: data (a chunk) or a hole.
// Long lists of extents are kept in list chunks. All of it is deterministic CBOR
// (RFC 8949, 4.2): equal directories make equal chunks, so an unchanged directory
// costs nothing. docs/format.md is normative.
package tree

import (
	"github.com/cofferbackup/coffer/chunk"
)

// Type of a node.
type Type uint8

// The types. A socket is never kept: there is nothing in it.
const (
	File        Type = 1
	Dir         Type = 2
	Symlink     Type = 3
	FIFO        Type = 4
	CharDevice  Type = 5
	BlockDevice Type = 6
)

func (t Type) String() string {
	switch t {
	case File:
		return "file"
	case Dir:
		return "dir"
	case Symlink:
		return "symlink"
	case FIFO:
		return "fifo"
	case CharDevice:
		return "char device"
	case BlockDevice:
		return "block device"
	}
	return "unknown"
}

// Time is a moment as file systems keep it: seconds and nanoseconds since
// 1970-01-01 UTC. It holds what does not fit into 64 bits of nanoseconds.
type Time struct {
	Sec  int64
	Nsec uint32 // 0..999999999
}

// Inode identifies a file of several names on its file system at the time of the
// backup.
type Inode struct {
	Dev   uint64
	Inode uint64
}

// Extent is a run of a file's content, Length bytes long.
type Extent struct {
	Length uint64
	Kind   ExtentKind
	ID     chunk.ID // of a data or list chunk; zero for a hole
}

// ExtentKind says what an extent refers to.
type ExtentKind uint8

// The kinds of extents. A list is a chunk with the extents of the run, which may
// be lists again: so a long file is a tree of lists, and one changed block changes
// one chunk on each level.
const (
	Hole    ExtentKind = 0 // bytes that read as zeros and are not stored
	Content ExtentKind = 1 // one data chunk
	Listed  ExtentKind = 2 // one list chunk
)

// Node is one entry of a directory. Fields that a type does not have are zero.
type Node struct {
	Name   string // any bytes but 0 and '/'; not always UTF-8
	Type   Type
	Mode   uint32 // permission, setuid, setgid and sticky bits, as in st_mode & 07777
	UID    uint32
	GID    uint32
	MTime  Time
	CTime  Time   // to recognise an unchanged file; not restored
	Inode  uint64 // the same
	Size   uint64 // File: bytes
	Target string // Symlink: what it says
	Device uint64 // CharDevice, BlockDevice: rdev, major in the high and minor in the low 32 bits
	// Link is set if the file had more than one name (nlink > 1). Nodes of a point
	// with the same Link are one file.
	Link *Inode
	// Xattrs are extended attributes by full name ("user.x"), POSIX ACLs among
	// them as the kernel gives them ("system.posix_acl_access").
	Xattrs map[string][]byte
	// Changing says that the file would not hold still: its content may mix
	// several states.
	Changing bool
	// Content of a File, in order, without gaps, Size bytes in all.
	Content []Extent
	// Partial says of a Dir that it is only on the way to what was backed up: it
	// may have had more children.
	Partial bool
	// Trees of a Dir: its tree chunks in order.
	Trees []chunk.ID
}
