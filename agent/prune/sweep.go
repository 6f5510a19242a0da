package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// sweep removes what marks name whose time has come, as far as nothing needs it now.
func (r *run) sweep(ctx context.Context, ready []ripe) error {
	kept, err := r.removePoints(ctx, ready)
	if err != nil {
		return err
	}
	// Only now: what a point needs that could not be removed stays.
	if err := r.needs(ctx, r.seen); err != nil {
		return err
	}
	if len(ready) == 0 || r.seen.unknown {
		return nil
	}
	gone, err := r.leaving(ctx, ready)
	if err != nil {
		return err
	}
	stays, err := r.removePacks(ctx, gone)
	if err != nil {
		return err
	}
	if err := r.tidy(ctx); err != nil {
		return err
	}
	for _, m := range ready {
		if stays.index || kept.any(m.Points) || kept.any(m.Forgotten) || stays.any(m.Packs) {
			continue // the store does not let all of it go yet
		}
		if err := r.removeMark(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// keptPoints are points that were to go and that the store, or somebody, keeps.
type keptPoints map[catalog.PointName]struct{}

func (k keptPoints) any(names []catalog.PointName) bool {
	return slices.ContainsFunc(names, func(n catalog.PointName) bool { _, ok := k[n]; return ok })
}

// removePoints removes the points of marks that are let go now as well. It returns
// those that the store keeps.
func (r *run) removePoints(ctx context.Context, ready []ripe) (keptPoints, error) {
	s, kept := r.seen, make(keptPoints)
	there := make(map[catalog.PointName]int64, len(s.points))
	for _, p := range s.points {
		there[p.Name] = p.Size
	}
	var going []catalog.PointName
	for _, m := range ready {
		for _, name := range slices.Concat(m.Points, m.Forgotten) {
			_, is := there[name]
			if _, goes := s.going[name]; goes && is {
				going = append(going, name)
			}
		}
	}
	slices.Sort(going)
	going = slices.Compact(going)
	going, err := free(ctx, r.del, going, r.Item.PointKey, func(name catalog.PointName) { kept[name] = struct{}{} })
	if err != nil {
		return nil, err
	}
	if !r.DryRun {
		// So that a host which was away does not take it for somebody's deed. A crash
		// here leaves that said of points that are there, which does no harm.
		if err := r.Item.PutRemoved(ctx, going, nil); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	err = each(ctx, going, func(ctx context.Context, name catalog.PointName) error {
		gone, err := r.removePoint(ctx, name, there[name])
		mu.Lock()
		defer mu.Unlock()
		if gone {
			s.removed[name] = struct{}{}
			r.done.RemovedPoints++
		} else {
			kept[name] = struct{}{}
		}
		return err
	})
	if err != nil || r.DryRun || len(s.removed) == 0 {
		return kept, err
	}
	names := make([]catalog.PointName, 0, len(s.removed))
	for name := range s.removed {
		names = append(names, name)
	}
	return kept, r.Index.DropPoints(ctx, names)
}

// free returns those that the store lets go, as far as it says so beforehand, and tells
// of the others: what is only tried and kept would be written down as removed each time.
func free[T any](ctx context.Context, del *remover, all []T, key func(T) store.Key, keep func(T)) ([]T, error) {
	if !del.locks {
		return all, nil
	}
	held, places := make([]bool, len(all)), make([]int, len(all))
	for i := range places {
		places[i] = i
	}
	err := each(ctx, places, func(ctx context.Context, i int) (err error) {
		held[i], err = del.retained(ctx, key(all[i]))
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(all))
	for i, one := range all {
		if held[i] {
			keep(one)
		} else {
			out = append(out, one)
		}
	}
	return out, nil
}

// removePoint removes a point, and puts a void where it was.
func (r *run) removePoint(ctx context.Context, name catalog.PointName, size int64) (gone bool, err error) {
	if r.Removing != nil && !r.DryRun {
		err := r.Removing(ctx, name)
		if errors.Is(err, ErrHeld) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	// The session first: a name without a point and with a session would look like a
	// backup that never ended.
	if _, err := r.del.object(ctx, r.Item.SessionKey(name), 0); err != nil {
		return false, err
	}
	gone, err = r.del.object(ctx, r.Item.PointKey(name), size)
	if err != nil || !gone || r.DryRun {
		return gone, err
	}
	// A crash here leaves packs that no point needs; the mark is there still.
	err = r.Store.Put(ctx, r.Item.PointKey(name), store.Body{}, store.PutOptions{})
	back := false
	if errors.Is(err, store.ErrExist) {
		back, err = r.Item.Committed(ctx, name)
	}
	if err != nil {
		return false, fmt.Errorf("put a void in the place of point %s: %w", name, err)
	}
	if back { // a late repeat of its Put, before the void: it is a point again
		r.Log.Warn("a point that was removed came back, and is kept until the next prune", "item", r.Item.Name(), "point", name)
	}
	return !back, nil
}

// leaving returns the packs of marks that nothing needs now, by their place in the list.
func (r *run) leaving(ctx context.Context, ready []ripe) (packSet, error) {
	s := r.seen
	young, err := r.youngRepacks(ctx)
	if err != nil {
		return nil, err
	}
	gone := newPackSet(len(s.packs.ids))
	rescued := newPackSet(len(s.packs.ids))
	for _, m := range ready {
		for i := range s.packs.places(m.Packs) {
			if s.needed.has(i) || young.since(s.packs.ids[i], m.Modified) {
				rescued.add(i)
			} else {
				gone.add(i)
			}
		}
	}
	for i := range s.packs.ids { // of two marks
		if gone.has(i) && rescued.has(i) {
			rescued.remove(i)
		}
	}
	r.done.RescuedPacks = int64(rescued.len())
	return gone, nil
}

// replacements tells since when a pack that points name is replaced by others.
type replacements map[pack.ID]time.Time

// since tells whether a pack was replaced after something, by the store's clock. Its
// mark is then no promise to a restore that began before the pack was replaced: the
// next mark that names it is.
func (y replacements) since(id pack.ID, mark time.Time) bool {
	at, ok := y[id]
	return ok && at.After(mark)
}

func (r *run) youngRepacks(ctx context.Context) (replacements, error) {
	out := make(replacements)
	for _, record := range r.seen.repacks.All() {
		if !r.covers(record) {
			continue
		}
		info, err := r.Store.Stat(ctx, r.Item.RepackKey(record.ID))
		if errors.Is(err, store.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at repack record %s: %w", record.ID, err)
		}
		for _, id := range record.Replaced {
			if info.Modified.After(out[id]) {
				out[id] = info.Modified
			}
		}
	}
	return out, nil
}

// covers tells whether a repack record is of use to a point that is there.
func (r *run) covers(record catalog.Repack) bool {
	for _, p := range r.seen.points {
		if _, removed := r.seen.removed[p.Name]; removed {
			continue
		}
		if _, ok := slices.BinarySearch(record.Points, p.Name); ok {
			return true
		}
	}
	return false
}

// stayed is what was to go and the store keeps.
type stayed struct {
	packs map[pack.ID]struct{}
	index bool // an index object that names what is gone
}

func (s stayed) any(packs []pack.ID) bool {
	return slices.ContainsFunc(packs, func(id pack.ID) bool { _, ok := s.packs[id]; return ok })
}

// removePacks removes packs, and first has nothing tell of them any more but the mark
// and index objects that are about to go.
func (r *run) removePacks(ctx context.Context, gone packSet) (stayed, error) {
	out := stayed{packs: make(map[pack.ID]struct{})}
	s := r.seen
	var ids []pack.ID
	for i, id := range s.packs.ids {
		if gone.has(i) {
			ids = append(ids, id)
		}
	}
	ids, err := free(ctx, r.del, ids, r.key, func(id pack.ID) { out.packs[id] = struct{}{} })
	if err != nil {
		return out, err
	}
	stale, err := r.rewriteIndex(ctx, ids)
	if err != nil {
		return out, err
	}
	if !r.DryRun {
		if err := r.Item.PutRemoved(ctx, nil, ids); err != nil {
			return out, err
		}
		if err := r.Index.Forget(ctx, ids); err != nil {
			return out, err
		}
	}
	// A crash from here on leaves fewer packs, and a mark that names them all.
	var mu sync.Mutex
	err = each(ctx, ids, func(ctx context.Context, id pack.ID) error {
		i, _ := s.packs.place(id)
		gone, err := r.del.object(ctx, r.key(id), s.packs.sizes[i])
		mu.Lock()
		defer mu.Unlock()
		if gone {
			r.done.RemovedPacks++
		} else {
			out.packs[id] = struct{}{}
		}
		return err
	})
	if err != nil {
		return out, err
	}
	out.index, err = r.removeIndex(ctx, stale)
	return out, err
}

// removeMark removes a mark of which nothing is left, and its witness before it.
func (r *run) removeMark(ctx context.Context, m ripe) error {
	if _, err := r.del.object(ctx, r.Item.WitnessKey(m.ID), 0); err != nil {
		return err
	}
	// A crash here leaves a mark without a witness; the next run writes one and finds
	// nothing to do.
	_, err := r.del.object(ctx, r.Item.MarkKey(m.ID), 0)
	return err
}
