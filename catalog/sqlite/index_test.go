//go:build linux

package sqlite_test

import (
	"encoding/binary"
	"errors"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

func open(t testing.TB, path string) *sqlite.Index {
	t.Helper()
	x, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// maker makes packs.
type maker struct{ *rand.Rand }

func newMaker(seed uint64) maker { return maker{rand.New(rand.NewPCG(seed, 1))} }

func (m maker) fill(p []byte) {
	for i := range p {
		p[i] = byte(m.Uint32())
	}
}

func (m maker) id() (id chunk.ID) { m.fill(id[:]); return id }

// pack makes a pack of a few frames with few or many chunks, some of which are in
// old as well.
func (m maker) pack(old []pack.Contents) pack.Contents {
	c := pack.Contents{Generation: m.Uint32()}
	m.fill(c.Pack[:])
	for range 1 + m.IntN(12) {
		f := pack.Frame{Type: pack.FrameType(1 + m.IntN(3)), Codec: chunk.Codec(m.IntN(2)), Stored: 100 + m.Uint32N(1<<20)}
		n := 1
		if m.IntN(3) == 0 {
			n += m.IntN(150)
		}
		for range n {
			ch := pack.Chunk{ID: m.id(), Length: 1 + m.Uint32N(8000)}
			if len(old) > 0 && m.IntN(8) == 0 {
				f := old[m.IntN(len(old))].Frames[0]
				ch = f.Chunks[m.IntN(len(f.Chunks))]
			}
			f.Chunks = append(f.Chunks, ch)
			f.Raw += ch.Length
		}
		c.Frames = append(c.Frames, f)
	}
	return c
}

func (m maker) packs(n int) []pack.Contents {
	var all []pack.Contents
	for range n {
		all = append(all, m.pack(all))
	}
	return all
}

// places returns all locations of all chunks, those of one chunk in order.
func places(packs []pack.Contents) map[chunk.ID][]pack.Location {
	all := make(map[chunk.ID][]pack.Location)
	for _, c := range packs {
		for id, loc := range c.Locations {
			all[id] = append(all[id], loc)
		}
	}
	return all
}

// same checks that the index knows these packs, in order, and no others.
func same(t *testing.T, x *sqlite.Index, packs []pack.Contents) {
	t.Helper()
	chunks, known := 0, places(packs)
	var ids []pack.ID
	for _, c := range packs {
		ids = append(ids, c.Pack)
		for id := range c.Locations {
			if chunks++; chunks%every != 0 {
				continue
			}
			if loc, ok, err := x.Lookup(t.Context(), id); err != nil || !ok || loc != known[id][0] {
				t.Fatalf("chunk %s: %+v, %v, %v; want %+v", id, loc, ok, err, known[id][0])
			}
		}
		if got, ok, err := x.Contents(t.Context(), c.Pack); err != nil || !ok || !got.Equal(c) {
			t.Fatalf("contents of %s: %+v, %v, %v; want %+v", c.Pack, got, ok, err, c)
		}
		if ok, err := x.HasPack(t.Context(), c.Pack); err != nil || !ok {
			t.Fatalf("pack %s: %v, %v", c.Pack, ok, err)
		}
	}
	if got := collect(t, x.Packs(t.Context())); !slices.Equal(got, ids) {
		t.Fatalf("packs %v; want %v", got, ids)
	}
	p, c, err := x.Counts(t.Context())
	if err != nil || p != int64(len(packs)) || c != int64(chunks) {
		t.Fatalf("counts %d, %d, %v; want %d, %d", p, c, err, len(packs), chunks)
	}
}

func collect(t *testing.T, seq iter.Seq2[pack.ID, error]) []pack.ID {
	t.Helper()
	var all []pack.ID
	for id, err := range seq {
		must(t, err)
		all = append(all, id)
	}
	return all
}

func unknown(t *testing.T, x *sqlite.Index, id chunk.ID) {
	t.Helper()
	if loc, ok, err := x.Lookup(t.Context(), id); ok || err != nil {
		t.Fatalf("chunk %s is at %+v, %v; want it unknown", id, loc, err)
	}
}

func TestEmpty(t *testing.T) {
	x := open(t, filepath.Join(t.TempDir(), "index"))
	same(t, x, nil)
	unknown(t, x, chunk.ID{})
	unknown(t, x, chunk.ID{0xff})
	if names, err := x.Sources(t.Context()); err != nil || len(names) != 0 {
		t.Fatal(names, err)
	}
	if _, ok, err := x.Contents(t.Context(), pack.ID{1}); ok || err != nil {
		t.Fatal(ok, err)
	}
}

func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b ?%&#", "index")
	x := open(t, path)
	must(t, x.Add(t.Context(), "a", newMaker(1).packs(3)))
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("%v; want the file and its log", entries)
	}
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", dir, info.Mode(), err)
		}
	}
}

// TestRandom compares an index with a plain list of packs through additions,
// repetitions, removals and reopening, past several merges.
func TestRandom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	m, x := newMaker(2), open(t, path)
	var all []pack.Contents
	var lost []chunk.ID
	for round := range 8 {
		var batch []pack.Contents
		for range 150 {
			batch = append(batch, m.pack(all))
		}
		must(t, x.Add(t.Context(), string(rune('a'+round)), append(slices.Clone(all[:min(9, len(all))]), batch...)))
		all = append(all, batch...)

		var gone []pack.ID
		all = slices.DeleteFunc(all, func(c pack.Contents) bool {
			if m.IntN(4) > 0 {
				return false
			}
			gone = append(gone, c.Pack)
			lost = append(lost, c.Frames[0].Chunks[0].ID)
			return true
		})
		must(t, x.Forget(t.Context(), append(gone, pack.ID{}, gone[0])))
		if round%2 == 0 {
			same(t, x, all)
		} else {
			must(t, x.Close())
			x = open(t, path)
		}
	}
	same(t, x, all)
	known := places(all)
	for _, id := range lost {
		if _, ok := known[id]; !ok {
			unknown(t, x, id)
		}
	}
	for range 1000 {
		unknown(t, x, m.id())
	}
}

// TestMerged does the same with a table that is merged several times, and grows
// and shrinks.
func TestMerged(t *testing.T) {
	if testing.Short() {
		t.Skip("600,000 chunks take a second")
	}
	const chunks = 8 << 10 / every // in a pack
	path := filepath.Join(t.TempDir(), "index")
	x := open(t, path)
	var all []pack.Contents
	for i := range 75 {
		all = append(all, scalePack(i*chunks, chunks))
	}
	for batch := range slices.Chunk(all, 5) {
		must(t, x.Add(t.Context(), batch[0].Pack.String(), batch))
	}
	same(t, x, all)
	var gone []pack.ID
	for _, c := range all[10:60] {
		gone = append(gone, c.Pack)
	}
	must(t, x.Forget(t.Context(), gone))
	left := slices.Concat(all[:10], all[60:])
	same(t, x, left)
	for n := 10 * chunks; n < 60*chunks; n += 100 {
		unknown(t, x, scaleID(n))
	}
	must(t, x.Close())
	x = open(t, path)
	same(t, x, left)

	// They come back, under new numbers.
	must(t, x.Add(t.Context(), "back", all))
	same(t, x, slices.Concat(left, all[10:60]))
}

// TestRebuilt: an index made of the same packs in another way says the same.
func TestRebuilt(t *testing.T) {
	packs := newMaker(3).packs(300)
	one := open(t, filepath.Join(t.TempDir(), "one"))
	for i := range packs {
		must(t, one.Add(t.Context(), "", packs[i:i+1]))
	}
	must(t, one.Add(t.Context(), "all", packs))
	same(t, one, packs)

	var again []pack.Contents
	for id, err := range one.Packs(t.Context()) {
		must(t, err)
		c, ok, err := one.Contents(t.Context(), id) // the index may be used meanwhile
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		again = append(again, c)
	}
	two := open(t, filepath.Join(t.TempDir(), "two"))
	must(t, two.Add(t.Context(), "all", again))
	same(t, two, packs)
}

func TestSamePrefix(t *testing.T) {
	// Chunks whose ids differ only in their last bytes, as no HMAC would make them.
	c := pack.Contents{Pack: pack.ID{7}, Frames: []pack.Frame{{Type: pack.Data, Stored: 100}}}
	for i := range 500 {
		ch := pack.Chunk{Length: 1}
		binary.BigEndian.PutUint32(ch.ID[28:], uint32(i))
		c.Frames[0].Chunks = append(c.Frames[0].Chunks, ch)
		c.Frames[0].Raw++
	}
	x := open(t, filepath.Join(t.TempDir(), "index"))
	must(t, x.Add(t.Context(), "a", []pack.Contents{c}))
	same(t, x, []pack.Contents{c})
	unknown(t, x, chunk.ID{31: 99, 30: 99})
}

func TestSources(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	x, packs := open(t, path), newMaker(4).packs(6)
	must(t, x.Add(t.Context(), "", packs[:4]))
	must(t, x.Add(t.Context(), "a", packs[:2]))
	must(t, x.Add(t.Context(), "b", packs[4:5]))
	must(t, x.Add(t.Context(), "", packs[4:])) // one of them has an index already
	must(t, x.Add(t.Context(), "empty", nil))
	must(t, x.Close())
	x = open(t, path)
	names, err := x.Sources(t.Context())
	if want := (map[string]struct{}{"a": {}, "b": {}, "empty": {}}); err != nil || !reflect.DeepEqual(names, want) {
		t.Errorf("sources %v, %v; want %v", names, err, want)
	}
	un, err := x.Unsourced(t.Context())
	if want := []pack.Contents{packs[2], packs[3], packs[5]}; err != nil || !reflect.DeepEqual(un, want) {
		t.Errorf("without source: %d packs, %v; want %d", len(un), err, len(want))
	}
	same(t, x, packs)
}

// TestDisown: without sources everything is still found, and what is added again is
// named again.
func TestDisown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	x, packs := open(t, path), newMaker(8).packs(1200)
	must(t, x.Add(t.Context(), "a", packs[:700]))
	must(t, x.Add(t.Context(), "b", packs[700:1100]))
	must(t, x.Add(t.Context(), "", packs[1100:]))
	must(t, x.Disown(t.Context()))
	must(t, x.Close())
	x = open(t, path)
	if names, err := x.Sources(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("sources %v, %v", names, err)
	}
	if left, err := x.Unsourced(t.Context()); err != nil || len(left) != len(packs) {
		t.Errorf("%d packs without a source, %v; want %d", len(left), err, len(packs))
	}
	same(t, x, packs)
	must(t, x.Add(t.Context(), "c", packs[:1100]))
	if left, err := x.Unsourced(t.Context()); err != nil || !reflect.DeepEqual(left, packs[1100:]) {
		t.Errorf("%d packs without a source, %v; want %d", len(left), err, len(packs)-1100)
	}
	same(t, x, packs)
}

func TestContradiction(t *testing.T) {
	x := open(t, filepath.Join(t.TempDir(), "index"))
	packs := newMaker(5).packs(3)
	bad := packs[2]
	bad.Frames = slices.Clone(bad.Frames)
	bad.Frames[0].Raw--
	if err := x.Add(t.Context(), "a", []pack.Contents{packs[0], packs[1], bad}); err == nil || errors.Is(err, sqlite.ErrDamaged) {
		t.Errorf("chunks beyond their frame: %v", err)
	}
	same(t, x, nil) // nothing of the batch
	must(t, x.Add(t.Context(), "a", packs))
	same(t, x, packs)
}

func TestBeginEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	x := open(t, path)
	for i, step := range []struct{ reopen, end, unclean bool }{
		{}, {unclean: true}, {reopen: true, unclean: true}, {end: true}, {reopen: true, end: true}, {unclean: true},
	} {
		if step.reopen {
			must(t, x.Close())
			x = open(t, path)
		}
		if step.end {
			must(t, x.End(t.Context()))
		}
		if unclean, err := x.Begin(t.Context()); err != nil || unclean != step.unclean {
			t.Fatalf("step %d: unclean %v, %v; want %v", i, unclean, err, step.unclean)
		}
	}
}

func TestBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	x := open(t, path)
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: discard}); !errors.Is(err, sqlite.ErrBusy) {
		t.Errorf("opened twice: %v", err)
	}
	if out, err := child(t, holdEnv, path).CombinedOutput(); err == nil || !contains(out, sqlite.ErrBusy.Error()) {
		t.Errorf("opened by two processes: %s, %v", out, err)
	}
	packs := newMaker(7).packs(10)
	must(t, x.Add(t.Context(), "a", packs))
	same(t, x, packs)
	must(t, x.Close())
	same(t, open(t, path), packs)
}

func TestConcurrent(t *testing.T) {
	x := open(t, filepath.Join(t.TempDir(), "index"))
	m := newMaker(8)
	batches := [][]pack.Contents{m.packs(40), m.packs(40), m.packs(40), m.packs(40)}
	stable := places(batches[0])
	must(t, x.Add(t.Context(), "0", batches[0]))
	// 150,000 more, so that a merge comes in between.
	for i := range 18 {
		batches[1] = append(batches[1], scalePack(i<<13, 8<<10))
	}
	var group sync.WaitGroup
	for i, batch := range batches[1:] {
		group.Go(func() {
			var ids []pack.ID
			for _, c := range batch {
				if err := x.Add(t.Context(), string(rune('a'+i)), []pack.Contents{c}); err != nil {
					t.Error(err)
				}
				ids = append(ids, c.Pack)
			}
			if err := x.Forget(t.Context(), ids[:20]); err != nil {
				t.Error(err)
			}
		})
	}
	for range 4 {
		group.Go(func() {
			for range 5 {
				for id, locs := range stable {
					if loc, ok, err := x.Lookup(t.Context(), id); !ok || err != nil || loc != locs[0] {
						t.Errorf("chunk %s: %+v, %v, %v", id, loc, ok, err)
						return
					}
				}
			}
		})
	}
	group.Wait()
	if packs, _, err := x.Counts(t.Context()); err != nil || packs != 40+38+20+20 {
		t.Errorf("%d packs, %v", packs, err)
	}
}
