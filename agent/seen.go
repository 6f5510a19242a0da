package agent

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/durable"
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

// remembering opens an item and brings what is remembered of its points up to the
// vault. The caller closes it.
func (a *Agent) remembering(ctx context.Context, name string) (*item, catalog.SyncedPoints, error) {
	it, err := a.openItem(ctx, name, func(v *vault) (*catalog.Item, error) { return v.vault.Item(ctx, name) })
	if err != nil {
		return nil, catalog.SyncedPoints{}, err
	}
	synced, err := a.syncPoints(ctx, it)
	if err != nil {
		it.close()
		return nil, synced, err
	}
	return it, synced, nil
}

// rememberingApart is remembering with an index in memory, for whom it is worth while.
func (a *Agent) rememberingApart(ctx context.Context, name string, cause error) (*item, catalog.SyncedPoints, error) {
	it, err := a.apart(ctx, name, cause)
	if err != nil {
		return nil, catalog.SyncedPoints{}, err
	}
	synced, err := a.lookAgain(ctx, it)
	if err != nil {
		it.close()
		return nil, synced, err
	}
	return it, synced, nil
}

// syncPoints brings what is remembered of an item's points up to the vault. Points that
// are gone are told once, in the log and in the audit log, and in the status as long as
// nobody has taken note of them.
func (a *Agent) syncPoints(ctx context.Context, it *item) (catalog.SyncedPoints, error) {
	if err := it.looking.Enter(ctx); err != nil {
		return catalog.SyncedPoints{}, err
	}
	defer it.looking.Leave()
	it.vault.mu.Lock()
	last, ok := it.vault.seen[it.Name()]
	it.vault.mu.Unlock()
	points, _, err := it.index.CountPoints(ctx)
	if err != nil {
		return last.synced, err
	}
	if ok && points > manyPoints && a.Clock().Sub(last.at).Abs() < seenFor {
		return last.synced, nil
	}
	return a.lookAtPoints(ctx, it)
}

// lookAgain is syncPoints for who has to know it as of now.
func (a *Agent) lookAgain(ctx context.Context, it *item) (catalog.SyncedPoints, error) {
	if err := it.looking.Enter(ctx); err != nil {
		return catalog.SyncedPoints{}, err
	}
	defer it.looking.Leave()
	return a.lookAtPoints(ctx, it)
}

// lookAtPoints lists the points of an item. The caller holds its looking.
func (a *Agent) lookAtPoints(ctx context.Context, it *item) (catalog.SyncedPoints, error) {
	lost, err := it.countGone(ctx)
	if err != nil {
		return catalog.SyncedPoints{}, err
	}
	synced, err := it.SyncPoints(ctx, it.index)
	if err != nil {
		return synced, Fault(err)
	}
	if !it.apart { // an index in memory misses nothing
		it.vault.mu.Lock()
		it.vault.seen[it.Name()] = seen{a.Clock(), synced}
		it.vault.mu.Unlock()
	}
	if synced.Lost > lost {
		keys := make([]store.Key, 0, len(synced.Gone))
		for _, name := range synced.Gone {
			keys = append(keys, it.PointKey(name))
		}
		return synced, a.recordGone(ctx, it, keys, synced.Lost)
	}
	return synced, nil
}

// countGone returns how many points are known to be gone.
func (it *item) countGone(ctx context.Context) (n int, err error) {
	for _, err := range it.index.Summaries(ctx, catalog.PointQuery{Gone: true}) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// tellGone tells of packs and index objects that somebody deleted. The packs are noted
// as damaged: backups store again what was in them.
func (a *Agent) tellGone(ctx context.Context, it *item, gone []store.Key) error {
	if len(gone) == 0 {
		return nil
	}
	notes := make(map[pack.ID]int64)
	for _, key := range gone {
		if id, err := pack.ParseID(key.Base()); err == nil && key == pack.Key(it.ID(), id) {
			notes[id] = a.Clock().Unix()
		}
	}
	if err := it.index.SetNotes(ctx, catalog.NoteDamaged, notes); err != nil {
		return err
	}
	return a.recordGone(ctx, it, gone, len(gone))
}

// maxNamed is how many objects an audit event names.
const maxNamed = 10

// recordGone has it in the logs that objects are gone.
func (a *Agent) recordGone(ctx context.Context, it *item, keys []store.Key, n int) error {
	names := make([]string, 0, maxNamed)
	for _, key := range keys[:min(len(keys), maxNamed)] {
		names = append(names, string(key))
	}
	a.Log.Error("objects are gone that no prune removed", "vault", it.vault.name, "item", it.Name(), "count", n, "objects", names)
	return a.record(ctx, audit.Event{Kind: audit.ObjectsGone, Vault: it.vault.name, Item: it.Name(), By: byAgent, Outcome: "refused",
		Says: fmt.Sprintf("%d objects that were there are gone, and no prune removed them: %s", n, strings.Join(names, ", "))})
}

// acknowledge takes note of points that are gone: they are no problem any more. It
// returns those whose names begin with the selector.
func (a *Agent) acknowledge(ctx context.Context, it *item, selector string) ([]catalog.PointName, error) {
	var names []catalog.PointName
	for s, err := range it.index.Summaries(ctx, catalog.PointQuery{Gone: true}) {
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
	if err := it.index.DropPoints(ctx, names); err != nil {
		return nil, err
	}
	it.vault.mu.Lock()
	defer it.vault.mu.Unlock()
	delete(it.vault.seen, it.Name())
	return names, nil
}

// eachPoint calls f for each point of an item, oldest first.
func (a *Agent) eachPoint(ctx context.Context, name string, f func(control.Point) error) error {
	it, synced, err := a.remembering(ctx, name)
	if errors.Is(err, durable.ErrState) {
		it, synced, err = a.rememberingApart(ctx, name, err)
	}
	if err != nil {
		return err
	}
	defer it.close()
	if synced.Unopened != nil {
		return Fault(synced.Unopened)
	}
	fates, err := a.fates(ctx, it)
	if err != nil {
		return err
	}
	for s, err := range it.index.Summaries(ctx, catalog.PointQuery{}) {
		if err != nil {
			return err
		}
		if s.State == catalog.PointGone {
			continue
		}
		p := a.wirePoint(it.vault.name, &catalog.Point{Name: s.Name, Item: name, Kind: s.Kind, Host: s.Host,
			Started: s.Started, Ended: s.Ended, Tags: s.Tags, Stats: s.Stats})
		p.Damaged = s.Damaged
		fates.of(s.Name, &p)
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}

// fates are the holds on an item's points, and when those go that are marked to go.
type fates struct {
	all   []catalog.Hold
	holds map[catalog.PointName][]control.Hold
	goes  map[catalog.PointName]time.Time
	asked map[catalog.PointName]struct{} // somebody asked for it to go
	fault error                          // a hold does not open: nothing may go
}

func (a *Agent) fates(ctx context.Context, it *item) (fates, error) {
	f := fates{holds: make(map[catalog.PointName][]control.Hold), goes: make(map[catalog.PointName]time.Time), asked: make(map[catalog.PointName]struct{})}
	holds, err := it.Holds(ctx)
	if errors.Is(err, crypt.ErrDamaged) { // no reason not to show what there is
		a.Log.Error("a hold does not open, so that no point of the item may go", "vault", it.vault.name, "item", it.Name(), "err", err)
		f.fault, err = damagedHold(ctx, it, err), nil
	}
	if err != nil {
		return f, Fault(err)
	}
	f.all = holds
	for _, h := range holds {
		f.holds[h.Point] = append(f.holds[h.Point], control.Hold{ID: h.ID, Owner: h.Owner, Reason: h.Reason, Since: h.Since})
	}
	marks, err := it.Marks(ctx)
	if err != nil {
		return f, Fault(err)
	}
	grace := time.Duration(a.settings().Vaults[it.vault.name].Prune.Grace)
	for _, m := range marks {
		for _, name := range slices.Concat(m.Points, m.Forgotten) {
			if at := m.Created.Add(grace); f.goes[name].IsZero() || at.Before(f.goes[name]) {
				f.goes[name] = at
			}
		}
		for _, name := range m.Forgotten {
			f.asked[name] = struct{}{}
		}
	}
	return f, nil
}

// of fills in the fate of a point. One that is held stays, marked or not.
func (f fates) of(name catalog.PointName, p *control.Point) {
	p.Holds = f.holds[name]
	if len(p.Holds) == 0 && f.fault == nil {
		p.Goes = f.goes[name]
	}
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
