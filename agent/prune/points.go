package prune

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// removePoints removes the points of marks that are let go now as well, if it is not
// decided yet what else of the mark goes. It returns the marks that may be gone on with:
// those of which neither the store nor somebody keeps a point that is to go.
func (r *run) removePoints(ctx context.Context, ready []ripe) ([]ripe, error) {
	s, kept := r.seen, make(map[catalog.PointName]struct{})
	there := make(map[catalog.PointName]int64, len(s.points))
	for _, p := range s.points {
		there[p.Name] = p.Size
	}
	var going []catalog.PointName
	for _, m := range ready {
		if m.decided {
			continue
		}
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
		if err := r.Item.PutRemoved(ctx, going); err != nil {
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
	if err != nil {
		return nil, err
	}
	ready = slices.DeleteFunc(ready, func(m ripe) bool {
		return !m.decided && slices.ContainsFunc(slices.Concat(m.Points, m.Forgotten), func(n catalog.PointName) bool { _, ok := kept[n]; return ok })
	})
	if r.DryRun || len(s.removed) == 0 {
		return ready, nil
	}
	return ready, r.Index.DropPoints(ctx, slices.Collect(maps.Keys(s.removed)))
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
	there, err := r.Item.Committed(ctx, name)
	switch {
	case err != nil && !errors.Is(err, catalog.ErrNoPoint):
		return false, err
	case there: // else another prune was faster, and a Delete would take its void away
		gone, err = r.del.object(ctx, r.Item.PointKey(name), size)
		if err != nil || !gone {
			return false, err
		}
	}
	if r.DryRun {
		return true, nil
	}
	// A crash here leaves a place without a void, of which there is a record (bury).
	back, err := r.void(ctx, name)
	return !back, err
}

// void puts a void where a point was. back tells that it is a point again: a late repeat
// of its Put was first.
func (r *run) void(ctx context.Context, name catalog.PointName) (back bool, err error) {
	err = r.Store.Put(ctx, r.Item.PointKey(name), store.Body{}, store.PutOptions{})
	if errors.Is(err, store.ErrExist) {
		back, err = r.Item.Committed(ctx, name)
	}
	if err != nil {
		return false, fmt.Errorf("put a void in the place of point %s: %w", name, err)
	}
	if back {
		r.Log.Warn("a point that was removed came back, and is kept until the next prune", "item", r.Item.Name(), "point", name)
	}
	return back, nil
}

// bury puts voids where other prunes have removed points and were cut off before they
// put one: what is not counted now must not be a point again. Those that are again are
// among the points from then on.
func (r *run) bury(ctx context.Context) error {
	if r.DryRun {
		return nil
	}
	notes := make(map[pack.ID]int64) // as they are to change
	done := make(map[pack.ID]struct{})
	for n, err := range r.Index.Notes(ctx, catalog.NoteBuried) {
		if err != nil {
			return err
		}
		done[n.Pack], notes[n.Pack] = struct{}{}, 0
	}
	// Listed after the points, and put before any of them went.
	records, err := r.Item.RemovedRecords(ctx)
	if err != nil {
		return err
	}
	for _, id := range records {
		delete(notes, id)
	}
	records = slices.DeleteFunc(records, func(id pack.ID) bool { _, ok := done[id]; return ok })
	var mu sync.Mutex
	var back []catalog.PointName
	err = each(ctx, records, func(ctx context.Context, id pack.ID) error {
		again, whole, err := r.buryRecord(ctx, id)
		mu.Lock()
		defer mu.Unlock()
		back = append(back, again...)
		if whole {
			notes[id] = 1
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range back {
		if i, listed := r.seen.point(name); !listed {
			r.seen.points = slices.Insert(r.seen.points, i, catalog.Summary{Name: name})
		}
	}
	return r.Index.SetNotes(ctx, catalog.NoteBuried, notes)
}

// buryRecord puts voids for the points of one record of what was removed. whole tells
// that none of them is there.
func (r *run) buryRecord(ctx context.Context, record pack.ID) (back []catalog.PointName, whole bool, err error) {
	names, err := r.Item.RemovedPoints(ctx, record)
	if errors.Is(err, crypt.ErrDamaged) { // verify tells of it; what it named is removed, most likely
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	whole = true
	for _, name := range names {
		if _, removed := r.seen.removed[name]; removed {
			continue
		}
		if _, listed := r.seen.point(name); listed { // it was about to go, and stayed
			whole = false
			continue
		}
		again, err := r.void(ctx, name)
		if err != nil {
			return nil, false, err
		}
		if again {
			back, whole = append(back, name), false
		}
	}
	return back, whole, nil
}
