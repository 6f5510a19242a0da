package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// removedBody is what an object says that a prune puts before it removes something: a
// host that was away from the mark to the end of the sweep learns from it that nobody
// has removed this behind its back.
type removedBody struct {
	Points []string  `cbor:"1,keyasint,omitempty"`
	Packs  []pack.ID `cbor:"2,keyasint,omitempty"`
	id     pack.ID   // its own
}

// PutRemoved writes down points and packs that are about to be removed.
func (it *Item) PutRemoved(ctx context.Context, points []PointName, packs []pack.ID) error {
	for len(points)+len(packs) > 0 {
		p, q := min(len(points), MaxMarked), min(len(packs), MaxMarked)
		body := removedBody{Points: texts(slices.Sorted(slices.Values(points[:p]))), Packs: slices.SortedFunc(slices.Values(packs[:q]), comparePacks)}
		id := newID()
		if err := it.putSealed(ctx, it.RemovedKey(id.String()), crypt.Removed, id, body); err != nil {
			return fmt.Errorf("write down what of %s is removed: %w", it.name, err)
		}
		points, packs = points[p:], packs[q:]
	}
	return nil
}

// removals are what prunes have removed within the last year, as far as it was read.
type removals struct {
	points map[PointName]struct{}
	packs  map[pack.ID]struct{}
	read   map[pack.ID]struct{} // the objects that say so
}

func newRemovals() *removals {
	return &removals{points: make(map[PointName]struct{}), packs: make(map[pack.ID]struct{}), read: make(map[pack.ID]struct{})}
}

// update reads what was written down since it was last called. What does not open
// excuses nothing.
func (r *removals) update(ctx context.Context, it *Item) error {
	bodies, err := readRecords(ctx, it, "removed", func(ctx context.Context, info store.Info, id pack.ID) (removedBody, error) {
		if _, again := r.read[id]; again {
			return removedBody{id: id}, nil
		}
		body, err := it.readRemoved(ctx, info, id)
		if errors.Is(err, crypt.ErrDamaged) || isUnopened(err) {
			return removedBody{id: id}, nil
		}
		body.id = id
		return body, err
	})
	if err != nil {
		return fmt.Errorf("read what of %s was removed: %w", it.name, err)
	}
	for _, b := range bodies {
		r.read[b.id] = struct{}{}
		for _, name := range b.Points {
			r.points[PointName(name)] = struct{}{}
		}
		for _, id := range b.Packs {
			r.packs[id] = struct{}{}
		}
	}
	return nil
}

func (it *Item) readRemoved(ctx context.Context, info store.Info, id pack.ID) (removedBody, error) {
	var body removedBody
	err := it.readSealed(ctx, info.Key, crypt.Removed, id, &body)
	if err == nil {
		_, err = pointNames(body.Points)
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", info.Key, err)
	}
	return body, err
}

// RemovedKey returns the object key of a record of what was removed.
func (it *Item) RemovedKey(id string) store.Key { return it.prefix("removed") + store.Key(id) }
