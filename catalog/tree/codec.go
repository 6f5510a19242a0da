package tree

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// Trees are encoded and decoded by hand: a backup of a million unchanged files
// does little else, and the general CBOR library takes five times as long. The
// tests hold the bytes against that library.

// ErrFormat: the bytes are not a tree or list chunk.
var ErrFormat = errors.New("not a valid tree")

// Keys of a node's map, in the order in which they are written.
const (
	keyName     = 1
	keyType     = 2
	keyMode     = 3
	keyUID      = 4
	keyGID      = 5
	keyMTime    = 6
	keyCTime    = 7
	keyInode    = 8
	keySize     = 9
	keyTarget   = 10
	keyDevice   = 11
	keyLink     = 12
	keyXattrs   = 13
	keyChanging = 14
	keyContent  = 15
	keyTrees    = 16
	keyPartial  = 17
)

// CBOR major types (RFC 8949, 3.1).
const (
	majorUint  = 0 << 5
	majorNeg   = 1 << 5
	majorBytes = 2 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
	simpleTrue = 7<<5 | 21
)

// AppendNodes appends the tree chunk of nodes, which are sorted by name.
func AppendNodes(b []byte, nodes []*Node) []byte {
	b = appendHead(b, majorArray, uint64(len(nodes)))
	for _, n := range nodes {
		b = appendNode(b, n)
	}
	return b
}

// AppendExtents appends the list chunk of extents.
func AppendExtents(b []byte, extents []Extent) []byte {
	b = appendHead(b, majorArray, uint64(len(extents)))
	for i := range extents {
		e := &extents[i]
		switch e.Kind {
		case Hole:
			b = appendHead(b, majorArray, 1)
			b = appendHead(b, majorUint, e.Length)
		case Content:
			b = appendHead(b, majorArray, 2)
			b = appendHead(b, majorUint, e.Length)
			b = appendBytes(b, e.ID[:])
		default:
			b = appendHead(b, majorArray, 3)
			b = appendHead(b, majorUint, e.Length)
			b = appendBytes(b, e.ID[:])
			b = appendHead(b, majorUint, 1)
		}
	}
	return b
}

func appendNode(b []byte, n *Node) []byte {
	head := len(b)
	b = append(b, majorMap) // patched below: there are fewer than 24 keys
	key := func(k byte, present bool) bool {
		if present {
			b = append(b, k)
			b[head]++
		}
		return present
	}
	uintField := func(k byte, v uint64) {
		if key(k, v != 0) {
			b = appendHead(b, majorUint, v)
		}
	}
	key(keyName, true)
	b = appendString(b, n.Name)
	uintField(keyType, uint64(n.Type))
	uintField(keyMode, uint64(n.Mode))
	uintField(keyUID, uint64(n.UID))
	uintField(keyGID, uint64(n.GID))
	if key(keyMTime, n.MTime != Time{}) {
		b = appendTime(b, n.MTime)
	}
	if key(keyCTime, n.CTime != Time{}) {
		b = appendTime(b, n.CTime)
	}
	uintField(keyInode, n.Inode)
	uintField(keySize, n.Size)
	if key(keyTarget, n.Target != "") {
		b = appendString(b, n.Target)
	}
	uintField(keyDevice, n.Device)
	if key(keyLink, n.Link != nil) {
		b = appendHead(b, majorArray, 2)
		b = appendHead(b, majorUint, n.Link.Dev)
		b = appendHead(b, majorUint, n.Link.Inode)
	}
	if key(keyXattrs, len(n.Xattrs) > 0) {
		b = appendXattrs(b, n.Xattrs)
	}
	if key(keyChanging, n.Changing) {
		b = append(b, simpleTrue)
	}
	if key(keyContent, len(n.Content) > 0) {
		b = AppendExtents(b, n.Content)
	}
	if key(keyTrees, len(n.Trees) > 0) {
		b = appendHead(b, majorArray, uint64(len(n.Trees)))
		for i := range n.Trees {
			b = appendBytes(b, n.Trees[i][:])
		}
	}
	if key(keyPartial, n.Partial) {
		b = append(b, simpleTrue)
	}
	return b
}

func appendXattrs(b []byte, xattrs map[string][]byte) []byte {
	b = appendHead(b, majorArray, uint64(2*len(xattrs)))
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		b = appendString(b, name)
		b = appendBytes(b, xattrs[name])
	}
	return b
}

func appendTime(b []byte, t Time) []byte {
	b = appendHead(b, majorArray, 2)
	if t.Sec < 0 {
		b = appendHead(b, majorNeg, uint64(-1-t.Sec))
	} else {
		b = appendHead(b, majorUint, uint64(t.Sec))
	}
	return appendHead(b, majorUint, uint64(t.Nsec))
}

func appendString(b []byte, s string) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

// appendHead writes a major type and its argument in the shortest form.
func appendHead(b []byte, major byte, v uint64) []byte {
	switch {
	case v < 24:
		return append(b, major|byte(v))
	case v < 1<<8:
		return append(b, major|24, byte(v))
	case v < 1<<16:
		return append(b, major|25, byte(v>>8), byte(v))
	case v < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), v)
}
