package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cofferbackup/coffer/chunk"
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

// ParseNodes reads a tree chunk. The nodes share memory with a copy of b. Names
// are checked: single path components, sorted, each once. ErrFormat otherwise.
func ParseNodes(b []byte) ([]Node, error) {
	p := parser{s: string(b)}
	count := p.count(majorArray, 6)
	nodes := make([]Node, count)
	for i := range nodes {
		p.node(&nodes[i])
		if p.bad || !validName(nodes[i].Name) || (i > 0 && nodes[i].Name <= nodes[i-1].Name) {
			return nil, fmt.Errorf("entry %d of a directory: %w", i, ErrFormat)
		}
	}
	if p.bad || len(p.s) != 0 {
		return nil, fmt.Errorf("directory of %d bytes: %w", len(b), ErrFormat)
	}
	return nodes, nil
}

// ParseExtents reads a list chunk. ErrFormat if it is not one.
func ParseExtents(b []byte) ([]Extent, error) {
	p := parser{s: string(b)}
	extents := p.extents()
	if p.bad || len(p.s) != 0 {
		return nil, fmt.Errorf("list of %d bytes: %w", len(b), ErrFormat)
	}
	return extents, nil
}

func validName(s string) bool {
	return s != "" && s != "." && s != ".." && strings.IndexByte(s, '/') < 0 && strings.IndexByte(s, 0) < 0
}

// parser reads deterministic CBOR from the front of s. After the first fault bad
// is set and everything reads as zero.
type parser struct {
	s    string
	bad  bool
	slab []Extent
}

func (p *parser) fail() { p.bad, p.s = true, "" }

// head reads a head of the given major type in its shortest form.
func (p *parser) head(major byte) uint64 {
	if len(p.s) == 0 || p.s[0]&0xe0 != major {
		p.fail()
		return 0
	}
	info := p.s[0] & 0x1f
	if info < 24 {
		p.s = p.s[1:]
		return uint64(info)
	}
	if info > 27 {
		p.fail()
		return 0
	}
	n := 1 << (info - 24)
	if len(p.s) < 1+n {
		p.fail()
		return 0
	}
	var v uint64
	for i := 1; i <= n; i++ {
		v = v<<8 | uint64(p.s[i])
	}
	if n == 1 && v < 24 || n > 1 && v>>(4*n) == 0 {
		p.fail() // not the shortest form
		return 0
	}
	p.s = p.s[1+n:]
	return v
}

// count reads the head of an array or map whose elements take at least each bytes.
func (p *parser) count(major byte, each int) int {
	n := p.head(major)
	if n > uint64(len(p.s)/each) {
		p.fail()
		return 0
	}
	return int(n)
}

func (p *parser) uint(limit uint64) uint64 {
	v := p.head(majorUint)
	if v > limit {
		p.fail()
		return 0
	}
	return v
}

func (p *parser) string() string {
	n := p.head(majorBytes)
	if n > uint64(len(p.s)) {
		p.fail()
		return ""
	}
	s := p.s[:n]
	p.s = p.s[n:]
	return s
}

func (p *parser) id() (id chunk.ID) {
	s := p.string()
	if len(s) != len(id) {
		p.fail()
		return id
	}
	copy(id[:], s)
	return id
}

func (p *parser) time() (t Time) {
	if p.head(majorArray) != 2 {
		p.fail()
		return t
	}
	if len(p.s) > 0 && p.s[0]&0xe0 == majorNeg {
		v := p.head(majorNeg)
		if v > 1<<63-1 {
			p.fail()
		}
		t.Sec = -1 - int64(v)
	} else {
		t.Sec = int64(p.uint(1<<63 - 1))
	}
	t.Nsec = uint32(p.uint(999_999_999))
	return t
}

func (p *parser) node(n *Node) {
	last := byte(0)
	for range p.count(majorMap, 2) {
		if len(p.s) == 0 || p.s[0] <= last || p.s[0] > keyPartial {
			p.fail() // keys ascend, and a reader of this version knows them all
			return
		}
		last = p.s[0]
		p.s = p.s[1:]
		p.field(n, last)
	}
	if n.Type < File || n.Type > BlockDevice {
		p.fail()
	}
}

func (p *parser) field(n *Node, key byte) {
	const max32, max64 = 1<<32 - 1, 1<<64 - 1
	switch key {
	case keyName:
		n.Name = p.string()
	case keyType:
		n.Type = Type(p.uint(255))
	case keyMode:
		n.Mode = uint32(p.uint(07777))
	case keyUID:
		n.UID = uint32(p.uint(max32))
	case keyGID:
		n.GID = uint32(p.uint(max32))
	case keyMTime:
		n.MTime = p.time()
	case keyCTime:
		n.CTime = p.time()
	case keyInode:
		n.Inode = p.uint(max64)
	case keySize:
		n.Size = p.uint(1<<63 - 1)
	case keyTarget:
		n.Target = p.string()
	case keyDevice:
		n.Device = p.uint(max64)
	case keyLink:
		if p.head(majorArray) != 2 {
			p.fail()
		}
		n.Link = &Inode{Dev: p.uint(max64), Inode: p.uint(max64)}
	case keyXattrs:
		p.xattrs(n)
	case keyChanging:
		n.Changing = p.yes()
	case keyPartial:
		n.Partial = p.yes()
	case keyContent:
		n.Content = p.extents()
	case keyTrees:
		n.Trees = make([]chunk.ID, p.count(majorArray, 34))
		for i := range n.Trees {
			n.Trees[i] = p.id()
		}
	}
}

// yes reads true, the only boolean that is ever written.
func (p *parser) yes() bool {
	if len(p.s) == 0 || p.s[0] != simpleTrue {
		p.fail()
		return false
	}
	p.s = p.s[1:]
	return true
}

func (p *parser) xattrs(n *Node) {
	count := p.count(majorArray, 1)
	n.Xattrs = make(map[string][]byte, count/2)
	for range count / 2 {
		name := p.string()
		n.Xattrs[name] = []byte(p.string())
	}
	if len(n.Xattrs) == 0 || count != 2*len(n.Xattrs) {
		p.fail()
	}
}

func (p *parser) extents() []Extent {
	count := p.count(majorArray, 2)
	if cap(p.slab)-len(p.slab) < count {
		p.slab = make([]Extent, 0, max(count, 64))
	}
	start := len(p.slab)
	for range count {
		p.slab = append(p.slab, p.extent())
	}
	return p.slab[start:len(p.slab):len(p.slab)]
}

func (p *parser) extent() (e Extent) {
	parts := p.head(majorArray)
	e.Length = p.uint(1<<63 - 1)
	if e.Length == 0 || parts < 1 || parts > 3 {
		p.fail()
		return Extent{}
	}
	if parts >= 2 {
		e.Kind, e.ID = Content, p.id()
		if parts == 2 && e.Length > chunk.MaxSize {
			p.fail()
		}
	}
	if parts == 3 {
		e.Kind = Listed
		if p.head(majorUint) != 1 {
			p.fail()
		}
	}
	return e
}
