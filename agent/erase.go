package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
)

// EraseItem implements control.Items. It is in the audit log before anything is
// destroyed, and again when it is done.
func (a *Agent) EraseItem(ctx context.Context, req control.ItemErase) (control.ItemErased, error) {
	none := control.ItemErased{}
	cfg, ok := a.settings().Items[req.Item]
	if !ok {
		return none, fault.NotFound("item", req.Item, "coffer item list")
	}
	if req.Confirm != req.Item {
		return none, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("erasing item %s destroys all its points for ever, and %q is not its name", req.Item, req.Confirm),
			Next: "say it again with the item's name: coffer item erase " + req.Item + " --confirm " + req.Item}
	}
	// A rotation that is under way would wrap the secrets again that this destroys.
	release, ok := a.jobs.Hold(req.Item, queue.Subject(control.Job{Vault: cfg.Vault}))
	if !ok {
		return none, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("a job of item %s, or one about the keys of vault %s, is running", req.Item, cfg.Vault),
			Next: "wait for it, or stop it: coffer job list"}
	}
	defer release()
	by := control.PeerFrom(ctx).String()
	ctx = keyring.WithPurpose(context.WithoutCancel(ctx), keyring.Purpose{Vault: cfg.Vault, Item: req.Item, By: by})
	v, err := a.vaults.Open(ctx, cfg.Vault)
	if err != nil {
		return none, err
	}
	if err := a.unheld(ctx, v, req.Item); err != nil {
		return none, err
	}
	e := audit.Event{Kind: audit.ItemErased, Vault: cfg.Vault, Item: req.Item, By: by, Outcome: "begun"}
	if err := a.record(ctx, e); err != nil {
		return none, err
	}
	id, err := v.Catalog.ItemID(req.Item)
	if err != nil {
		return none, fault.Of(err)
	}
	index := a.state.IndexPath(v.Catalog.ID(), id)
	done, err := v.Catalog.Erase(ctx, v.Store, req.Item, a.Clock())
	v.Floors.Flush()
	v.Detach(req.Item)
	if err != nil {
		return none, fault.Of(fmt.Errorf("erase item %s: %w; say it again to go on", req.Item, err))
	}
	if err := a.Parts.RemoveIndex(index); err != nil {
		a.Log.Warn("index of an erased item not removed", "path", index, "err", err)
	}
	if err := a.proofs.Change(cfg.Vault, req.Item, func(e *proof.Entry) { *e = proof.Entry{} }); err != nil {
		a.Log.Warn("what was verified of an erased item is remembered still", "item", req.Item, "err", err)
	}
	e.Outcome = "done"
	e.Fields = map[string]string{"secrets": fmt.Sprint(done.Secrets), "deleted": fmt.Sprint(done.Deleted), "locked": fmt.Sprint(done.Locked), "locked_keys": fmt.Sprint(done.LockedKeys)}
	return control.ItemErased{Item: req.Item, Secrets: done.Secrets, Deleted: done.Deleted, Locked: done.Locked, LockedKeys: done.LockedKeys, LockedUntil: done.LockedUntil}, a.record(ctx, e)
}

// unheld returns an error if a point of an item is held, or if it is not known: somebody
// answers for it that it is there. Where nobody ever held one, nothing is opened.
func (a *Agent) unheld(ctx context.Context, v *vault.Vault, name string) error {
	id, err := v.Catalog.ItemID(name)
	if err != nil {
		return fault.Of(err)
	}
	ever := false
	for _, err := range v.Store.List(ctx, catalog.HoldsOf(id)) {
		if err != nil {
			return fault.Of(fmt.Errorf("see whether a point of %s is held: %w", name, err))
		}
		ever = true
		break
	}
	if !ever {
		return nil
	}
	it, err := v.Catalog.Item(ctx, name)
	if errors.Is(err, catalog.ErrNoItem) || errors.Is(err, catalog.ErrErased) {
		return nil
	}
	var holds []catalog.Hold
	if err == nil {
		defer it.Close()
		holds, err = it.Holds(ctx)
	}
	if err != nil {
		return fault.Of(fmt.Errorf("see whether a point of %s is held: %w", name, err))
	}
	if len(holds) == 0 {
		return nil
	}
	h, more := holds[0], ""
	if n := len(holds); n > 1 {
		more = fmt.Sprintf("; there are %d holds in all", n)
	}
	return &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("point %s of %s is held by %s: %s%s", h.Point, name, h.Owner, h.Reason, more),
		Next: fmt.Sprintf("ask who holds it, then: coffer point release %s@%s", name, h.Point)}
}

// VerifyAudit implements control.System.
func (a *Agent) VerifyAudit(ctx context.Context, req control.AuditVerify) (control.AuditReport, error) {
	dir := a.state.Path("audit")
	r, err := audit.Verify(ctx, dir, audit.Options{Head: req.Head})
	if err != nil {
		return control.AuditReport{}, fmt.Errorf("check the audit log in %s: %w", dir, err)
	}
	out := control.AuditReport{Path: dir, Files: r.Files, Lines: r.Lines, First: r.First, Last: r.Last, Head: r.Head, Faults: []string{}}
	for _, f := range r.Faults {
		out.Faults = append(out.Faults, f.String())
	}
	if r.More > 0 {
		out.Faults = append(out.Faults, fmt.Sprintf("and %d faults more", r.More))
	}
	return out, nil
}
