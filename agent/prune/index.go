package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// staleIndex is an index object that names packs which go, or went.
type staleIndex struct {
	name string
	size int64
}

// rewriteIndex puts index objects in the place of those that name packs which go or are
// not there, without these, and returns what is stale now. A crash here leaves packs
// that two index objects name, which does no harm.
func (r *run) rewriteIndex(ctx context.Context, gone []pack.ID) ([]staleIndex, error) {
	named, err := r.readIndexes(ctx)
	if err != nil {
		return nil, err
	}
	// A pack is put before the index that names it: what is not there now has gone.
	var there packList
	if err := r.packList(ctx, &there); err != nil {
		return nil, err
	}
	leaves := func(id pack.ID) bool {
		_, goes := slices.BinarySearchFunc(gone, id, comparePacks)
		_, is := there.place(id)
		return goes || !is
	}
	told := newPackSet(len(there.ids)) // by index objects that stay
	var stale []staleIndex
	for _, n := range named {
		if slices.ContainsFunc(n.packs, leaves) {
			stale = append(stale, n.staleIndex)
			continue
		}
		for i := range there.places(n.packs) {
			told.add(i)
		}
	}
	if r.DryRun {
		return stale, nil
	}
	w := r.indexWriter()
	for _, n := range named {
		if !slices.ContainsFunc(n.packs, leaves) {
			continue
		}
		contents, err := r.Item.Index(ctx, n.name)
		if errors.Is(err, store.ErrNotExist) {
			continue // another prune was here
		}
		if err != nil {
			return nil, err
		}
		r.Progress.Read.Add(n.size)
		for _, c := range contents {
			i, is := there.place(c.Pack)
			if !is || leaves(c.Pack) || told.has(i) {
				continue
			}
			told.add(i)
			if err := w.Add(ctx, c); err != nil {
				return nil, err
			}
		}
	}
	return stale, w.Flush(ctx)
}

// indexWriter writes index objects under the lock that is asked for.
func (r *run) indexWriter() *catalog.IndexWriter {
	return &catalog.IndexWriter{Item: r.Item, Local: untold{r.Index}, Options: store.PutOptions{Retention: r.Lock}}
}

// namedPacks is which packs an index object names, ascending.
type namedPacks struct {
	staleIndex
	packs []pack.ID
}

// readIndexes reads all index objects.
func (r *run) readIndexes(ctx context.Context) ([]namedPacks, error) {
	var named []namedPacks
	prefix := r.Item.IndexKey("")
	for info, err := range r.Store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list index objects: %w", err)
		}
		name := info.Key.Base()
		if id, err := pack.ParseID(name); err != nil || info.Key != r.Item.IndexKey(id.String()) {
			continue
		}
		contents, err := r.Item.Index(ctx, name)
		switch {
		case errors.Is(err, store.ErrNotExist): // erased, or replaced by another prune
			continue
		case errors.Is(err, crypt.ErrDamaged):
			continue // verify tells of it, and its packs are found without it
		case err != nil:
			return nil, err
		}
		r.Progress.Read.Add(info.Size)
		n := namedPacks{staleIndex: staleIndex{name, info.Size}}
		for _, c := range contents {
			n.packs = append(n.packs, c.Pack)
		}
		slices.SortFunc(n.packs, comparePacks)
		named = append(named, n)
	}
	return named, nil
}

// removeIndex removes stale index objects. kept tells that the store keeps one.
func (r *run) removeIndex(ctx context.Context, stale []staleIndex) (kept bool, err error) {
	var names []string
	for _, s := range stale {
		gone, err := r.del.object(ctx, r.Item.IndexKey(s.name), s.size)
		if err != nil {
			return false, err
		}
		if gone {
			names = append(names, s.name)
		} else {
			kept = true
		}
	}
	if r.DryRun || len(names) == 0 {
		return kept, nil
	}
	return kept, r.Index.DropSources(ctx, names)
}

// untold is the local index, which learns of no pack from a prune: one that was listed a
// while ago may be gone, and a backup beside it on this host has looked already which
// packs there are. The next Sync reads the index objects.
type untold struct{ catalog.Local }

func (untold) Add(context.Context, string, []pack.Contents) error { return nil }
