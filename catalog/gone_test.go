package catalog_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

// noted is a local index with a notebook.
type noted struct {
	*local
	notes map[catalog.Note]map[pack.ID]int64
}

var _ catalog.Notebook = noted{}

func (n noted) SetNotes(_ context.Context, kind catalog.Note, notes map[pack.ID]int64) error {
	if n.notes[kind] == nil {
		n.notes[kind] = make(map[pack.ID]int64)
	}
	maps.Copy(n.notes[kind], notes)
	maps.DeleteFunc(n.notes[kind], func(_ pack.ID, v int64) bool { return v == 0 })
	return nil
}

func (n noted) Note(_ context.Context, kind catalog.Note, id pack.ID) (int64, error) {
	return n.notes[kind][id], nil
}

func (n noted) Notes(_ context.Context, kind catalog.Note) iter.Seq2[catalog.Noted, error] {
	return func(yield func(catalog.Noted, error) bool) {
		for id, v := range n.notes[kind] {
			if !yield(catalog.Noted{Pack: id, Value: v}, nil) {
				return
			}
		}
	}
}

// TestSyncTellsWhatIsGone: what a prune marked and removed is no news, also if its mark
// is gone with it; what somebody else deleted is.
func TestSyncTellsWhatIsGone(t *testing.T) {
	k := newKey(t, "main")
	base := newStore()
	v := vault(t, base, k)
	it := item(t, v, "etc")
	a, b := addPack(t, base, it, "a"), addPack(t, base, it, "b")
	first, _, err := it.PutIndex(t.Context(), []pack.Contents{a, b}, store.PutOptions{})
	check(t, err)
	marked := catalog.Mark{Created: now, Packs: []pack.ID{a.Pack}}
	for _, tt := range []struct {
		name string
		// before the first Sync, and between it and the second
		before, between func(it *catalog.Item, st *mem.Store)
		gone            []store.Key
	}{
		{"nothing", nil, nil, nil},
		{"a pack, and the index says so", nil, func(it *catalog.Item, st *mem.Store) {
			check(t, st.Delete(t.Context(), pack.Key(it.ID(), a.Pack)))
			_, _, err := it.PutIndex(t.Context(), []pack.Contents{b}, store.PutOptions{})
			check(t, err)
			check(t, st.Delete(t.Context(), it.IndexKey(first)))
		}, []store.Key{pack.Key(it.ID(), a.Pack)}},
		{"an index", nil, func(it *catalog.Item, st *mem.Store) {
			check(t, st.Delete(t.Context(), it.IndexKey(first)))
		}, []store.Key{it.IndexKey(first)}},
		{"a prune that has ended, whose mark was seen", func(it *catalog.Item, st *mem.Store) {
			check(t, it.PutMark(t.Context(), &marked))
		}, func(it *catalog.Item, st *mem.Store) {
			_, _, err := it.PutIndex(t.Context(), []pack.Contents{b}, store.PutOptions{})
			check(t, err)
			check(t, st.Delete(t.Context(), pack.Key(it.ID(), a.Pack)))
			check(t, st.Delete(t.Context(), it.IndexKey(first)))
			check(t, st.Delete(t.Context(), it.MarkKey(marked.ID)))
		}, nil},
		{"a prune that was slept through", nil, func(it *catalog.Item, st *mem.Store) {
			check(t, it.PutOutcome(t.Context(), pack.ID{7}.String(), []pack.ID{a.Pack}))
			_, _, err := it.PutIndex(t.Context(), []pack.Contents{b}, store.PutOptions{})
			check(t, err)
			check(t, st.Delete(t.Context(), pack.Key(it.ID(), a.Pack)))
			check(t, st.Delete(t.Context(), it.IndexKey(first)))
		}, nil},
		{"a prune under way", nil, func(it *catalog.Item, st *mem.Store) {
			check(t, it.PutMark(t.Context(), &marked))
			_, _, err := it.PutIndex(t.Context(), []pack.Contents{b}, store.PutOptions{})
			check(t, err)
			check(t, st.Delete(t.Context(), pack.Key(it.ID(), a.Pack)))
			check(t, st.Delete(t.Context(), it.IndexKey(first)))
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := base.Clone()
			it := item(t, open(t, st, v.ID(), k), "etc")
			l := noted{newLocal(), make(map[catalog.Note]map[pack.ID]int64)}
			if tt.before != nil {
				tt.before(it, st)
			}
			if done, err := it.Sync(t.Context(), l); err != nil || len(done.Gone) > 0 {
				t.Fatalf("%+v, %v", done, err)
			}
			if tt.between != nil {
				tt.between(it, st)
			}
			done, err := it.Sync(t.Context(), l)
			check(t, err)
			if !slices.Equal(done.Gone, tt.gone) {
				t.Errorf("gone: %v, want %v", done.Gone, tt.gone)
			}
			for range 2 { // it is told once, and notes do not outlive their marks
				if done, err = it.Sync(t.Context(), l); err != nil || len(done.Gone) > 0 {
					t.Errorf("told again: %+v, %v", done, err)
				}
			}
			if len(done.Marks) == 0 && len(l.notes[catalog.NoteMarked])+len(l.notes[catalog.NoteSeen]) > 0 {
				t.Errorf("notes left: %v", l.notes)
			}
		})
	}
}

// TestSyncWhilePruneRewritesIndexes: an index object that goes away between the listing
// and the reading is looked for under its new name.
func TestSyncWhilePruneRewritesIndexes(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	v := vault(t, st, k)
	it := item(t, v, "etc")
	a := addPack(t, st, it, "a")
	first, _, err := it.PutIndex(t.Context(), []pack.Contents{a}, store.PutOptions{})
	check(t, err)
	moved := false
	racing := storetest.NewFaulty(st, func(op storetest.Op) storetest.Fault {
		if !moved && op.Kind == storetest.Stat && op.Key == it.IndexKey(first) {
			moved = true
			_, _, err := it.PutIndex(t.Context(), []pack.Contents{a}, store.PutOptions{})
			check(t, errors.Join(err, st.Delete(t.Context(), it.IndexKey(first))))
		}
		return storetest.Fault{}
	})
	far, err := catalog.Open(t.Context(), racing, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
	check(t, err)
	l := newLocal()
	done, err := item(t, far, "etc").Sync(t.Context(), l)
	if err != nil || !moved || done.Recovered != 0 || !slices.Equal(l.ids(), ids(a)) {
		t.Errorf("%+v, %v; packs %v", done, err, l.ids())
	}
}
