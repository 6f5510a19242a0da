package prune

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// giveUp decides the repacks of this host that never ended.
func (r *run) giveUp(ctx context.Context) error {
	if r.DryRun {
		return nil
	}
	ended := make(map[pack.ID]int64)
	for n, err := range r.Index.Notes(ctx, catalog.NoteRepack) {
		if err != nil {
			return err
		}
		if _, err := r.Item.Void(ctx, catalog.PointNameOf(time.UnixMilli(n.Value), n.Pack)); err != nil {
			return err
		}
		ended[n.Pack] = 0
	}
	return r.Index.SetNotes(ctx, catalog.NoteRepack, ended)
}

// sessions lists the sessions, gives up those that are too old, and deletes those that
// are decided: that a session object is gone says that it was.
func (r *run) sessions(ctx context.Context) error {
	names, err := r.Item.Sessions(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		decided, err := r.decide(ctx, name)
		if err != nil {
			return err
		}
		if !decided {
			r.open = append(r.open, name)
			continue
		}
		if _, err := r.del.object(ctx, r.Item.SessionKey(name), 0); err != nil {
			return err
		}
	}
	return nil
}

// decide tells whether a session is decided, and gives it up if it is old enough. It is
// safe to give up any session at any time: its backup is told so and tried again.
func (r *run) decide(ctx context.Context, name catalog.PointName) (bool, error) {
	decided, err := r.Item.Decided(ctx, name)
	if err != nil || decided || r.DryRun {
		return decided, err
	}
	info, err := r.Store.Stat(ctx, r.Item.SessionKey(name))
	if errors.Is(err, store.ErrNotExist) {
		return true, nil // another prune has seen it decided
	}
	if err != nil {
		return false, fmt.Errorf("look at session %s: %w", name, err)
	}
	old, err := r.passed(ctx, name.Time(), info.Modified, r.Abandon)
	if err != nil || !old {
		return false, err
	}
	if _, err := r.Item.Void(ctx, name); err != nil {
		return false, err
	}
	// A crash here leaves a session that is decided.
	r.Log.Warn("backup that never ended was given up", "item", r.Item.Name(), "session", name)
	return true, nil
}

// passed tells whether some time has passed since something was made, by this host's
// clock and by the store's. What says that it was made later than the store has it, by a
// clock that was ahead or by somebody who wants it to stay, is as old as the store says.
func (r *run) passed(ctx context.Context, made, modified time.Time, span time.Duration) (bool, error) {
	if made.After(modified) {
		made = modified
	}
	if r.now.Sub(made) < span {
		return false, nil
	}
	if r.DryRun { // what the store's clock says is not asked for without writing
		return true, nil
	}
	now, err := r.store.now(ctx)
	return err == nil && now.Sub(modified) >= span, err
}

// storeClock tells the time by the store's clock, from an object that it puts.
type storeClock struct {
	item    *catalog.Item
	objects store.Store
	mark    catalog.Mark // an empty one
	time    time.Time
}

func (c *storeClock) now(ctx context.Context) (time.Time, error) {
	if !c.time.IsZero() {
		return c.time, nil
	}
	m := c.mark
	if err := c.item.PutMark(ctx, &m); err != nil {
		return time.Time{}, err
	}
	// A crash here leaves a mark that names nothing; the next run removes it.
	key := c.item.MarkKey(m.ID)
	info, err := c.objects.Stat(ctx, key)
	if err == nil {
		err = c.objects.Delete(ctx, key)
	}
	if errors.Is(err, store.ErrLocked) { // where all that is put is locked
		err = nil
	}
	if errors.Is(err, store.ErrDenied) {
		err = fmt.Errorf("%w: %w", ErrMayNotDelete, err)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	c.time = info.Modified
	return c.time, nil
}

// ripe is a mark that may be swept.
type ripe struct {
	catalog.Mark
	decided bool      // which of its packs go
	packs   []pack.ID // these, ascending
}

// ripe returns the marks whose grace time has passed, if all of their sessions are
// decided, or if it is decided already what of them goes. It writes the witnesses that
// are missing.
func (r *run) ripe(ctx context.Context) ([]ripe, error) {
	var err error
	if r.marks, err = r.Item.Marks(ctx); err != nil {
		return nil, err
	}
	var ready []ripe
	waiting := make(map[catalog.PointName]struct{})
	for _, m := range r.marks {
		if m.Fault != nil && !errors.Is(m.Fault, crypt.ErrDamaged) {
			return nil, m.Fault // no key opens it: what it names is not known
		}
		due, err := r.passed(ctx, m.Created, m.Modified, r.Grace)
		if err != nil {
			return nil, err
		}
		if due {
			packs, decided, err := r.Item.Outcome(ctx, m.ID)
			if errors.Is(err, crypt.ErrDamaged) {
				// Another prune may be at work by what it says.
				r.Log.Error("a mark stays, and what it names: what was decided of it does not open; when no other host prunes the item, delete the object",
					"item", r.Item.Name(), "mark", m.ID, "object", r.Item.RemovedKey(m.ID), "err", err)
				r.done.Pending++
				continue
			}
			if err != nil {
				return nil, err
			}
			if decided {
				ready = append(ready, ripe{m, true, packs})
				continue
			}
		}
		open, err := r.witness(ctx, m)
		if err != nil {
			return nil, err
		}
		if !due {
			r.done.Pending++
			r.goes(m.Created)
			continue
		}
		undecided := 0
		for _, name := range open {
			decided, err := r.decide(ctx, name)
			if err != nil {
				return nil, err
			}
			if !decided {
				undecided++
				waiting[name] = struct{}{}
			}
		}
		if undecided == 0 {
			ready = append(ready, ripe{Mark: m})
		}
	}
	r.done.Waiting = len(waiting)
	return ready, r.orphanWitnesses(ctx)
}

// witness returns the sessions that there were after the mark was visible.
func (r *run) witness(ctx context.Context, m catalog.Mark) ([]catalog.PointName, error) {
	sessions, ok, err := r.Item.Witness(ctx, m.ID)
	if err == nil && ok {
		return sessions, nil
	}
	if err != nil && !errors.Is(err, crypt.ErrDamaged) {
		return nil, err
	}
	if err != nil && !r.DryRun {
		if _, err := r.del.object(ctx, r.Item.WitnessKey(m.ID), 0); err != nil {
			return nil, err
		}
	}
	return r.putWitness(ctx, m.ID)
}

// putWitness writes down which sessions there are now: any time after the mark is good.
func (r *run) putWitness(ctx context.Context, mark string) ([]catalog.PointName, error) {
	sessions, err := r.Item.Sessions(ctx)
	if err != nil || r.DryRun {
		return sessions, err
	}
	return sessions, r.Item.PutWitness(ctx, mark, sessions)
}

// orphanWitnesses deletes witnesses of marks that are gone: two prunes were at one mark.
func (r *run) orphanWitnesses(ctx context.Context) error {
	witnesses, err := r.Item.Witnesses(ctx)
	if err != nil || len(witnesses) == 0 {
		return err
	}
	for _, id := range witnesses {
		if _, err := r.Store.Stat(ctx, r.Item.MarkKey(id)); !errors.Is(err, store.ErrNotExist) {
			if err != nil {
				return fmt.Errorf("look at mark %s: %w", id, err)
			}
			continue
		}
		if _, err := r.del.object(ctx, r.Item.WitnessKey(id), 0); err != nil {
			return err
		}
	}
	return nil
}

// goes notes when something that was marked then may go.
func (r *run) goes(created time.Time) {
	if created.IsZero() { // the mark does not open: nothing goes by it
		return
	}
	if at := created.Add(r.Grace); r.done.Goes.IsZero() || at.Before(r.done.Goes) {
		r.done.Goes = at
	}
}
