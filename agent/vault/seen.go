package vault

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// What there is of an item's points is remembered in its local index: each is read once,
// however many there are, and one that was there is missed when it is gone.

// seen is the last look at the points of an item.
type seen struct {
	at     time.Time
	synced catalog.SyncedPoints
}

const (
	// manyPoints is from how many points on a listing of all is a matter of seconds.
	manyPoints = 20_000
	// seenFor is how long the last look counts then.
	seenFor = time.Minute
)

// Remembering opens an item and brings what is remembered of its points up to the
// vault. The caller closes it.
func (s *Set) Remembering(ctx context.Context, name string) (*Item, catalog.SyncedPoints, error) {
	it, err := s.Item(ctx, name)
	if err != nil {
		return nil, catalog.SyncedPoints{}, err
	}
	synced, err := it.Look(ctx)
	if err != nil {
		it.Close()
		return nil, synced, err
	}
	return it, synced, nil
}

// Look brings what is remembered of an item's points up to the vault. Points that
// are gone are told once, in the log and in the audit log, and in the status as long as
// nobody has taken note of them.
func (it *Item) Look(ctx context.Context) (catalog.SyncedPoints, error) {
	if err := it.looking.Enter(ctx); err != nil {
		return catalog.SyncedPoints{}, err
	}
	defer it.looking.Leave()
	it.Vault.mu.Lock()
	last, ok := it.Vault.seen[it.Name()]
	it.Vault.mu.Unlock()
	points, _, err := it.Index.CountPoints(ctx)
	if err != nil {
		return last.synced, err
	}
	if ok && points > manyPoints && it.Vault.set.cfg.Clock().Sub(last.at).Abs() < seenFor {
		return last.synced, nil
	}
	return it.lookAtPoints(ctx)
}

// LookAgain is Look for who has to know it as of now.
func (it *Item) LookAgain(ctx context.Context) (catalog.SyncedPoints, error) {
	if err := it.looking.Enter(ctx); err != nil {
		return catalog.SyncedPoints{}, err
	}
	defer it.looking.Leave()
	return it.lookAtPoints(ctx)
}

// lookAtPoints lists the points of an item. The caller holds its looking.
func (it *Item) lookAtPoints(ctx context.Context) (catalog.SyncedPoints, error) {
	lost, err := it.countGone(ctx)
	if err != nil {
		return catalog.SyncedPoints{}, err
	}
	synced, err := it.SyncPoints(ctx, it.Index)
	if err != nil {
		return synced, fault.Of(err)
	}
	if !it.apart { // an index in memory misses nothing
		it.Vault.mu.Lock()
		it.Vault.seen[it.Name()] = seen{it.Vault.set.cfg.Clock(), synced}
		delete(it.Vault.glances, it.Name())
		it.Vault.mu.Unlock()
	}
	if synced.Lost > lost {
		return synced, it.recordGone(ctx, it.pointKeys(synced.Gone), synced.Lost)
	}
	return synced, nil
}

// Learn has a point of its own remembered that a backup has just put, so that it is missed
// from now on, and not only from the next look on.
func (it *Item) Learn(ctx context.Context, p *catalog.Point) error {
	if err := it.looking.Enter(ctx); err != nil {
		return err
	}
	defer it.looking.Leave()
	s := catalog.Summarize(p)
	info, err := it.Vault.Store.Stat(ctx, it.PointKey(p.Name))
	if err != nil && !errors.Is(err, store.ErrNotExist) { // one that is gone already is missed
		return fault.Of(fmt.Errorf("look at point %s: %w", p.Name, err))
	}
	s.Size = info.Size
	return it.Index.AddPoints(ctx, []catalog.Summary{s})
}

// countGone returns how many points are known to be gone.
func (it *Item) countGone(ctx context.Context) (n int, err error) {
	for _, err := range it.Index.Summaries(ctx, catalog.PointQuery{Gone: true}) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// tellGone tells of packs and index objects that somebody deleted. The packs are noted
// as damaged: backups store again what was in them.
func (it *Item) tellGone(ctx context.Context, gone []store.Key) error {
	if len(gone) == 0 {
		return nil
	}
	notes := make(map[pack.ID]int64)
	for _, key := range gone {
		if id, err := pack.ParseID(key.Base()); err == nil && key == pack.Key(it.ID(), id) {
			notes[id] = it.Vault.set.cfg.Clock().Unix()
		}
	}
	if err := it.Index.SetNotes(ctx, catalog.NoteDamaged, notes); err != nil {
		return err
	}
	return it.recordGone(ctx, gone, len(gone))
}

// MaxNamed is how many objects that are gone are named, and are asked about.
const MaxNamed = 10

// Hidden returns how many of some objects that are gone are hidden by a delete marker,
// and what the store says of the first. It asks about MaxNamed at the most.
func Hidden(ctx context.Context, st store.Getter, gone []store.Key) (n int, first error) {
	for _, key := range gone[:min(len(gone), MaxNamed)] {
		if _, err := st.Stat(ctx, key); errors.Is(err, store.ErrHidden) {
			first = cmp.Or(first, err)
			n++
		}
	}
	return n, first
}

// pointKeys are the keys of points.
func (it *Item) pointKeys(names []catalog.PointName) []store.Key {
	keys := make([]store.Key, 0, len(names))
	for _, name := range names {
		keys = append(keys, it.PointKey(name))
	}
	return keys
}

// Hiding adds to an error of points that are gone what hides one of them, and what is
// done about it (fault.Names.Of). Every other error stays as it is.
func (it *Item) Hiding(ctx context.Context, err error) error {
	if !errors.Is(err, catalog.ErrPointGone) {
		return err
	}
	it.Vault.mu.Lock()
	gone := it.Vault.seen[it.Name()].synced.Gone
	it.Vault.mu.Unlock()
	if _, why := Hidden(ctx, it.Vault.Store, it.pointKeys(gone)); why != nil {
		err = fmt.Errorf("%w; %w", err, why)
	}
	about := fault.Names{Item: it.Name()}
	if len(gone) > 0 {
		about.Point = gone[0].String()
	}
	return about.Of(err)
}

// recordGone has it in the logs that objects are gone.
func (it *Item) recordGone(ctx context.Context, keys []store.Key, n int) error {
	names := make([]string, 0, MaxNamed)
	for _, key := range keys[:min(len(keys), MaxNamed)] {
		names = append(names, string(key))
	}
	cfg := it.Vault.set.cfg
	behind, _ := Hidden(ctx, it.Vault.Store, keys)
	cfg.Log.Error("objects are gone that no prune removed", "vault", it.Vault.Name, "item", it.Name(), "count", n, "hidden", behind, "objects", names)
	says := fmt.Sprintf("%d objects that were there are gone, and no prune removed them: %s", n, strings.Join(names, ", "))
	if behind > 0 {
		says += fmt.Sprintf("; delete markers hide %d of these, and what they hide may be there still", behind)
	}
	return cfg.Record(ctx, audit.Event{Kind: audit.ObjectsGone, Vault: it.Vault.Name, Item: it.Name(), By: audit.ByAgent, Outcome: "refused", Says: says})
}

// PointsThere yields what is remembered of the points that are there, oldest first: of
// all, or of the last so many.
func (it *Item) PointsThere(ctx context.Context, last int) iter.Seq2[catalog.Summary, error] {
	return func(yield func(catalog.Summary, error) bool) {
		var newest []catalog.Summary
		for s, err := range it.Index.Summaries(ctx, catalog.PointQuery{Newest: last > 0}) {
			if err == nil && s.State == catalog.PointGone {
				continue
			}
			if err != nil || last == 0 {
				if !yield(s, err) || err != nil {
					return
				}
				continue
			}
			if newest = append(newest, s); len(newest) == last {
				break
			}
		}
		for _, s := range slices.Backward(newest) {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// Acknowledge takes note of points that are gone: they are no problem any more. It
// returns those whose names begin with the selector.
func (it *Item) Acknowledge(ctx context.Context, selector string) ([]catalog.PointName, error) {
	var names []catalog.PointName
	for s, err := range it.Index.Summaries(ctx, catalog.PointQuery{Gone: true}) {
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(s.Name.String(), selector) || strings.HasPrefix(string(s.Name), selector) {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 || selector == "" {
		return nil, nil
	}
	if err := it.Index.DropPoints(ctx, names); err != nil {
		return nil, err
	}
	it.Vault.mu.Lock()
	defer it.Vault.mu.Unlock()
	delete(it.Vault.seen, it.Name())
	it.Vault.forget(it.Name())
	return names, nil
}

// pointCache keeps the points that were used last.
type pointCache struct {
	mu    sync.Mutex
	order list.List // of *cachedPoint, the one used last first
	byID  map[string]*list.Element
}

type cachedPoint struct {
	id    string
	point *catalog.Point
}

// cachedPoints is how many are kept: a point names users, packs and skipped entries,
// and may have a few hundred KiB.
const cachedPoints = 16

// get returns a point, or nil.
func (c *pointCache) get(id string) *catalog.Point {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedPoint).point
}

func (c *pointCache) put(id string, p *catalog.Point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil {
		c.byID = make(map[string]*list.Element)
	}
	if _, ok := c.byID[id]; ok {
		return
	}
	c.byID[id] = c.order.PushFront(&cachedPoint{id, p})
	if c.order.Len() > cachedPoints {
		delete(c.byID, c.order.Remove(c.order.Back()).(*cachedPoint).id)
	}
}
