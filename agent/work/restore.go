package work

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore"
)

// Restore implements control.Work.
func (d *Desk) Restore(ctx context.Context, req control.RestoreRequest) (control.Job, error) {
	if !filepath.IsAbs(req.Target) {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("target %q is not an absolute path", req.Target)}
	}
	ways := map[control.Overwrite]restore.Overwrite{"": restore.IfDifferent, control.OverwriteIfDifferent: restore.IfDifferent,
		control.OverwriteNever: restore.Never, control.OverwriteAlways: restore.Always}
	overwrite, ok := ways[req.Overwrite]
	if !ok {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("overwrite %q is not if-different, never or always", req.Overwrite)}
	}
	chosen := restore.Selection{Paths: req.Paths, Patterns: req.Patterns}
	if err := chosen.Check(); err != nil {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: err.Error()}
	}
	into, err := d.cfg.Target(req.Target)
	if err != nil {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: err.Error()}
	}
	by := control.PeerFrom(ctx).String()
	it, p, notes, err := d.cfg.Points.OpenNoting(keyring.WithPurpose(ctx, keyring.Purpose{Vault: d.cfg.Settings().Items[req.Item].Vault, Item: req.Item, By: by}), req.Item, req.Point, req.Target)
	if err != nil {
		return control.Job{}, err
	}
	state := control.Job{Kind: control.KindRestore, Item: req.Item, Point: p.Name.String()}
	j := d.cfg.Start(by, state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		e := audit.Event{Kind: audit.RestoreStarted, Vault: it.Vault.Name, Item: req.Item, Point: p.Name.String(), By: by, Job: j.ID(), Fields: map[string]string{"target": req.Target}}
		if err := d.cfg.Record(ctx, e); err != nil {
			return nil, err
		}
		for _, n := range notes {
			j.Note("warning", n)
		}
		done := new(restore.Progress)
		total := int64(0)
		if len(req.Paths) == 0 && len(req.Patterns) == 0 {
			total = int64(p.Stats.Bytes)
		}
		j.Follow(func() control.Progress {
			return control.Progress{Phase: "writing", Bytes: int64(done.Bytes.Load()), BytesTotal: total,
				Entries: int64(done.Files.Load() + done.Dirs.Load() + done.Others.Load()), Skipped: int64(done.Skipped.Load())}
		})
		started := d.cfg.Clock()
		result, err := restore.Run(ctx, restore.Config{
			Point: p, Reader: it.Reader, Target: into, Select: chosen, Overwrite: overwrite,
			Delete: req.Delete, DryRun: req.DryRun, NumericOwner: req.NumericOwner, Progress: done,
		})
		j.Update(func(s *control.Job) { s.Skips = skips(result.Skipped) })
		for _, n := range it.Unindexed() {
			if !slices.Contains(notes, n) { // since it began
				j.Note("warning", n)
			}
		}
		e.Kind, e.Outcome = audit.RestoreDone, "done"
		if err != nil {
			e.Outcome, e.Says = "failed", err.Error()
		}
		if err := errors.Join(err, d.cfg.Record(ctx, e)); err != nil {
			return nil, fault.Names{Item: req.Item, Point: p.Name.String()}.Of(err)
		}
		out := control.RestoreResult{Target: req.Target, DryRun: req.DryRun,
			Files: int64(done.Files.Load() + done.Others.Load()), Dirs: int64(done.Dirs.Load()),
			Deleted: int64(done.Deleted.Load()), Bytes: int64(done.Bytes.Load()), WrittenBytes: int64(done.Written.Load()),
			Seconds: d.cfg.Clock().Sub(started).Seconds()}
		if overwrite == restore.Never {
			out.Kept = int64(done.Kept.Load())
		} else {
			out.Unchanged = int64(done.Kept.Load())
		}
		return &control.JobResult{Restore: &out}, nil
	})
	d.cfg.Jobs.Then(j, it.Close)
	return j.Snapshot(), nil
}

func skips(in []catalog.Skip) []control.Skip {
	var out []control.Skip
	for _, s := range in {
		if s.Fault {
			out = append(out, control.Skip{Path: string(s.Path), Reason: s.Reason})
		}
	}
	return out
}
