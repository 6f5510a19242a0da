package tree

import (
	"fmt"
	"strings"

	"github.com/cofferbackup/coffer/chunk"
)

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

// some reads a number that is not zero: zeros are left out.
func (p *parser) some(limit uint64) uint64 {
	v := p.uint(limit)
	if v == 0 {
		p.fail()
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

// time reads a time other than the start of 1970, which is left out.
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
	if t == (Time{}) {
		p.fail()
	}
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
		n.Mode = uint32(p.some(07777))
	case keyUID:
		n.UID = uint32(p.some(max32))
	case keyGID:
		n.GID = uint32(p.some(max32))
	case keyMTime:
		n.MTime = p.time()
	case keyCTime:
		n.CTime = p.time()
	case keyInode:
		n.Inode = p.some(max64)
	case keySize:
		n.Size = p.some(1<<63 - 1)
	case keyTarget:
		if n.Target = p.string(); n.Target == "" {
			p.fail()
		}
	case keyDevice:
		n.Device = p.some(max64)
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
		if n.Content = p.extents(); len(n.Content) == 0 {
			p.fail()
		}
	case keyTrees:
		n.Trees = make([]chunk.ID, p.count(majorArray, 34))
		for i := range n.Trees {
			n.Trees[i] = p.id()
		}
		if len(n.Trees) == 0 {
			p.fail()
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
	if count == 0 || count%2 != 0 {
		p.fail()
		return
	}
	n.Xattrs = make(map[string][]byte, count/2)
	last := ""
	for i := range count / 2 {
		name := p.string()
		if p.bad || i > 0 && name <= last {
			p.fail() // names ascend
			return
		}
		n.Xattrs[name] = []byte(p.string())
		last = name
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
