package tree_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
)

// generator makes nodes of all kinds, each field with the values at which its
// encoding changes its length.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 1))} }

// number is at most limit, zero in one of eight cases, and often near a power of two.
func (g generator) number(limit uint64) uint64 {
	switch g.IntN(8) {
	case 0:
		return 0
	case 1:
		return limit
	}
	edges := [...]uint64{1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<63 - 1}
	if v := edges[g.IntN(len(edges))] + uint64(g.IntN(3)) - 1; v <= limit {
		return v
	}
	return g.Uint64() & limit
}

func (g generator) bytes(most int) []byte {
	b := make([]byte, g.IntN(most+1))
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g generator) id() (id chunk.ID) {
	for i := range id {
		id[i] = byte(g.Uint32())
	}
	return id
}

func (g generator) time() tree.Time {
	t := tree.Time{Sec: int64(g.number(math.MaxInt64)), Nsec: g.Uint32N(1_000_000_000)}
	if g.IntN(2) == 0 {
		t.Sec = -t.Sec - 1
	}
	if g.IntN(4) == 0 {
		t = tree.Time{}
	}
	return t
}

func (g generator) extents(most int) []tree.Extent {
	var extents []tree.Extent
	for range g.IntN(most + 1) {
		e := tree.Extent{Kind: tree.ExtentKind(g.IntN(3)), Length: 1 + g.number(math.MaxInt64-1)}
		if e.Kind == tree.Content {
			e.Length = 1 + g.Uint64N(chunk.MaxSize)
		}
		if e.Kind != tree.Hole {
			e.ID = g.id()
		}
		extents = append(extents, e)
	}
	return extents
}

func (g generator) node(name string) *tree.Node {
	n := &tree.Node{
		Name: name, Type: tree.Type(1 + g.IntN(6)), Mode: uint32(g.number(07777)),
		UID: uint32(g.number(math.MaxUint32)), GID: uint32(g.number(math.MaxUint32)),
		MTime: g.time(), CTime: g.time(), Inode: g.number(math.MaxUint64),
	}
	if g.IntN(3) == 0 {
		n.Link = &tree.Inode{Dev: g.number(math.MaxUint64), Inode: g.number(math.MaxUint64)}
	}
	for i := range g.IntN(4) {
		if n.Xattrs == nil {
			n.Xattrs = make(map[string][]byte)
		}
		n.Xattrs[fmt.Sprintf("user.%c%d", 'z'-i, i)] = g.bytes(300)
	}
	switch n.Type {
	case tree.File:
		n.Size, n.Content, n.Changing = g.number(math.MaxInt64), g.extents(5), g.IntN(2) == 0
	case tree.Dir:
		n.Partial = g.IntN(2) == 0
		for range g.IntN(4) {
			n.Trees = append(n.Trees, g.id())
		}
	case tree.Symlink:
		n.Target = string(g.bytes(300))
	case tree.CharDevice, tree.BlockDevice:
		n.Device = g.number(math.MaxUint64)
	}
	return n
}

// nodes have names of any bytes that a name may have.
func (g generator) nodes(most int) []*tree.Node {
	names := make(map[string]struct{})
	for range g.IntN(most + 1) {
		name := strings.NewReplacer("/", "_", "\x00", "_").Replace(string(g.bytes(40)))
		if name == "" || name == "." || name == ".." {
			name = "\xff"
		}
		names[name] = struct{}{}
	}
	var nodes []*tree.Node
	for _, name := range slices.Sorted(maps.Keys(names)) {
		nodes = append(nodes, g.node(name))
	}
	return nodes
}

// deterministic decodes b with the library, into values that know nothing of
// nodes, and encodes them again in the core deterministic encoding.
func deterministic(t *testing.T, b []byte) []byte {
	t.Helper()
	var v any
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	if err := dec.Unmarshal(b, &v); err != nil {
		t.Fatalf("the library does not read %x: %v", b, err)
	}
	out, err := enc.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNodesAreDeterministicCBOR(t *testing.T) {
	for seed := range uint64(2000) {
		nodes := newGenerator(seed).nodes(8)
		b := tree.AppendNodes(nil, nodes)
		if want := deterministic(t, b); !bytes.Equal(b, want) {
			t.Fatalf("seed %d: %x, the library writes %x", seed, b, want)
		}
		got, err := tree.ParseNodes(b)
		if err != nil || len(got) != len(nodes) {
			t.Fatalf("seed %d: %d nodes of %d, %v", seed, len(got), len(nodes), err)
		}
		for i := range got {
			if !equal(&got[i], nodes[i]) {
				t.Fatalf("seed %d: %+v came back as %+v", seed, nodes[i], got[i])
			}
		}
	}
}

func TestExtentsAreDeterministicCBOR(t *testing.T) {
	for seed := range uint64(1000) {
		extents := newGenerator(seed).extents(80)
		b := tree.AppendExtents(nil, extents)
		if want := deterministic(t, b); !bytes.Equal(b, want) {
			t.Fatalf("seed %d: %x, the library writes %x", seed, b, want)
		}
		if got, err := tree.ParseExtents(b); err != nil || !slices.Equal(got, extents) {
			t.Fatalf("seed %d: %v came back as %v, %v", seed, extents, got, err)
		}
	}
}

// TestKnownBytes holds the encoding against bytes written by hand from
// docs/format.md, 6.2 and 6.3.
func TestKnownBytes(t *testing.T) {
	file := &tree.Node{
		Name: "a", Type: tree.File, Mode: 0o644, UID: 1000, MTime: tree.Time{Sec: -1, Nsec: 5}, Size: 300,
		Link: &tree.Inode{Dev: 1, Inode: 2}, Xattrs: map[string][]byte{"y": {1}, "x": nil}, Changing: true,
		Content: []tree.Extent{{Length: 256}, {Length: 44, Kind: tree.Content, ID: chunk.ID{9}}},
	}
	id := "5820" + "09" + strings.Repeat("00", 31)
	want := "81" + "aa" + "014161" + "0201" + "031901a4" + "041903e8" + "06822005" + "0919012c" + "0c820102" +
		"0d8441784041794101" + "0ef5" + "0f8281190100" + "82182c" + id
	if got := fmt.Sprintf("%x", tree.AppendNodes(nil, []*tree.Node{file})); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want = "8183" + "1b0000000100000000" + id + "01"
	got := tree.AppendExtents(nil, []tree.Extent{{Length: 1 << 32, Kind: tree.Listed, ID: chunk.ID{9}}})
	if fmt.Sprintf("%x", got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}

func TestTruncationIsRefused(t *testing.T) {
	for seed := range uint64(50) {
		g := newGenerator(seed)
		nodes, extents := tree.AppendNodes(nil, g.nodes(4)), tree.AppendExtents(nil, g.extents(4))
		for n := range nodes {
			if _, err := tree.ParseNodes(nodes[:n]); !errors.Is(err, tree.ErrFormat) {
				t.Fatalf("seed %d: %d bytes of %x: %v", seed, n, nodes, err)
			}
		}
		for n := range extents {
			if _, err := tree.ParseExtents(extents[:n]); !errors.Is(err, tree.ErrFormat) {
				t.Fatalf("seed %d: %d bytes of %x: %v", seed, n, extents, err)
			}
		}
	}
}

// equal tells whether two nodes say the same, content and subtrees included.
func equal(a, b *tree.Node) bool {
	if a == b {
		return true
	}
	if a.Name != b.Name || a.Type != b.Type || a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID ||
		a.MTime != b.MTime || a.CTime != b.CTime || a.Inode != b.Inode || a.Size != b.Size ||
		a.Target != b.Target || a.Device != b.Device || a.Changing != b.Changing || a.Partial != b.Partial {
		return false
	}
	if (a.Link == nil) != (b.Link == nil) || a.Link != nil && *a.Link != *b.Link {
		return false
	}
	return maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal) &&
		slices.Equal(a.Content, b.Content) && slices.Equal(a.Trees, b.Trees)
}

// allocated returns how many bytes f allocates in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// mostMemory is what a parser may allocate for n bytes. A node of six bytes is
// 34 times as large in memory.
func mostMemory(n int) uint64 { return 128*uint64(n) + 1<<20 }

func FuzzParseNodes(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(tree.AppendNodes(nil, newGenerator(seed).nodes(4)))
	}
	for _, r := range badNodes() {
		f.Add(r.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var nodes []tree.Node
		var err error
		if used := allocated(func() { nodes, err = tree.ParseNodes(b) }); used > mostMemory(len(b)) {
			t.Fatalf("%d bytes allocated for %d", used, len(b))
		}
		if err != nil {
			return
		}
		pointers := make([]*tree.Node, len(nodes))
		for i := range nodes {
			pointers[i] = &nodes[i]
		}
		if again := tree.AppendNodes(nil, pointers); !bytes.Equal(again, b) {
			t.Fatalf("%x is read, and written as %x", b, again)
		}
	})
}

func FuzzParseExtents(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(tree.AppendExtents(nil, newGenerator(seed).extents(4)))
	}
	for _, r := range badExtents() {
		f.Add(r.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var extents []tree.Extent
		var err error
		if used := allocated(func() { extents, err = tree.ParseExtents(b) }); used > mostMemory(len(b)) {
			t.Fatalf("%d bytes allocated for %d", used, len(b))
		}
		if err != nil {
			return
		}
		if again := tree.AppendExtents(nil, extents); !bytes.Equal(again, b) {
			t.Fatalf("%x is read, and written as %x", b, again)
		}
	})
}
