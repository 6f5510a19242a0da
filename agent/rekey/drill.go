package rekey

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
	"github.com/cofferbackup/coffer/catalog"
)

// DrillKeys implements control.Custody.
func (k *Keeper) DrillKeys(ctx context.Context, req control.KeyDrill) (control.Job, error) {
	if _, err := k.cfg.Vaults.Open(ctx, req.Vault); err != nil {
		return control.Job{}, err
	}
	item, err := k.drillItem(req)
	if err != nil {
		return control.Job{}, err
	}
	if err := k.fallback(req.Vault); err != nil {
		return control.Job{}, err
	}
	state := control.Job{Kind: control.KindDrill, Vault: req.Vault, Item: item}
	j := k.cfg.Start(control.PeerFrom(ctx).String(), state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		e := audit.Event{Kind: audit.DrillStarted, Vault: req.Vault, Item: item, Key: k.cfg.Settings().Vaults[req.Vault].Keys[0], By: j.Snapshot().By, Job: j.ID()}
		if err := k.cfg.Record(ctx, e); err != nil {
			return nil, err
		}
		result, err := k.drill(ctx, j, req.Vault, item)
		e.Kind, e.Outcome = audit.DrillDone, "passed"
		if err != nil {
			e.Outcome, e.Says = "failed", err.Error()
		}
		if err := errors.Join(err, k.cfg.Record(ctx, e)); err != nil {
			return nil, fault.Of(err)
		}
		return &control.JobResult{Drill: result}, nil
	})
	return j.Snapshot(), nil
}

// fallback returns an error if a vault has no other key than its first that can be asked.
func (k *Keeper) fallback(vault string) error {
	escrow := ""
	for _, name := range k.cfg.Settings().Vaults[vault].Keys[1:] {
		if k.cfg.Settings().Keys[name].Public == "" {
			return nil
		}
		escrow = name
	}
	says := fmt.Sprintf("vault %s has one key that opens it, so there is nothing to fall back to", vault)
	next := fmt.Sprintf("add a second key to vaults.%s.keys and rotate: coffer key rotate %s", vault, vault)
	if escrow != "" {
		says = fmt.Sprintf("vault %s has one key that answers: key %s is an escrow, whose private part is kept offline and cannot be tried here", vault, escrow)
		next = "try the escrow where it is: cofferd rescue, with its file as the key. A drill needs a second key that answers: " + next
	}
	return &control.Error{Code: control.CodeBadRequest, Message: says, Next: next}
}

// drillItem is the item that a drill backs up and restores.
func (k *Keeper) drillItem(req control.KeyDrill) (string, error) {
	for _, name := range slices.Sorted(maps.Keys(k.cfg.Settings().Items)) {
		it := k.cfg.Settings().Items[name]
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
func (k *Keeper) drill(ctx context.Context, j *queue.Job, vaultName, itemName string) (*control.DrillResult, error) {
	started := k.cfg.Clock()
	primary := k.cfg.Settings().Vaults[vaultName].Keys[0]
	if err := k.cfg.Vaults.TakeAway(vaultName, primary); err != nil {
		return nil, err
	}
	defer k.cfg.Vaults.GiveBack(context.WithoutCancel(ctx), vaultName)
	if k.rotating(vaultName) {
		return nil, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("the keys of vault %s are being rotated", vaultName), Next: "wait for that to end: coffer job list"}
	}
	if err := k.cfg.Vaults.Reopen(ctx, vaultName); err != nil {
		return nil, err
	}
	j.Note("info", fmt.Sprintf("key %s is taken away", primary))
	v, err := k.cfg.Vaults.Open(ctx, vaultName) // opened anew, without it
	if err != nil {
		return nil, fmt.Errorf("open the vault without key %s: %w", primary, err)
	}
	out := &control.DrillResult{Vault: vaultName, Without: primary}
	ring, _ := k.cfg.Keys.Ring(ctx, k.cfg.Vaults.Uses(vaultName))
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
	p, err := k.cfg.Backup(ctx, itemName)
	if err != nil {
		return nil, fmt.Errorf("back up %s without key %s: %w", itemName, primary, err)
	}
	out.Point = p.Name.String()
	if out.Bytes, err = k.cfg.ReadBack(ctx, itemName, p); err != nil {
		return nil, fmt.Errorf("read %s back without key %s: %w", itemName, primary, err)
	}
	out.Seconds = k.cfg.Clock().Sub(started).Seconds()
	return out, nil
}

func ownerOf(r catalog.KeyRecord) string {
	if r.Item == "" {
		return "the vault key"
	}
	return "the secret of item " + r.Item + ","
}
