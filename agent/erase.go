package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
)

// EraseItem implements control.Items. It is in the audit log before anything is
// destroyed, and again when it is done.
func (a *Agent) EraseItem(ctx context.Context, req control.ItemErase) (control.ItemErased, error) {
	none := control.ItemErased{}
	cfg, ok := a.Settings.Items[req.Item]
	if !ok {
		return none, notFound("item", req.Item, "coffer item list")
	}
	if req.Confirm != req.Item {
		return none, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("erasing item %s destroys all its points for ever, and %q is not its name", req.Item, req.Confirm),
			Next: "say it again with the item's name: coffer item erase " + req.Item + " --confirm " + req.Item}
	}
	// A rotation that is under way would wrap the secrets again that this destroys.
	release, ok := a.jobs.hold(req.Item, subjectOf(control.Job{Vault: cfg.Vault}))
	if !ok {
		return none, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("a job of item %s, or one about the keys of vault %s, is running", req.Item, cfg.Vault),
			Next: "wait for it, or stop it: coffer job list"}
	}
	defer release()
	by := control.PeerFrom(ctx).String()
	ctx = keyring.WithPurpose(context.WithoutCancel(ctx), keyring.Purpose{Vault: cfg.Vault, Item: req.Item, By: by})
	v, err := a.vault(ctx, cfg.Vault)
	if err != nil {
		return none, err
	}
	e := audit.Event{Kind: audit.ItemErased, Vault: cfg.Vault, Item: req.Item, By: by, Outcome: "begun"}
	if err := a.record(ctx, e); err != nil {
		return none, err
	}
	id, err := v.vault.ItemID(req.Item)
	if err != nil {
		return none, Fault(err)
	}
	index := a.state.indexPath(v.vault.ID(), id)
	done, err := v.vault.Erase(ctx, v.store, req.Item, a.Clock())
	v.floors.flush()
	v.detach(req.Item)
	if err != nil {
		return none, Fault(fmt.Errorf("erase item %s: %w; say it again to go on", req.Item, err))
	}
	for _, path := range []string{index, index + "-wal", index + "-shm"} { // SQLite's own beside it
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.Log.Warn("index of an erased item not removed", "path", path, "err", err)
		}
	}
	e.Outcome = "done"
	e.Fields = map[string]string{"secrets": fmt.Sprint(done.Secrets), "deleted": fmt.Sprint(done.Deleted), "locked": fmt.Sprint(done.Locked), "locked_keys": fmt.Sprint(done.LockedKeys)}
	return control.ItemErased{Item: req.Item, Secrets: done.Secrets, Deleted: done.Deleted, Locked: done.Locked, LockedKeys: done.LockedKeys, LockedUntil: done.LockedUntil}, a.record(ctx, e)
}

// VerifyAudit implements control.System.
func (a *Agent) VerifyAudit(ctx context.Context, req control.AuditVerify) (control.AuditReport, error) {
	dir := a.state.path("audit")
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
