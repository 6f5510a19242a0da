package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// survey is what there is of an item, and what is to become of it.
type survey struct {
	points  []catalog.Summary
	going   map[catalog.PointName]struct{} // let go, or asked to go, and not held
	repacks catalog.Repacks
	packs   packList
	removed map[catalog.PointName]struct{} // by this run

	// What points need, by the place of the pack in packs: those that stay, and all
	// that are there now.
	kept, needed packSet
	// unknown: a point that goes, and is there still, does not open, so that needed
	// lacks what it needs.
	unknown bool
}

// point returns where a point is among those that are there, or would be.
func (s *survey) point(name catalog.PointName) (int, bool) {
	return slices.BinarySearchFunc(s.points, name, func(p catalog.Summary, n catalog.PointName) int { return cmp.Compare(p.Name, n) })
}

// look reads the repack records, lists the points, twice, and the rest, and decides which
// points go.
func (r *run) look(ctx context.Context) (*survey, error) {
	s := &survey{removed: make(map[catalog.PointName]struct{})}
	// Records before points: what one names is listed then if it is there, so that tidy
	// takes away no record that a point needs.
	var err error
	if s.repacks, err = r.Item.Repacks(ctx); err != nil {
		return nil, err
	}
	if err := r.listPoints(ctx, s); err != nil {
		return nil, err
	}
	holds, err := r.Item.Holds(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.packList(ctx, &s.packs); err != nil {
		return nil, err
	}
	return s, r.choose(s, holds)
}

// listPoints takes in the points that are there. What it remembers of one listing it
// expects in the next: a listing that lacks a point is refused (catalog.ErrPointGone).
func (r *run) listPoints(ctx context.Context, s *survey) error {
	for range 2 {
		synced, err := r.SyncPoints(ctx)
		if err != nil {
			return err
		}
		if err := synced.Err(); err != nil {
			return err
		}
		if synced.Unopened != nil {
			return fmt.Errorf("what a point needs is not known: %w", synced.Unopened)
		}
	}
	for p, err := range r.Index.Summaries(ctx, catalog.PointQuery{}) {
		if err != nil {
			return err
		}
		if p.State != catalog.PointGone {
			s.points = append(s.points, p)
		}
	}
	return nil
}

// Points are points as a retention sees them, in the order in which they come, with
// their holds, and with what somebody asked to go.
func Points(points []catalog.Summary, holds []catalog.Hold, asked map[catalog.PointName]struct{}) []policy.Point {
	held := heldPoints(holds)
	out := make([]policy.Point, 0, len(points))
	for _, p := range points {
		_, goes := asked[p.Name]
		out = append(out, policy.Point{ID: string(p.Name), Time: p.Name.Time(), Tags: p.Tags, Holds: held[p.Name], Damaged: p.Damaged || p.Unreadable, Asked: goes})
	}
	return out
}

func heldPoints(holds []catalog.Hold) map[catalog.PointName][]policy.Hold {
	held := make(map[catalog.PointName][]policy.Hold)
	for _, h := range holds {
		held[h.Point] = append(held[h.Point], policy.Hold{Owner: h.Owner, Reason: h.Reason})
	}
	return held
}

// choose decides which points go: those that somebody asked to go and nobody holds, and
// those that the retention lets go of what is left.
func (r *run) choose(s *survey, holds []catalog.Hold) error {
	asked := r.asked(s, holds)
	s.going = asked
	if r.Retention != nil {
		decisions, err := policy.Decide(Points(s.points, holds, asked), *r.Retention, r.now, r.Allow)
		if err != nil {
			return err
		}
		for _, d := range decisions {
			if !d.Keep {
				s.going[catalog.PointName(d.Point.ID)] = struct{}{}
			}
		}
		r.done.Nothing = len(s.points) > 0 && len(s.going) == len(s.points)
	}
	r.done.Kept = len(s.points) - len(s.going)
	return nil
}

// asked returns the points that somebody asked to go and nobody holds.
func (r *run) asked(s *survey, holds []catalog.Hold) map[catalog.PointName]struct{} {
	held := heldPoints(holds)
	out := make(map[catalog.PointName]struct{})
	for _, m := range r.marks {
		for _, name := range m.Forgotten {
			if _, there := s.point(name); !there || len(held[name]) > 0 {
				continue
			}
			out[name] = struct{}{}
			if m.Host != r.Host {
				r.done.Foreign++
				r.Log.Warn("another host asked for a point to go", "item", r.Item.Name(), "point", name, "host", m.Host, "mark", m.ID)
			}
		}
	}
	return out
}

// needs reads what all points need that are there and that this run has not removed.
func (r *run) needs(ctx context.Context, s *survey) error {
	s.kept, s.needed = newPackSet(len(s.packs.ids)), newPackSet(len(s.packs.ids))
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, p := range s.points {
		if _, removed := s.removed[p.Name]; removed {
			continue
		}
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			_, going := s.going[p.Name]
			packs, err := r.packsOf(gctx, s, p)
			mu.Lock()
			defer mu.Unlock()
			if going && catalog.Unreadable(err) {
				s.unknown = true
				return nil
			}
			if err != nil {
				return err
			}
			for i := range s.packs.places(packs) {
				s.needed.add(i)
				if !going {
					s.kept.add(i)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// readers is how many points are read at once.
const readers = 8

// packsOf returns the packs that a point needs now, ascending. Without a point that is
// not there any more: another prune has removed it.
func (r *run) packsOf(ctx context.Context, s *survey, p catalog.Summary) ([]pack.ID, error) {
	full, err := r.Item.Point(ctx, p.Name)
	if errors.Is(err, catalog.ErrNoPoint) {
		if r.DryRun {
			return nil, nil
		}
		back, verr := r.void(ctx, p.Name) // it is not counted, so it must stay away
		if verr != nil || !back {
			return nil, verr
		}
		full, err = r.Item.Point(ctx, p.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("what it needs is not known, so that nothing may go: %w", err)
	}
	r.Progress.Points.Add(1)
	r.Progress.Read.Add(p.Size)
	packs := s.repacks.PacksOf(full)
	if !slices.IsSortedFunc(packs, comparePacks) {
		packs = slices.SortedFunc(slices.Values(packs), comparePacks)
	}
	return packs, nil
}

// packList is packs, ascending, and their sizes in bytes.
type packList struct {
	ids   []pack.ID
	sizes []int64
}

// packList lists the packs of the item.
func (r *run) packList(ctx context.Context, list *packList) error {
	sizes := make(map[pack.ID]int64)
	for info, err := range r.Store.List(ctx, pack.Prefix(r.Item.ID())) {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		if id, err := pack.ParseID(info.Key.Base()); err == nil && pack.Key(r.Item.ID(), id) == info.Key {
			sizes[id] = info.Size
		}
	}
	list.ids = slices.SortedFunc(maps.Keys(sizes), comparePacks)
	list.sizes = make([]int64, len(list.ids))
	for i, id := range list.ids {
		list.sizes[i] = sizes[id]
	}
	return nil
}

// place returns where a pack is in the list.
func (l *packList) place(id pack.ID) (int, bool) {
	return slices.BinarySearchFunc(l.ids, id, comparePacks)
}

// places yields where packs are in the list, of those that are in it. They ascend.
func (l *packList) places(packs []pack.ID) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		at := 0
		for _, id := range packs {
			n, found := slices.BinarySearchFunc(l.ids[at:], id, comparePacks)
			if at += n; found && !yield(at) {
				return
			}
		}
	}
}

func comparePacks(a, b pack.ID) int { return slices.Compare(a[:], b[:]) }

// packSet is a set of places in a list of packs.
type packSet []uint64

func newPackSet(n int) packSet { return make(packSet, (n+63)/64) }

func (s packSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s packSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s packSet) len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// key returns the object key of a pack.
func (r *run) key(id pack.ID) store.Key { return pack.Key(r.Item.ID(), id) }
