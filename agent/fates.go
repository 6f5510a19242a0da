package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
)

// eachPoint calls f for each point of an item, oldest first.
func (a *Agent) eachPoint(ctx context.Context, name string, f func(control.Point) error) error {
	it, synced, err := a.vaults.Remembering(ctx, name)
	if err != nil {
		return err
	}
	defer it.Close()
	if synced.Unopened != nil {
		return fault.Of(synced.Unopened)
	}
	fates, err := a.fates(ctx, it)
	if err != nil {
		return err
	}
	for s, err := range it.Index.Summaries(ctx, catalog.PointQuery{}) {
		if err != nil {
			return err
		}
		if s.State == catalog.PointGone {
			continue
		}
		p := a.wirePoint(it.Vault.Name, &catalog.Point{Name: s.Name, Item: name, Kind: s.Kind, Host: s.Host,
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

func (a *Agent) fates(ctx context.Context, it *vault.Item) (fates, error) {
	f := fates{holds: make(map[catalog.PointName][]control.Hold), goes: make(map[catalog.PointName]time.Time), asked: make(map[catalog.PointName]struct{})}
	holds, err := it.Holds(ctx)
	if errors.Is(err, crypt.ErrDamaged) { // no reason not to show what there is
		a.Log.Error("a hold does not open, so that no point of the item may go", "vault", it.Vault.Name, "item", it.Name(), "err", err)
		f.fault, err = it.DamagedHold(ctx, err), nil
	}
	if err != nil {
		return f, fault.Of(err)
	}
	f.all = holds
	for _, h := range holds {
		f.holds[h.Point] = append(f.holds[h.Point], control.Hold{ID: h.ID, Owner: h.Owner, Reason: h.Reason, Since: h.Since})
	}
	marks, err := it.Marks(ctx)
	if err != nil {
		return f, fault.Of(err)
	}
	grace := time.Duration(a.settings().Vaults[it.Vault.Name].Prune.Grace)
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
