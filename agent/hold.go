package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// leaving is the points that a prune of this agent is about to remove. A prune says
// here which one before it looks for holds, and a hold is put before this is looked at:
// one of the two finds the other.
type leaving struct {
	mu    sync.Mutex
	names map[catalog.PointName]struct{}
}

func (l *leaving) add(name catalog.PointName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = make(map[catalog.PointName]struct{})
	}
	l.names[name] = struct{}{}
}

func (l *leaving) remove(name catalog.PointName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.names, name)
}

func (l *leaving) has(name catalog.PointName) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.names[name]
	return ok
}

func (l *leaving) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = nil
}

// changing opens an item of which somebody changes what is kept. The caller closes it.
func (a *Agent) changing(ctx context.Context, name string) (*item, error) {
	ctx = keyring.WithPurpose(ctx, keyring.Purpose{Vault: a.settings().Items[name].Vault, Item: name, By: control.PeerFrom(ctx).String()})
	return a.openItem(ctx, name, func(v *vault) (*catalog.Item, error) { return v.vault.Item(ctx, name) })
}

// HoldPoint implements control.Retention. It is in the audit log before it is done.
func (a *Agent) HoldPoint(ctx context.Context, req control.PointHold) (control.Hold, error) {
	none := control.Hold{}
	if strings.TrimSpace(req.Owner) == "" || strings.TrimSpace(req.Reason) == "" {
		return none, &control.Error{Code: control.CodeBadRequest, Message: "a hold has an owner and a reason: whoever finds it in years must know whom to ask",
			Next: "say both: coffer point hold ITEM@POINT --owner legal --reason \"case 4711\""}
	}
	it, err := a.changing(ctx, req.Item)
	if err != nil {
		return none, err
	}
	defer it.close()
	name, err := PickPoint(ctx, it.Item, req.Point, a.Clock().Location())
	if err != nil {
		return none, err
	}
	by := control.PeerFrom(ctx).String()
	e := audit.Event{Kind: audit.PointHeld, Vault: it.vault.name, Item: req.Item, Point: name.String(), By: by,
		Fields: map[string]string{"owner": req.Owner, "reason": req.Reason}}
	if err := a.record(ctx, e); err != nil {
		return none, err
	}
	h := catalog.Hold{Point: name, Owner: req.Owner, Reason: req.Reason, Since: a.Clock().UTC()}
	if err := it.PutHold(ctx, &h); err != nil {
		return none, Fault(err)
	}
	return control.Hold{ID: h.ID, Owner: h.Owner, Reason: h.Reason, Since: h.Since}, a.inTime(ctx, it, h, by)
}

// inTime tells whether a hold that was put came before the removal of its point. One that
// came too late is taken back.
func (a *Agent) inTime(ctx context.Context, it *item, h catalog.Hold, by string) error {
	there, err := it.Committed(ctx, h.Point)
	if err == nil && there && !it.leaving.has(h.Point) {
		return nil
	}
	if err != nil && !errors.Is(err, catalog.ErrNoPoint) {
		return Fault(fmt.Errorf("see that the point is there still: %w", err))
	}
	late := &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("point %s of %s was about to be removed, and the hold came too late", h.Point, it.Name()),
		Next: "see what there is: coffer point list " + it.Name()}
	if err := it.Release(ctx, h.ID, by, a.Clock()); err != nil {
		return fmt.Errorf("%w; take the hold back: %w", late, err)
	}
	e := audit.Event{Kind: audit.PointReleased, Vault: it.vault.name, Item: it.Name(), Point: h.Point.String(), By: byAgent, Says: late.Message}
	return errors.Join(late, a.record(ctx, e))
}

// ReleasePoint implements control.Retention. It is in the audit log before it is done.
func (a *Agent) ReleasePoint(ctx context.Context, req control.PointRelease) (control.Point, error) {
	it, err := a.changing(ctx, req.Item)
	if err != nil {
		return control.Point{}, err
	}
	defer it.close()
	holds, err := it.Holds(ctx)
	if err != nil {
		return control.Point{}, Fault(damagedHold(ctx, it, err))
	}
	name, err := a.pickHeld(ctx, it, req.Point, holds)
	if err != nil {
		return control.Point{}, err
	}
	holds = slices.DeleteFunc(holds, func(h catalog.Hold) bool {
		return h.Point != name || req.Hold != "" && h.ID != req.Hold
	})
	if len(holds) == 0 {
		return control.Point{}, Fault(fmt.Errorf("point %s of %s: %w", name, req.Item, catalog.ErrNoHold))
	}
	by := control.PeerFrom(ctx).String()
	for _, h := range holds {
		e := audit.Event{Kind: audit.PointReleased, Vault: it.vault.name, Item: req.Item, Point: name.String(), By: by,
			Fields: map[string]string{"hold": h.ID, "owner": h.Owner, "reason": h.Reason}}
		if err := a.record(ctx, e); err != nil {
			return control.Point{}, err
		}
		if err := it.Release(ctx, h.ID, by, a.Clock()); err != nil {
			return control.Point{}, Fault(err)
		}
	}
	out, err := a.described(ctx, it, []catalog.PointName{name})
	if err != nil {
		return control.Point{}, err
	}
	return out[0], nil
}

// pickHeld finds the point that a selector means. A point that is gone may be held still.
func (a *Agent) pickHeld(ctx context.Context, it *item, selector string, holds []catalog.Hold) (catalog.PointName, error) {
	name, err := PickPoint(ctx, it.Item, selector, a.Clock().Location())
	if !errors.Is(err, catalog.ErrNoPoint) {
		return name, err
	}
	for _, h := range holds {
		if string(h.Point) == selector || h.Point.String() == selector {
			return h.Point, nil
		}
	}
	return "", err
}

// described returns points as callers see them. Of one that is not there, little is
// known.
func (a *Agent) described(ctx context.Context, it *item, names []catalog.PointName) ([]control.Point, error) {
	fates, err := a.fates(ctx, it)
	if err != nil {
		return nil, err
	}
	out := make([]control.Point, 0, len(names))
	for _, name := range names {
		p, err := it.point(ctx, name)
		if err != nil {
			p = &catalog.Point{Name: name, Item: it.Name()}
		}
		w := a.wirePoint(it.vault.name, p)
		fates.of(name, &w)
		out = append(out, w)
	}
	return out, nil
}

// ForgetPoints implements control.Retention. Points that somebody deleted behind the
// agent's back are forgotten at once: there is nothing left of them but the alarm.
func (a *Agent) ForgetPoints(ctx context.Context, req control.PointForget) ([]control.Point, error) {
	if len(req.Points) == 0 {
		return nil, &control.Error{Code: control.CodeBadRequest, Message: "no point is named", Next: "see what there is: coffer point list " + req.Item}
	}
	it, err := a.changing(ctx, req.Item)
	if err != nil {
		return nil, err
	}
	defer it.close()
	if _, err := a.lookAgain(ctx, it); err != nil {
		return nil, err
	}
	var names, gone []catalog.PointName
	for _, selector := range req.Points {
		name, err := PickPoint(ctx, it.Item, selector, a.Clock().Location())
		switch {
		case errors.Is(err, catalog.ErrNoPoint):
			if taken, terr := a.acknowledge(ctx, it, selector); terr != nil || len(taken) > 0 {
				gone, err = append(gone, taken...), terr
			}
		case err == nil && selector != name.String() && selector != string(name):
			err = &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("%q is not the id of a point of %s, and what is forgotten is not guessed; the point that it picks is %s", selector, req.Item, name),
				Next: fmt.Sprintf("if that is the one: coffer point forget %s@%s; all there are: coffer point list %s", req.Item, name, req.Item)}
		case err == nil && !slices.Contains(names, name):
			names = append(names, name)
		}
		if err != nil {
			return nil, err
		}
	}
	by := control.PeerFrom(ctx).String()
	for _, name := range gone {
		e := audit.Event{Kind: audit.PointForgotten, Vault: it.vault.name, Item: req.Item, Point: name.String(), By: by, Outcome: "gone before"}
		if err := a.record(ctx, e); err != nil {
			return nil, err
		}
		// Without it, to a prune, it would be a backup that has not ended.
		if _, err := it.Void(ctx, name); err != nil {
			return nil, Fault(err)
		}
	}
	if len(names) > 0 {
		if err := a.forget(ctx, it, names, req.AllowEmpty, by); err != nil {
			return nil, err
		}
	}
	return a.described(ctx, it, append(names, gone...))
}

// forget has the next prunes remove points. What was asked is in the audit log before
// it is done, and also if it is refused.
func (a *Agent) forget(ctx context.Context, it *item, names []catalog.PointName, allowEmpty bool, by string) error {
	note := func(outcome, says string) error {
		for _, name := range names {
			e := audit.Event{Kind: audit.PointForgotten, Vault: it.vault.name, Item: it.Name(), Point: name.String(), By: by, Outcome: outcome, Says: says}
			if err := a.record(ctx, e); err != nil {
				return err
			}
		}
		return nil
	}
	if err := note("asked", ""); err != nil {
		return err
	}
	cfg, err := a.pruneConfig(it)
	if err == nil {
		cfg.Allow = policy.Allow{Empty: allowEmpty}
		err = damagedHold(ctx, it, prune.Forget(ctx, cfg, names))
	}
	if err == nil {
		return nil
	}
	return errors.Join(Fault(err), note("refused", err.Error()))
}

// holdsWatch tells whether a hold is put on a point while a prune is at work, by one
// listing for each point that is about to go.
type holdsWatch struct {
	item *item

	mu    sync.Mutex
	known map[store.Key]struct{} // holds and releases, as of the last reading
	held  map[catalog.PointName]struct{}
}

// holds tells whether there is a hold on a point now.
func (w *holdsWatch) holds(ctx context.Context, name catalog.PointName) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh := w.known == nil
	listed := make(map[store.Key]struct{})
	prefix := w.item.HoldKey("")
	for info, err := range w.item.vault.store.List(ctx, prefix) {
		if err != nil {
			return true, fmt.Errorf("list holds of %s: %w", w.item.Name(), err)
		}
		listed[info.Key] = struct{}{}
		if _, ok := w.known[info.Key]; !ok {
			fresh = true
		}
	}
	if fresh {
		holds, err := w.item.Holds(ctx)
		if err != nil {
			return true, err
		}
		w.known, w.held = listed, make(map[catalog.PointName]struct{})
		for _, h := range holds {
			w.held[h.Point] = struct{}{}
		}
	}
	_, held := w.held[name]
	return held, nil
}
