package prune

import (
	"context"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/catalog"
)

// mark marks the points that are let go and the packs that no other point needs, but for
// what is marked already.
func (r *run) mark(ctx context.Context) error {
	marked := make(map[catalog.PointName]struct{})
	packs := newPackSet(len(r.seen.packs.ids))
	for _, m := range r.marks {
		for _, name := range slices.Concat(m.Points, m.Forgotten) {
			marked[name] = struct{}{}
		}
		for i := range r.seen.packs.places(m.Packs) {
			packs.add(i)
		}
	}
	if err := r.opened(ctx); err != nil {
		return err
	}
	m := &catalog.Mark{Created: r.now, Host: r.Host}
	for _, p := range r.seen.points {
		_, going := r.seen.going[p.Name]
		_, already := marked[p.Name]
		_, removed := r.seen.removed[p.Name]
		if going && !already && !removed {
			m.Points = append(m.Points, p.Name)
		}
	}
	if err := r.markPacks(ctx, m, packs); err != nil {
		return err
	}
	return r.put(ctx, m)
}

// opened adds the sessions that have begun since the points were listed: also those
// that are decided may have a point whose packs are not counted.
func (r *run) opened(ctx context.Context) error {
	names, err := r.Item.Sessions(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, known := r.seen.point(name); !known && !slices.Contains(r.own, name) {
			r.open = append(r.open, name)
		}
	}
	return nil
}

// markPacks adds the packs to a mark that no point needs which stays. While a backup is
// open, a pack that none has ever needed may be its own: it would be told that it is
// not to lean on it, and put it again.
func (r *run) markPacks(ctx context.Context, m *catalog.Mark, already packSet) error {
	s := r.seen
	candidates := newPackSet(len(s.packs.ids))
	if len(r.open) == 0 {
		for i := range s.packs.ids {
			candidates.add(i)
		}
	} else {
		for _, p := range s.points {
			if _, going := s.going[p.Name]; !going {
				continue
			}
			packs, err := r.packsOf(ctx, s, p)
			if catalog.Unreadable(err) {
				continue
			}
			if err != nil {
				return err
			}
			for i := range s.packs.places(packs) {
				candidates.add(i)
			}
		}
		for _, record := range s.repacks.All() {
			for i := range s.packs.places(record.Replaced) {
				candidates.add(i)
			}
		}
	}
	for i, id := range s.packs.ids {
		if candidates.has(i) && !s.kept.has(i) && !already.has(i) {
			m.Packs = append(m.Packs, id)
			r.done.MarkedBytes += s.packs.sizes[i]
		}
	}
	return nil
}

// put puts a mark, in several if it is large, and the witness of each.
func (r *run) put(ctx context.Context, m *catalog.Mark) error {
	r.done.MarkedPoints, r.done.MarkedPacks = int64(len(m.Points)+len(m.Forgotten)), int64(len(m.Packs))
	for len(m.Points)+len(m.Forgotten)+len(m.Packs) > 0 {
		part := &catalog.Mark{Created: m.Created, Host: m.Host, Points: take(&m.Points), Forgotten: take(&m.Forgotten), Packs: take(&m.Packs)}
		r.goes(m.Created)
		if r.DryRun {
			continue
		}
		if err := r.Item.PutMark(ctx, part); err != nil {
			return err
		}
		// A crash here leaves a mark without a witness; the next run writes it.
		if _, err := r.putWitness(ctx, part.ID); err != nil {
			return err
		}
	}
	return nil
}

// take takes as many from the front as a mark may name.
func take[T any](all *[]T) []T {
	n := min(len(*all), catalog.MaxMarked)
	part := (*all)[:n:n]
	*all = (*all)[n:]
	return part
}

// Forget marks points because somebody asked for it: a run of Run after the grace time
// removes them, whatever the retention says, unless they are held then. ErrHeld if one
// is held now, catalog.ErrNoPoint if one is not there, ErrLeavesNone if no point that
// opens would be left and cfg.Allow does not allow it. It needs no Retention.
func Forget(ctx context.Context, cfg Config, names []catalog.PointName) error {
	r := newRun(cfg)
	if err := r.forget(ctx, names); err != nil {
		return fmt.Errorf("forget points of %s: %w", cfg.Item.Name(), err)
	}
	return nil
}

func (r *run) forget(ctx context.Context, names []catalog.PointName) error {
	var err error
	if r.marks, err = r.Item.Marks(ctx); err != nil {
		return err
	}
	r.Retention = nil
	if r.seen, err = r.look(ctx); err != nil {
		return err
	}
	s := r.seen
	asked := slices.Compact(slices.Sorted(slices.Values(names)))
	if err := r.mayForget(ctx, asked); err != nil {
		return err
	}
	already := newPackSet(len(s.packs.ids))
	for _, m := range r.marks {
		asked = slices.DeleteFunc(asked, func(n catalog.PointName) bool { return slices.Contains(m.Forgotten, n) })
		for i := range s.packs.places(m.Packs) {
			already.add(i)
		}
	}
	for _, name := range asked {
		s.going[name] = struct{}{}
	}
	if err := r.needs(ctx, s); err != nil {
		return err
	}
	if err := r.opened(ctx); err != nil {
		return err
	}
	m := &catalog.Mark{Created: r.now, Host: r.Host, Forgotten: asked}
	if err := r.markPacks(ctx, m, already); err != nil {
		return err
	}
	return r.put(ctx, m)
}

// mayForget tells whether points may go because somebody asks for it.
func (r *run) mayForget(ctx context.Context, names []catalog.PointName) error {
	holds, err := r.Item.Holds(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		if slices.Contains(names, h.Point) {
			return fmt.Errorf("%s: %w by %s: %s", h.Point, ErrHeld, h.Owner, h.Reason)
		}
	}
	left, found := 0, 0
	for _, p := range r.seen.points {
		_, going := r.seen.going[p.Name]
		switch {
		case slices.Contains(names, p.Name):
			found++
		case !going && !p.Unreadable && !p.Damaged:
			left++
		}
	}
	if found < len(names) {
		return catalog.ErrNoPoint
	}
	if left == 0 && !r.Allow.Empty {
		return ErrLeavesNone
	}
	return nil
}
