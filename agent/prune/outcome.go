package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// settle decides which packs of marks go, and returns the marks of which that is
// decided. What points need is read already, and the points that go have gone.
//
// Two prunes may see it differently: one sees a hold, or has another retention. Would
// one take the mark away because all that it names is needed, while the other is about
// to delete some of it, then a backup that begins between the two would lean on that. So
// it is decided once, by one put, and the mark goes only when that is carried out.
func (r *run) settle(ctx context.Context, ready []ripe) ([]ripe, error) {
	s := r.seen
	young, err := r.youngRepacks(ctx)
	if err != nil {
		return nil, err
	}
	rescued := newPackSet(len(s.packs.ids))
	for _, m := range ready {
		if m.decided {
			continue
		}
		for i := range s.packs.places(m.Packs) {
			if s.needed.has(i) || young.since(s.packs.ids[i], m.Modified) {
				rescued.add(i)
			}
		}
	}
	r.done.RescuedPacks = int64(rescued.len())
	settled := make([]ripe, 0, len(ready))
	for _, m := range ready {
		if !m.decided {
			for i := range s.packs.places(m.Packs) {
				if !rescued.has(i) {
					m.packs = append(m.packs, s.packs.ids[i])
				}
			}
			if m.decided, err = r.agree(ctx, &m); err != nil {
				return nil, err
			}
		}
		if m.decided {
			settled = append(settled, m)
		}
	}
	return settled, nil
}

// agree writes down which packs of a mark go, or takes over what another prune has
// written down. ok is false if the mark has gone meanwhile.
func (r *run) agree(ctx context.Context, m *ripe) (ok bool, err error) {
	if r.DryRun {
		return true, nil
	}
	err = r.Item.PutOutcome(ctx, m.ID, m.packs)
	if errors.Is(err, store.ErrExist) {
		m.packs, ok, err = r.Item.Outcome(ctx, m.ID)
		return ok, err
	}
	if err != nil {
		return false, err
	}
	// A crash from here on leaves a mark that is decided. One that has gone was decided
	// otherwise, more than a year ago, by what has been tidied away since.
	_, err = r.Store.Stat(ctx, r.Item.MarkKey(m.ID))
	if errors.Is(err, store.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("see that mark %s is there still: %w", m.ID, err)
	}
	return true, nil
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
