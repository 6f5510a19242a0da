package prune

import (
	"context"
	"slices"
	"sync"

	"github.com/cofferbackup/coffer/store/pack"
)

// sweep removes what marks name whose time has come, as far as nothing needs it now.
func (r *run) sweep(ctx context.Context, ready []ripe) error {
	ready, err := r.removePoints(ctx, ready)
	if err != nil {
		return err
	}
	if len(ready) > 0 {
		if err := r.bury(ctx); err != nil {
			return err
		}
	}
	// Only now: what a point needs that could not be removed stays.
	if err := r.needs(ctx, r.seen); err != nil {
		return err
	}
	if len(ready) == 0 || r.seen.unknown {
		return nil
	}
	if ready, err = r.settle(ctx, ready); err != nil {
		return err
	}
	stays, err := r.removePacks(ctx, ready)
	if err != nil {
		return err
	}
	if err := r.tidy(ctx); err != nil {
		return err
	}
	for _, m := range ready {
		if stays.index || stays.any(m.packs) {
			continue // the store does not let all of it go yet
		}
		if err := r.removeMark(ctx, m); err != nil {
			return err
		}
	}
	return nil
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
func (r *run) removePacks(ctx context.Context, ready []ripe) (stayed, error) {
	out := stayed{packs: make(map[pack.ID]struct{})}
	s := r.seen
	gone := newPackSet(len(s.packs.ids))
	for _, m := range ready {
		for i := range s.packs.places(m.packs) {
			gone.add(i)
		}
	}
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
