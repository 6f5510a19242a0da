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
// has removed this behind its back. Under the id of a mark it says which packs of the
// mark go, and no other prune goes by anything else.
type removedBody struct {
	Points []string  `cbor:"1,keyasint,omitempty"`
	Packs  []pack.ID `cbor:"2,keyasint,omitempty"`
	id     pack.ID   // its own
}

// PutRemoved writes down points that are about to be removed.
func (it *Item) PutRemoved(ctx context.Context, points []PointName) error {
	for part := range slices.Chunk(points, MaxMarked) {
		id := newID()
		body := removedBody{Points: texts(slices.Sorted(slices.Values(part)))}
		if err := it.putSealed(ctx, it.RemovedKey(id.String()), crypt.Removed, id, body); err != nil {
			return fmt.Errorf("write down what of %s is removed: %w", it.name, err)
		}
	}
	return nil
}

// PutOutcome writes down which packs of a mark go, at most MaxMarked. store.ErrExist if
// that is written down already: then this counts, and not what the caller thinks.
func (it *Item) PutOutcome(ctx context.Context, mark string, packs []pack.ID) error {
	id, err := pack.ParseID(mark)
	if err != nil {
		return fmt.Errorf("mark %w", err)
	}
	body := removedBody{Packs: slices.SortedFunc(slices.Values(packs), comparePacks)}
	if err := it.putSealed(ctx, it.RemovedKey(mark), crypt.Removed, id, body); err != nil {
		return fmt.Errorf("write outcome of mark %s of %s: %w", mark, it.name, err)
	}
	return nil
}

// Outcome returns which packs of a mark go, ascending; ok is false if nobody has written
// that down yet. crypt.ErrDamaged if what was written down does not open.
func (it *Item) Outcome(ctx context.Context, mark string) (packs []pack.ID, ok bool, err error) {
	id, err := pack.ParseID(mark)
	if err != nil {
		return nil, false, fmt.Errorf("mark %w", err)
	}
	body, err := it.readRemoved(ctx, id)
	if errors.Is(err, store.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil && !slices.IsSortedFunc(body.Packs, comparePacks) {
		err = fmt.Errorf("read outcome of mark %s: its packs do not ascend: %w", mark, crypt.ErrDamaged)
	}
	return body.Packs, err == nil, err
}

// Leaving tells whether a prune may be about to remove a point: a record of what is
// removed names it. Its mark may be gone, where another prune keeps the point. A prune
// looks for holds after it has put the record, so that of a hold that was put before
// Leaving is asked one of the two knows.
func (it *Item) Leaving(ctx context.Context, name PointName) (bool, error) {
	removed := newRemovals()
	if err := removed.update(ctx, it); err != nil {
		return false, err
	}
	_, told := removed.points[name]
	return told, nil
}

// RemovedPoints returns the points that a record of what was removed names. None if the
// record is not there any more.
func (it *Item) RemovedPoints(ctx context.Context, record pack.ID) ([]PointName, error) {
	body, err := it.readRemoved(ctx, record)
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return pointNames(body.Points)
}

// RemovedRecords lists the records of what was removed.
func (it *Item) RemovedRecords(ctx context.Context) ([]pack.ID, error) {
	var records []pack.ID
	for id, err := range it.ids(ctx, it.prefix("removed")) {
		if err != nil {
			return nil, err
		}
		records = append(records, id)
	}
	return records, nil
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
		body, err := it.readRemoved(ctx, id)
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

func (it *Item) readRemoved(ctx context.Context, id pack.ID) (removedBody, error) {
	body, key := removedBody{id: id}, it.RemovedKey(id.String())
	err := it.readSealed(ctx, key, crypt.Removed, id, &body)
	if err == nil {
		_, err = pointNames(body.Points)
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", key, err)
	}
	return body, err
}

// RemovedKey returns the object key of a record of what was removed.
func (it *Item) RemovedKey(id string) store.Key { return it.prefix("removed") + store.Key(id) }
