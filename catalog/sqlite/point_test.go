//go:build linux

package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

var when = time.Date(2026, 11, 22, 9, 0, 3, 0, time.UTC)

func summary(i int) catalog.Summary {
	at := when.Add(time.Duration(i) * time.Second)
	return catalog.Summary{Name: catalog.NewSession(at, "").Name, Kind: "files", Host: "h", Started: at.UnixNano(), Ended: at.UnixNano() + 1,
		Tags: []string{"t"}, Stats: catalog.Stats{Files: uint64(i), Stored: 10}, Size: int64(200 + i)}
}

func summaries(t testing.TB, x *sqlite.Index, q catalog.PointQuery) []catalog.Summary {
	t.Helper()
	var all []catalog.Summary
	for s, err := range x.Summaries(t.Context(), q) {
		must(t, err)
		all = append(all, s)
	}
	return all
}

// TestMemoryOfPoints: what is told of points is there, in order, also after Disown and
// in the next process, and the counts agree with it.
func TestMemoryOfPoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	x := open(t, path)
	var want []catalog.Summary
	for i := range 1000 {
		want = append(want, summary(i))
	}
	names := func(from, to int) (out []catalog.PointName) {
		for _, s := range want[from:to] {
			out = append(out, s.Name)
		}
		return out
	}
	must(t, x.AddPoints(t.Context(), want[500:]))
	must(t, x.AddPoints(t.Context(), want[:501]))
	must(t, x.SetPoints(t.Context(), catalog.PointGone, names(3, 5)))
	must(t, x.SetPoints(t.Context(), catalog.PointMarked, names(4, 6)))
	must(t, x.SetPoints(t.Context(), catalog.PointGone, []catalog.PointName{"nobody"}))
	must(t, x.DamagePoints(t.Context(), map[catalog.PointName]bool{want[7].Name: true}))
	must(t, x.DropPoints(t.Context(), append(names(8, 9), "nobody")))
	want[3].State, want[4].State, want[5].State, want[7].Damaged = catalog.PointGone, catalog.PointMarked, catalog.PointMarked, true
	want = slices.Delete(want, 8, 9)
	must(t, x.OwnSession(t.Context(), "b"))
	must(t, x.OwnSession(t.Context(), "a"))
	must(t, x.OwnSession(t.Context(), "a"))
	must(t, x.OwnSession(t.Context(), "c"))
	must(t, x.DropSession(t.Context(), "b"))
	check := func(when string) {
		t.Helper()
		if got := summaries(t, x, catalog.PointQuery{}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d points are not what was added", when, len(got))
		}
		newest := summaries(t, x, catalog.PointQuery{Newest: true})
		slices.Reverse(newest)
		if !reflect.DeepEqual(newest, want) {
			t.Errorf("%s: the newest first are others", when)
		}
		if gone := summaries(t, x, catalog.PointQuery{Gone: true}); !reflect.DeepEqual(gone, want[3:4]) {
			t.Errorf("%s: gone %v", when, gone)
		}
		if n, stored, err := x.CountPoints(t.Context()); err != nil || n != 998 || stored != 9980 {
			t.Errorf("%s: %d points, %d bytes, %v", when, n, stored, err)
		}
		if own, err := x.OwnSessions(t.Context()); err != nil || !slices.Equal(own, []catalog.PointName{"a", "c"}) {
			t.Errorf("%s: sessions %v, %v", when, own, err)
		}
	}
	check("at once")
	must(t, x.Disown(t.Context()))
	check("after Disown")
	must(t, x.Close())
	x = open(t, path)
	check("in the next process")
}

// TestNotes: a note goes with its pack, and stays when the index is made anew.
func TestNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	x := open(t, path)
	packs := newMaker(3).packs(700)
	must(t, x.Add(t.Context(), "a", packs))
	want := make(map[pack.ID]int64)
	for i, c := range packs {
		want[c.Pack] = int64(i + 1)
	}
	must(t, x.SetNotes(t.Context(), catalog.NoteRead, want))
	must(t, x.SetNotes(t.Context(), catalog.NoteDamaged, map[pack.ID]int64{packs[0].Pack: 5}))
	must(t, x.SetNotes(t.Context(), catalog.NoteSeen, map[pack.ID]int64{packs[0].Pack: -5}))
	must(t, x.SetNotes(t.Context(), catalog.NoteRead, map[pack.ID]int64{packs[1].Pack: 0, packs[2].Pack: 77}))
	delete(want, packs[1].Pack)
	want[packs[2].Pack] = 77
	check := func(when string) {
		t.Helper()
		got := make(map[pack.ID]int64)
		for n, err := range x.Notes(t.Context(), catalog.NoteRead) {
			must(t, err)
			got[n.Pack] = n.Value
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d notes, want %d", when, len(got), len(want))
		}
	}
	check("at once")
	must(t, x.Disown(t.Context()))
	check("after Disown")
	must(t, x.Add(t.Context(), "a", packs))
	must(t, x.Close())
	x = open(t, path)
	check("in the next process")
	must(t, x.Forget(t.Context(), []pack.ID{packs[0].Pack}))
	delete(want, packs[0].Pack)
	check("after Forget")
	for kind, value := range map[catalog.Note]int64{catalog.NoteDamaged: 0, catalog.NoteSeen: -5, catalog.NoteRetained: 0} {
		if got, err := x.Note(t.Context(), kind, packs[0].Pack); err != nil || got != value {
			t.Errorf("note %d of a forgotten pack: %d, %v; want %d", kind, got, err, value)
		}
	}
}

// vaultItem makes an item in a vault of its own.
func vaultItem(t testing.TB, st store.Store) (*catalog.Vault, *catalog.Item) {
	t.Helper()
	uri := "file://" + filepath.Join(t.TempDir(), "kek.pem")
	must(t, software.Create(t.Context(), uri, software.CreateOptions{Bits: 2048}))
	k, err := software.Open(t.Context(), "test", uri)
	must(t, err)
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: kek.NewRing(k), Now: when})
	must(t, err)
	it, err := v.CreateItem(t.Context(), "etc", when)
	must(t, err)
	return v, it
}

func commit(t testing.TB, it *catalog.Item, at time.Time) catalog.PointName {
	t.Helper()
	s, err := it.Begin(t.Context(), at, "host")
	must(t, err)
	must(t, it.PutPoint(t.Context(), &catalog.Point{Name: s.Name, Item: "etc", Started: at.UnixNano(), Stats: catalog.Stats{Stored: 7}}, store.PutOptions{}))
	return s.Name
}

// TestSyncPoints: each point is read once; what a prune removed is forgotten, what
// somebody else removed is an alarm for as long as nobody takes note of it, and one that
// came back is none.
func TestSyncPoints(t *testing.T) {
	st := mem.New(mem.Config{})
	_, it := vaultItem(t, st)
	x := open(t, filepath.Join(t.TempDir(), "index"))
	var names []catalog.PointName
	for i := range 600 {
		names = append(names, commit(t, it, when.Add(time.Duration(i)*time.Minute)))
	}
	sync := func(what string, read, lost int, gone ...catalog.PointName) {
		t.Helper()
		done, err := it.SyncPoints(t.Context(), x)
		if err != nil || done.Read != read || done.Lost != lost || !slices.Equal(done.Gone, gone) || errors.Is(done.Err(), catalog.ErrPointGone) != (lost > 0) {
			t.Errorf("%s: %+v, %v", what, done, err)
		}
	}
	known := func(what string, want []catalog.PointName) {
		t.Helper()
		var got []catalog.PointName
		for _, s := range summaries(t, x, catalog.PointQuery{}) {
			if s.State != catalog.PointGone {
				got = append(got, s.Name)
			}
		}
		if n, stored, err := x.CountPoints(t.Context()); !slices.Equal(got, want) || err != nil || n != int64(len(want)) || stored != 7*n {
			t.Errorf("%s: %d points, counted %d with %d bytes, %v; want %d", what, len(got), n, stored, err, len(want))
		}
	}
	sync("at first", 600, 0)
	known("at first", names)
	sync("again", 0, 0)
	void, err := it.Begin(t.Context(), when.Add(-time.Hour), "host")
	must(t, err)
	_, err = it.Void(t.Context(), void.Name)
	must(t, err)
	late := commit(t, it, when.Add(30*time.Second)) // between others
	names = slices.Insert(names, 1, late)
	sync("one more", 1, 0)
	known("one more", names)

	// A prune marks two points and removes one; a third is taken by somebody else.
	m := catalog.Mark{Created: when, Points: []catalog.PointName{names[0], names[5]}}
	must(t, it.PutMark(t.Context(), &m))
	sync("marked", 0, 0)
	saved, err := store.ReadAll(t.Context(), st, it.PointKey(names[300]), store.MaxObject)
	must(t, err)
	must(t, st.Delete(t.Context(), it.PointKey(names[0])))
	must(t, st.Delete(t.Context(), it.MarkKey(m.ID)))
	must(t, st.Delete(t.Context(), it.PointKey(names[300])))
	sync("pruned and stolen", 0, 1, names[300])
	sync("still", 0, 1, names[300])
	left := slices.Concat(names[1:300], names[301:])
	known("after that", left)

	// The mark has gone without the other point: from now on nothing explains its end.
	must(t, st.Delete(t.Context(), it.PointKey(names[5])))
	sync("rescued and then stolen", 0, 2, names[5], names[300])
	must(t, st.Put(t.Context(), it.PointKey(names[300]), store.Body{saved}, store.PutOptions{}))
	sync("put back", 0, 1, names[5])
	must(t, x.DropPoints(t.Context(), names[5:6]))
	sync("taken note of", 0, 0)

	// A point that is emptied is no void to whoever knew it; one that is cut is damaged.
	must(t, st.Tamper(it.PointKey(names[10]), func([]byte) []byte { return nil }))
	sync("emptied", 0, 1, names[10])
	must(t, st.Tamper(it.PointKey(names[20]), func(b []byte) []byte { return b[:50] }))
	sync("cut", 1, 1, names[10])

	// A prune from its mark to its end, while this host slept.
	must(t, it.PutRemoved(t.Context(), names[30:32]))
	for _, name := range names[30:32] {
		must(t, st.Delete(t.Context(), it.PointKey(name)))
		must(t, st.Put(t.Context(), it.PointKey(name), store.Body{}, store.PutOptions{}))
	}
	sync("slept through", 1, 1, names[10]) // the one that was cut is tried again
	for _, s := range summaries(t, x, catalog.PointQuery{}) {
		if s.Damaged != (s.Name == names[20]) {
			t.Errorf("%s: damaged %v", s.Name, s.Damaged)
		}
	}
}

// TestPointOfAnErasedItem: points that went with an item are no alarm for the one that
// was made again.
func TestPointOfAnErasedItem(t *testing.T) {
	st := mem.New(mem.Config{})
	v, it := vaultItem(t, st)
	x := open(t, filepath.Join(t.TempDir(), "index"))
	commit(t, it, when)
	_, err := it.SyncPoints(t.Context(), x)
	must(t, err)
	_, err = v.Erase(t.Context(), st, "etc", when.Add(time.Hour))
	must(t, err)
	it, err = v.CreateItem(t.Context(), "etc", when.Add(2*time.Hour))
	must(t, err)
	mine := commit(t, it, when.Add(3*time.Hour))
	if done, err := it.SyncPoints(t.Context(), x); err != nil || done.Lost != 0 || done.Read != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	must(t, st.Delete(t.Context(), it.PointKey(mine)))
	if done, err := it.SyncPoints(t.Context(), x); err != nil || done.Lost != 1 {
		t.Errorf("%+v, %v", done, err)
	}
}

// listed is a store in which an item has points that nobody may read.
type listed struct {
	*mem.Store
	prefix store.Key
	names  []catalog.PointName
	reads  int
	live   uint64 // bytes on the heap in the middle of a listing
}

func (l *listed) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	if prefix != l.prefix {
		return l.Store.List(ctx, prefix)
	}
	return func(yield func(store.Info, error) bool) {
		for i, n := range l.names {
			if i == len(l.names)/2 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				l.live = m.HeapAlloc
			}
			if !yield(store.Info{Key: prefix + store.Key(n), Size: int64(200 + i)}, nil) {
				return
			}
		}
	}
}

func (l *listed) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	if strings.HasPrefix(string(key), string(l.prefix)) {
		l.reads++
	}
	return l.Store.Get(ctx, key, p, off)
}

// manyPoints is an item whose points are all known.
func manyPoints(t testing.TB, n int) (*catalog.Item, *sqlite.Index, *listed) {
	t.Helper()
	l := &listed{Store: mem.New(mem.Config{}), prefix: "none"}
	_, it := vaultItem(t, l)
	x := open(t, filepath.Join(t.TempDir(), "index"))
	l.prefix = store.Key(fmt.Sprintf("items/%s/points/", it.ID()))
	var batch []catalog.Summary
	for i := range n {
		s := summary(i)
		l.names = append(l.names, s.Name)
		if batch = append(batch, s); len(batch) == 10_000 || i == n-1 {
			must(t, x.AddPoints(t.Context(), batch))
			batch = batch[:0]
		}
	}
	return it, x, l
}

// TestManyPoints: points that are known are not read again, nor held in memory.
func TestManyPoints(t *testing.T) {
	points := 100_000
	if raced {
		points = 5_000
	}
	it, x, l := manyPoints(t, points)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	done, err := it.SyncPoints(t.Context(), x)
	if err != nil || done.Read != 0 || done.Lost != 0 || l.reads != 0 {
		t.Errorf("%+v, %v; %d reads", done, err, l.reads)
	}
	kept := int64(l.live) - int64(before.HeapAlloc)
	t.Logf("%d KiB held in the middle of %d points", kept/1024, points)
	if kept > 8<<20 {
		t.Errorf("%d KiB are held in the middle", kept/1024)
	}
}

// BenchmarkMillionPoints looks at a million points that are known.
func BenchmarkMillionPoints(b *testing.B) {
	it, x, l := manyPoints(b, 1_000_000)
	for b.Loop() {
		if done, err := it.SyncPoints(b.Context(), x); err != nil || done.Read != 0 || done.Lost != 0 {
			b.Fatalf("%+v, %v", done, err)
		}
	}
	if l.reads > 0 {
		b.Errorf("%d points were read again", l.reads)
	}
}
