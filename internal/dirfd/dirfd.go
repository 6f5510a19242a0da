// Package dirfd is file system calls relative to an open directory. They take
// one path component, follow no symlink, have no limit on the depth of a tree,
// and allocate nothing but what they return.
//
// The calls are there on Linux; elsewhere the package has only the parser.
package dirfd

import (
	"encoding/binary"
	"errors"
)

// ErrDirent: what the kernel returned is not a list of directory entries.
var ErrDirent = errors.New("malformed directory entry")

// The layout of struct linux_dirent64: inode 8, offset 8, length of the record
// 2, type 1, then the name and at least one NUL.
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// ParseDirents calls visit with the name and the type (DT_*) of each entry in
// what getdents64 returned, "." and ".." left out. The name is part of buf.
func ParseDirents(buf []byte, visit func(name []byte, typ uint8)) error {
	for len(buf) > 0 {
		if len(buf) <= direntName {
			return ErrDirent
		}
		n := int(binary.NativeEndian.Uint16(buf[direntReclen:]))
		if n <= direntName || n > len(buf) {
			return ErrDirent
		}
		name := buf[direntName:n]
		end := 0
		for end < len(name) && name[end] != 0 {
			end++
		}
		if end == len(name) || end == 0 {
			return ErrDirent
		}
		name = name[:end]
		if !dots(name) && binary.NativeEndian.Uint64(buf) != 0 {
			visit(name, buf[direntType])
		}
		buf = buf[n:]
	}
	return nil
}

func dots(name []byte) bool {
	return name[0] == '.' && (len(name) == 1 || len(name) == 2 && name[1] == '.')
}
