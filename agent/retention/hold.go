package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// changing opens an item of which somebody changes what is kept. The caller closes it.
func (w *Warden) changing(ctx context.Context, name string) (*vault.Item, error) {
	ctx = keyring.WithPurpose(ctx, keyring.Purpose{Vault: w.cfg.Settings().Items[name].Vault, Item: name, By: control.PeerFrom(ctx).String()})
	return w.cfg.Vaults.Item(ctx, name)
}

// HoldPoint implements control.Retention. It is in the audit log before it is done.
func (w *Warden) HoldPoint(ctx context.Context, req control.PointHold) (control.Hold, error) {
	none := control.Hold{}
	if strings.TrimSpace(req.Owner) == "" || strings.TrimSpace(req.Reason) == "" {
		return none, &control.Error{Code: control.CodeBadRequest, Message: "a hold has an owner and a reason: whoever finds it in years must know whom to ask",
			Next: "say both: coffer point hold ITEM@POINT --owner legal --reason \"case 4711\""}
	}
	it, err := w.changing(ctx, req.Item)
	if err != nil {
		return none, err
	}
	defer it.Close()
	name, err := point.Pick(ctx, it.Item, req.Point, w.cfg.Clock().Location())
	if err != nil {
		return none, err
	}
	by := control.PeerFrom(ctx).String()
	e := audit.Event{Kind: audit.PointHeld, Vault: it.Vault.Name, Item: req.Item, Point: name.String(), By: by,
		Fields: map[string]string{"owner": req.Owner, "reason": req.Reason}}
	if err := w.cfg.Record(ctx, e); err != nil {
		return none, err
	}
	h := catalog.Hold{Point: name, Owner: req.Owner, Reason: req.Reason, Since: w.cfg.Clock().UTC()}
	if err := it.PutHold(ctx, &h); err != nil {
		return none, fault.Of(err)
	}
	return control.Hold{ID: h.ID, Point: name.String(), Owner: h.Owner, Reason: h.Reason, Since: h.Since}, w.inTime(ctx, it, h, by)
}

// inTime tells whether a hold that was put came before the removal of its point. One that
// came too late is taken back; one of which that is not known, as another host prunes,
// stays.
func (w *Warden) inTime(ctx context.Context, it *vault.Item, h catalog.Hold, by string) error {
	there, err := it.Committed(ctx, h.Point)
	if err == nil && there && !it.Leaves(h.Point) {
		leaving, err := it.Leaving(ctx, h.Point)
		if err != nil {
			return fault.Of(fmt.Errorf("see that no other host is about to remove the point: %w", err))
		}
		if leaving {
			return &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("point %s of %s is held now, but a prune of another host may be about to remove it", h.Point, it.Name()),
				Next: "see whether it is there when that prune has ended: coffer point list " + it.Name()}
		}
		return nil
	}
	if err != nil && !errors.Is(err, catalog.ErrNoPoint) {
		return fault.Of(fmt.Errorf("see that the point is there still: %w", err))
	}
	late := &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("point %s of %s was about to be removed, and the hold came too late", h.Point, it.Name()),
		Next: "see what there is: coffer point list " + it.Name()}
	if err := it.Release(ctx, h.ID, by, w.cfg.Clock()); err != nil {
		return fmt.Errorf("%w; take the hold back: %w", late, err)
	}
	e := audit.Event{Kind: audit.PointReleased, Vault: it.Vault.Name, Item: it.Name(), Point: h.Point.String(), By: audit.ByAgent, Says: late.Message}
	return errors.Join(late, w.cfg.Record(ctx, e))
}

// ReleasePoint implements control.Retention. It is in the audit log before it is done.
func (w *Warden) ReleasePoint(ctx context.Context, req control.PointRelease) (control.Point, error) {
	it, err := w.changing(ctx, req.Item)
	if err != nil {
		return control.Point{}, err
	}
	defer it.Close()
	holds, err := it.Holds(ctx)
	if err != nil {
		return control.Point{}, fault.Of(it.DamagedHold(ctx, err))
	}
	name, err := w.pickHeld(ctx, it, req.Point, holds)
	if err != nil {
		return control.Point{}, err
	}
	holds = slices.DeleteFunc(holds, func(h catalog.Hold) bool {
		return h.Point != name || req.Hold != "" && h.ID != req.Hold
	})
	if len(holds) == 0 {
		return control.Point{}, fault.Names{Item: req.Item, Point: name.String()}.Of(fmt.Errorf("point %s of %s: %w", name, req.Item, catalog.ErrNoHold))
	}
	by := control.PeerFrom(ctx).String()
	for _, h := range holds {
		e := audit.Event{Kind: audit.PointReleased, Vault: it.Vault.Name, Item: req.Item, Point: name.String(), By: by,
			Fields: map[string]string{"hold": h.ID, "owner": h.Owner, "reason": h.Reason}}
		if err := w.cfg.Record(ctx, e); err != nil {
			return control.Point{}, err
		}
		if err := it.Release(ctx, h.ID, by, w.cfg.Clock()); err != nil {
			return control.Point{}, fault.Of(err)
		}
	}
	out, err := w.cfg.Points.Describe(ctx, it, []catalog.PointName{name})
	if err != nil {
		return control.Point{}, err
	}
	return out[0], nil
}

// pickHeld finds the point that a selector means. A point that is gone may be held still.
func (w *Warden) pickHeld(ctx context.Context, it *vault.Item, selector string, holds []catalog.Hold) (catalog.PointName, error) {
	name, err := point.Pick(ctx, it.Item, selector, w.cfg.Clock().Location())
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

// ForgetPoints implements control.Retention. Points that somebody deleted behind the
// agent's back are forgotten at once: there is nothing left of them but the alarm.
func (w *Warden) ForgetPoints(ctx context.Context, req control.PointForget) ([]control.Point, error) {
	if len(req.Points) == 0 {
		return nil, &control.Error{Code: control.CodeBadRequest, Message: "no point is named", Next: "see what there is: coffer point list " + req.Item}
	}
	it, err := w.changing(ctx, req.Item)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	if _, err := it.LookAgain(ctx); err != nil {
		return nil, err
	}
	var names, gone []catalog.PointName
	for _, selector := range req.Points {
		name, err := point.Pick(ctx, it.Item, selector, w.cfg.Clock().Location())
		switch {
		case errors.Is(err, catalog.ErrNoPoint):
			if taken, terr := it.Acknowledge(ctx, selector); terr != nil || len(taken) > 0 {
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
		e := audit.Event{Kind: audit.PointForgotten, Vault: it.Vault.Name, Item: req.Item, Point: name.String(), By: by, Outcome: "gone before"}
		if err := w.cfg.Record(ctx, e); err != nil {
			return nil, err
		}
		// Without it, to a prune, it would be a backup that has not ended.
		if _, err := it.Void(ctx, name); err != nil {
			return nil, fault.Of(err)
		}
	}
	if len(names) > 0 {
		if err := w.forget(ctx, it, names, req.AllowEmpty, by); err != nil {
			return nil, err
		}
	}
	return w.cfg.Points.Describe(ctx, it, append(names, gone...))
}

// forget has the next prunes remove points. What was asked is in the audit log before
// it is done, and also if it is refused.
func (w *Warden) forget(ctx context.Context, it *vault.Item, names []catalog.PointName, allowEmpty bool, by string) error {
	note := func(outcome, says string) error {
		for _, name := range names {
			e := audit.Event{Kind: audit.PointForgotten, Vault: it.Vault.Name, Item: it.Name(), Point: name.String(), By: by, Outcome: outcome, Says: says}
			if err := w.cfg.Record(ctx, e); err != nil {
				return err
			}
		}
		return nil
	}
	if err := note("asked", ""); err != nil {
		return err
	}
	cfg, err := w.pruneConfig(it)
	if err == nil {
		cfg.Allow = policy.Allow{Empty: allowEmpty}
		err = it.DamagedHold(ctx, prune.Forget(ctx, cfg, names))
	}
	if err == nil {
		return nil
	}
	about := fault.Names{Item: it.Name()}
	if errors.Is(err, prune.ErrHeld) {
		about.Point = firstHeld(ctx, it, names)
	}
	return errors.Join(about.Of(err), note("refused", err.Error()))
}

// firstHeld returns the first of some points that is held, "" if that cannot be read.
func firstHeld(ctx context.Context, it *vault.Item, names []catalog.PointName) string {
	holds, err := it.Holds(ctx)
	if err != nil {
		return ""
	}
	for _, h := range holds {
		if slices.Contains(names, h.Point) {
			return h.Point.String()
		}
	}
	return ""
}

// holdsWatch tells whether a hold is put on a point while a prune is at work, by one
// listing for each point that is about to go.
type holdsWatch struct {
	item *vault.Item

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
	for info, err := range w.item.Vault.Store.List(ctx, prefix) {
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
