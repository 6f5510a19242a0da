package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore"
)

// DrillKeys implements control.Custody.
func (a *Agent) DrillKeys(ctx context.Context, req control.KeyDrill) (control.Job, error) {
	if _, err := a.vaults.Open(ctx, req.Vault); err != nil {
		return control.Job{}, err
	}
	item, err := a.drillItem(req)
	if err != nil {
		return control.Job{}, err
	}
	others := 0
	for _, name := range a.settings().Vaults[req.Vault].Keys[1:] {
		if a.settings().Keys[name].Public == "" {
			others++
		}
	}
	if others == 0 {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("vault %s has one key that opens it, so there is nothing to fall back to", req.Vault),
			Next: "add a second key to vaults." + req.Vault + ".keys and rotate: coffer key rotate " + req.Vault}
	}
	state := control.Job{Kind: control.KindDrill, Vault: req.Vault, Item: item}
	j := a.start(control.PeerFrom(ctx).String(), state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		e := audit.Event{Kind: audit.DrillStarted, Vault: req.Vault, Item: item, Key: a.settings().Vaults[req.Vault].Keys[0], By: j.Snapshot().By, Job: j.ID()}
		if err := a.record(ctx, e); err != nil {
			return nil, err
		}
		result, err := a.drill(ctx, j, req.Vault, item)
		e.Kind, e.Outcome = audit.DrillDone, "passed"
		if err != nil {
			e.Outcome, e.Says = "failed", err.Error()
		}
		if err := errors.Join(err, a.record(ctx, e)); err != nil {
			return nil, fault.Of(err)
		}
		return &control.JobResult{Drill: result}, nil
	})
	return j.Snapshot(), nil
}

// drillItem is the item that a drill backs up and restores.
func (a *Agent) drillItem(req control.KeyDrill) (string, error) {
	for _, name := range slices.Sorted(maps.Keys(a.settings().Items)) {
		it := a.settings().Items[name]
		if it.Vault == req.Vault && (name == req.Item || req.Item == "" && it.Files != nil) {
			return name, nil
		}
	}
	if req.Item != "" {
		return "", fault.NotFound("item in vault "+req.Vault, req.Item, "coffer item list")
	}
	return "", &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("vault %s has no item with files to try with", req.Vault), Next: "name one: coffer key drill " + req.Vault + " --item ITEM"}
}

// drill takes the primary key of a vault away, opens every secret without it, makes
// a point, and reads all of that back. Other jobs of the vault go on meanwhile, and
// do without the key as well.
func (a *Agent) drill(ctx context.Context, j *queue.Job, vaultName, itemName string) (*control.DrillResult, error) {
	started := a.Clock()
	primary := a.settings().Vaults[vaultName].Keys[0]
	if err := a.vaults.TakeAway(vaultName, primary); err != nil {
		return nil, err
	}
	defer a.vaults.GiveBack(context.WithoutCancel(ctx), vaultName)
	if a.rotating(vaultName) {
		return nil, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("the keys of vault %s are being rotated", vaultName), Next: "wait for that to end: coffer job list"}
	}
	if err := a.vaults.Reopen(ctx, vaultName); err != nil {
		return nil, err
	}
	j.Note("info", fmt.Sprintf("key %s is taken away", primary))
	v, err := a.vaults.Open(ctx, vaultName) // opened anew, without it
	if err != nil {
		return nil, fmt.Errorf("open the vault without key %s: %w", primary, err)
	}
	out := &control.DrillResult{Vault: vaultName, Without: primary}
	ring, _ := a.keys.Ring(ctx, a.vaults.Uses(vaultName))
	with := make(map[string]bool)
	records, err := secrets(ctx, v)
	if err != nil {
		return nil, err
	}
	for i, r := range records {
		opened, ref, err := ring.Unwrap(ctx, r.Wrappings)
		clear(opened)
		if err != nil {
			return nil, fmt.Errorf("without key %s, %s generation %d does not open: %w", primary, ownerOf(r), r.Generation, err)
		}
		with[ref.Name] = true
		j.Follow(func() control.Progress {
			return control.Progress{Phase: "opening", Entries: int64(i + 1), EntriesTotal: int64(len(records))}
		})
	}
	out.Secrets, out.With = len(records), slices.Sorted(maps.Keys(with))
	p, err := a.drillBackup(ctx, itemName)
	if err != nil {
		return nil, fmt.Errorf("back up %s without key %s: %w", itemName, primary, err)
	}
	out.Point = p.Name.String()
	if out.Bytes, err = a.drillRestore(ctx, itemName, p); err != nil {
		return nil, fmt.Errorf("read %s back without key %s: %w", itemName, primary, err)
	}
	out.Seconds = a.Clock().Sub(started).Seconds()
	return out, nil
}

func ownerOf(r catalog.KeyRecord) string {
	if r.Item == "" {
		return "the vault key"
	}
	return "the secret of item " + r.Item + ","
}

func (a *Agent) drillBackup(ctx context.Context, name string) (*catalog.Point, error) {
	it, err := a.vaults.Protected(ctx, name)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	level, err := chunk.ParseLevel(a.settings().Vaults[it.Vault.Name].Compression)
	if err != nil {
		return nil, err
	}
	src, err := a.Parts.Source(a.settings().Items[name], "", nil)
	if err != nil {
		return nil, err
	}
	done, err := it.BeginWriting(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return backup.Run(ctx, backup.Config{
		Item: it.Item, Packs: it.Vault.Store, Index: it.Index, Source: src, Level: level, Tags: []string{"drill"},
		BringUp:   func(ctx context.Context) (catalog.Synced, error) { return it.BringUpWriting(ctx, func(int) {}) },
		Retention: a.retention(it.Vault.Name), Retain: a.retain(it), Host: a.host, Agent: a.Program.Version, Progress: new(backup.Progress), Clock: a.Clock, Log: a.Log,
	})
}

// drillRestore reads all of a point and keeps nothing.
func (a *Agent) drillRestore(ctx context.Context, name string, p *catalog.Point) (int64, error) {
	it, err := a.vaults.Existing(ctx, name)
	if err != nil {
		return 0, err
	}
	defer it.Close()
	done := new(restore.VerifyProgress)
	report, err := restore.Verify(ctx, restore.VerifyConfig{Item: it.Item, Objects: it.Vault.Store, Reader: it.Reader, Points: []catalog.PointName{p.Name}, Progress: done})
	if err == nil && len(report.Findings) > 0 {
		err = fmt.Errorf("%d faults, the first in %s: %w", len(report.Findings), report.Findings[0].Object, report.Findings[0].Err)
	}
	return int64(done.Bytes.Load()), err
}
