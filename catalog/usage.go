package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// KeyRecord is the current key record of a secret: who can open it.
type KeyRecord struct {
	Item       string // its name; "" for the vault key
	Generation uint32
	Made       time.Time     // when the secret was made
	Erased     bool          // the item was erased: there are no wrappings
	Wrappings  []kek.Wrapped // any of them opens the secret
}

func (r *keyRecord) public(name string) KeyRecord {
	return KeyRecord{Item: name, Generation: r.Generation, Made: time.Unix(r.Created, 0).UTC(), Erased: r.Erased != 0, Wrappings: r.wrapped()}
}

// KeyRecords yields the current record of every secret of the vault, verified: of
// the vault key first, then of the items by name, their generations ascending. It
// unwraps nothing. What cannot be read is yielded as an error, with no record, and
// the rest all the same.
func (v *Vault) KeyRecords(ctx context.Context) iter.Seq2[KeyRecord, error] {
	return func(yield func(KeyRecord, error) bool) {
		body, err := v.vaultRecord(ctx)
		if err != nil {
			yield(KeyRecord{}, err)
			return
		}
		if !yield(body.public(""), nil) {
			return
		}
		items, faults := v.items(ctx)
		for _, err := range faults {
			if !yield(KeyRecord{}, err) {
				return
			}
		}
		for _, it := range items {
			for _, r := range it.KeyRecords() {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// KeyRecords returns the key records of the item, one for each generation, ascending,
// as they were when it was read.
func (it *Item) KeyRecords() []KeyRecord {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.generation == 0 {
		return []KeyRecord{{Item: it.name, Generation: it.tombstone, Made: it.created, Erased: true}}
	}
	out := make([]KeyRecord, 0, len(it.records))
	for _, generation := range slices.Sorted(maps.Keys(it.records)) {
		body := it.records[generation]
		out = append(out, body.public(it.name))
	}
	return out
}

// Generations returns the generations of the item's secret that a point needs: that
// of the point itself, and those of the packs that it names, of which it may need
// fewer (Reader.PacksOf). It opens the point only if opens says
// that its generation can be opened. If not, the answer is every generation that the
// point may need: its own, and all before it.
func (it *Item) Generations(ctx context.Context, name PointName, opens func(generation uint32) bool) ([]uint32, error) {
	own, err := it.generationOf(ctx, it.PointKey(name))
	if errors.Is(err, store.ErrNotExist) {
		err = ErrNoPoint
	}
	if err != nil {
		return nil, fmt.Errorf("point %s of %s: %w", name, it.name, err)
	}
	if !opens(own) {
		var all []uint32
		for _, r := range it.KeyRecords() {
			if r.Generation <= own {
				all = append(all, r.Generation)
			}
		}
		return all, nil
	}
	p, err := it.Point(ctx, name)
	if err != nil {
		return nil, err
	}
	repacks, err := it.Repacks(ctx)
	if err != nil {
		return nil, err
	}
	packs, err := it.GenerationsOf(ctx, slices.Values(repacks.PacksOf(p)))
	if err != nil {
		return nil, fmt.Errorf("point %s of %s: %w", name, it.name, err)
	}
	if !slices.Contains(packs, own) {
		packs = append(packs, own)
		slices.Sort(packs)
	}
	return packs, nil
}

// GenerationsOf returns the generations of the item's secret that packs are under.
func (it *Item) GenerationsOf(ctx context.Context, packs iter.Seq[pack.ID]) ([]uint32, error) {
	needed := make(map[uint32]struct{})
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for id := range packs {
		group.Go(func() error {
			g, err := it.generationOf(gctx, pack.Key(it.id, id))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			needed[g] = struct{}{}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(needed)), nil
}
