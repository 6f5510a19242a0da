package point

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
)

// Each yields the points of an item, or only the last so many, oldest first.
func (b *Book) Each(ctx context.Context, name string, last int) iter.Seq2[control.Point, error] {
	return func(yield func(control.Point, error) bool) {
		it, synced, err := b.cfg.Vaults.RememberingToRead(ctx, name)
		if err != nil {
			yield(control.Point{}, err)
			return
		}
		defer it.Close()
		if synced.Unopened != nil {
			yield(control.Point{}, fault.Of(synced.Unopened))
			return
		}
		fates, err := b.Fates(ctx, it)
		if err != nil {
			yield(control.Point{}, err)
			return
		}
		for s, err := range it.PointsThere(ctx, last) {
			if err != nil {
				yield(control.Point{}, err)
				return
			}
			p := Wire(it.Vault.Name, &catalog.Point{Name: s.Name, Item: name, Kind: s.Kind, Host: s.Host,
				Started: s.Started, Ended: s.Ended, Tags: s.Tags, Stats: s.Stats})
			p.Damaged = s.Damaged
			fates.Of(s.Name, &p)
			if !yield(p, nil) {
				return
			}
		}
	}
}

// Fates are the holds on an item's points, and when those go that are marked to go.
type Fates struct {
	All   []catalog.Hold
	Holds map[catalog.PointName][]control.Hold
	Goes  map[catalog.PointName]time.Time
	Asked map[catalog.PointName]struct{} // somebody asked for it to go
	Fault error                          // a hold does not open: nothing may go
}

// Fates returns those of an item's points.
func (b *Book) Fates(ctx context.Context, it *vault.Item) (Fates, error) {
	f := Fates{Holds: make(map[catalog.PointName][]control.Hold), Goes: make(map[catalog.PointName]time.Time), Asked: make(map[catalog.PointName]struct{})}
	holds, err := it.Holds(ctx)
	if errors.Is(err, crypt.ErrDamaged) { // no reason not to show what there is
		b.cfg.Log.Error("a hold does not open, so that no point of the item may go", "vault", it.Vault.Name, "item", it.Name(), "err", err)
		f.Fault, err = it.DamagedHold(ctx, err), nil
	}
	if err != nil {
		return f, fault.Of(err)
	}
	f.All = holds
	for _, h := range holds {
		f.Holds[h.Point] = append(f.Holds[h.Point], control.Hold{ID: h.ID, Owner: h.Owner, Reason: h.Reason, Since: h.Since})
	}
	marks, err := it.Marks(ctx)
	if err != nil {
		return f, fault.Of(err)
	}
	grace := time.Duration(b.cfg.Settings().Vaults[it.Vault.Name].Prune.Grace)
	for _, m := range marks {
		for _, name := range slices.Concat(m.Points, m.Forgotten) {
			if at := m.Created.Add(grace); f.Goes[name].IsZero() || at.Before(f.Goes[name]) {
				f.Goes[name] = at
			}
		}
		for _, name := range m.Forgotten {
			f.Asked[name] = struct{}{}
		}
	}
	return f, nil
}

// Of fills in the fate of a point. One that is held stays, marked or not.
func (f Fates) Of(name catalog.PointName, p *control.Point) {
	p.Holds = f.Holds[name]
	if len(p.Holds) == 0 && f.Fault == nil {
		p.Goes = f.Goes[name]
	}
}

// Describe returns points as callers see them. Of one that is not there, little is
// known.
func (b *Book) Describe(ctx context.Context, it *vault.Item, names []catalog.PointName) ([]control.Point, error) {
	fates, err := b.Fates(ctx, it)
	if err != nil {
		return nil, err
	}
	out := make([]control.Point, 0, len(names))
	for _, name := range names {
		p, err := it.Read(ctx, name)
		if err != nil {
			p = &catalog.Point{Name: name, Item: it.Name()}
		}
		w := Wire(it.Vault.Name, p)
		fates.Of(name, &w)
		out = append(out, w)
	}
	return out, nil
}
