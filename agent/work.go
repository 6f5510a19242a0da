package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
)

// Backup implements control.Work.
func (a *Agent) Backup(ctx context.Context, req control.BackupRequest) (control.Job, error) {
	cfg, ok := a.Settings.Items[req.Item]
	if !ok {
		return control.Job{}, notFound("item", req.Item, "coffer item list")
	}
	level, err := chunk.ParseLevel(a.Settings.Vaults[cfg.Vault].Compression)
	if err != nil {
		return control.Job{}, err
	}
	j := a.jobs.start(control.PeerFrom(ctx).String(), control.Job{Kind: control.KindBackup, Item: req.Item}, func(ctx context.Context, j *job) (*control.JobResult, error) {
		it, err := a.awaitKeys(ctx, j, func() (*item, error) { return a.protected(ctx, req.Item) })
		if err != nil {
			return nil, err
		}
		defer it.close()
		notes, err := a.mayWrap(ctx, it.vault)
		for _, n := range notes {
			j.note(a.Clock(), "warning", n)
		}
		if err != nil {
			return nil, err
		}
		return a.backup(ctx, j, it, req, level)
	})
	return j.snapshot(), nil
}

// backup is the work of a backup job.
func (a *Agent) backup(ctx context.Context, j *job, it *item, req control.BackupRequest, level chunk.Level) (*control.JobResult, error) {
	var stream Stream
	name := ""
	if req.Input != nil {
		in, err := j.await(ctx)
		if err != nil {
			return nil, err
		}
		defer close(in.done)
		stream, name = in.r, req.Input.Name
	}
	src, err := a.Parts.Source(a.Settings.Items[req.Item], name, stream)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", req.Item, err)
	}
	expected := a.lastSize(ctx, it)
	done := new(backup.Progress)
	j.follow(func() control.Progress {
		return control.Progress{Phase: "reading", Bytes: int64(done.Bytes.Load()), BytesTotal: expected,
			Entries:  int64(done.Files.Load() + done.Dirs.Load() + done.Others.Load()),
			NewBytes: int64(done.New.Load()), StoredBytes: int64(done.Stored.Load()), Skipped: int64(done.Skipped.Load())}
	})
	ended, err := it.beginWriting(ctx, a.Log, func(recovered int) {
		j.note(a.Clock(), "info", fmt.Sprintf("%d packs of an interrupted backup found: what is in them is not stored again", recovered))
	})
	if err != nil {
		return nil, err
	}
	defer ended()
	p, err := backup.Run(ctx, backup.Config{
		Item: it.Item, Packs: it.vault.store, Index: it.index, Source: src, Level: level,
		Retention: a.retention(it.vault.name), FullRead: req.FullRead, Tags: req.Tags, Host: a.host, Agent: a.Program.Version,
		Progress: done, Clock: a.Clock, Log: a.Log,
	})
	if err != nil {
		return nil, Fault(err)
	}
	j.update(func(s *control.Job) { s.Point, s.Skips = p.Name.String(), skips(p.Skipped) })
	out := a.wirePoint(it.vault.name, p)
	return &control.JobResult{Point: &out}, nil
}

// keyWait is how long a job waits before it asks keys again that do not answer.
const keyWait = 15 * time.Second

// awaitKeys opens what a job needs. While keys do not answer the job pauses, and
// goes on by itself when they do; how long that may last is the vault's state's to
// say. Keys that answer and refuse end it.
func (a *Agent) awaitKeys(ctx context.Context, j *job, open func() (*item, error)) (*item, error) {
	paused := false
	for {
		it, err := open()
		if err == nil && paused {
			j.note(a.Clock(), "info", "the keys answer again: going on")
		}
		if err == nil || !errors.Is(err, kek.ErrUnreachable) || errors.Is(err, kek.ErrDenied) || errors.Is(err, kek.ErrMissing) {
			return it, err
		}
		if !paused {
			paused = true
			j.note(a.Clock(), "warning", fmt.Sprintf("paused until the keys answer: %v", err))
			j.follow(func() control.Progress { return control.Progress{Phase: "waiting for keys"} })
		}
		if err := a.jobs.pause(ctx, j, a.After(keyWait)); err != nil {
			return nil, err
		}
	}
}

// retention is what the vault's store is asked for.
func (a *Agent) retention(vault string) store.Retention {
	lock := a.Settings.Vaults[vault].Lock
	if lock == nil {
		return store.Retention{}
	}
	return store.Retention{Until: a.Clock().AddDate(0, 0, lock.Days), Compliance: lock.Mode == "compliance"}
}

// lastSize is how much there was in the last point: what progress is measured by.
func (a *Agent) lastSize(ctx context.Context, it *item) int64 {
	names, err := it.Points(ctx)
	if err != nil || len(names) == 0 {
		return 0
	}
	p, err := it.point(ctx, names[len(names)-1])
	if err != nil {
		return 0
	}
	return int64(p.Stats.Bytes)
}

// inputWait is how long a job waits for the data that its caller is to send.
const inputWait = time.Minute

// await waits for the caller's data.
func (j *job) await(ctx context.Context) (input, error) {
	late := time.NewTimer(inputWait)
	defer late.Stop()
	select {
	case in := <-j.input:
		return in, nil
	case <-late.C:
		return input{}, &control.Error{Code: control.CodeFailed, Message: "the data did not come: whoever asked for this backup is gone"}
	case <-ctx.Done():
		return input{}, ctx.Err()
	}
}

// Restore implements control.Work.
func (a *Agent) Restore(ctx context.Context, req control.RestoreRequest) (control.Job, error) {
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
	into, err := a.Parts.Target(req.Target)
	if err != nil {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: err.Error()}
	}
	by := control.PeerFrom(ctx).String()
	it, p, err := a.open(keyring.WithPurpose(ctx, keyring.Purpose{Vault: a.Settings.Items[req.Item].Vault, Item: req.Item, By: by}), req.Item, req.Point, req.Target)
	if err != nil {
		return control.Job{}, err
	}
	state := control.Job{Kind: control.KindRestore, Item: req.Item, Point: p.Name.String()}
	j := a.jobs.start(by, state, func(ctx context.Context, j *job) (*control.JobResult, error) {
		e := audit.Event{Kind: audit.RestoreStarted, Vault: it.vault.name, Item: req.Item, Point: p.Name.String(), By: by, Job: j.id, Fields: map[string]string{"target": req.Target}}
		if err := a.record(ctx, e); err != nil {
			return nil, err
		}
		done := new(restore.Progress)
		total := int64(0)
		if len(req.Paths) == 0 && len(req.Patterns) == 0 {
			total = int64(p.Stats.Bytes)
		}
		j.follow(func() control.Progress {
			return control.Progress{Phase: "writing", Bytes: int64(done.Bytes.Load()), BytesTotal: total,
				Entries: int64(done.Files.Load() + done.Dirs.Load() + done.Others.Load()), Skipped: int64(done.Skipped.Load())}
		})
		started := a.Clock()
		result, err := restore.Run(ctx, restore.Config{
			Point: p, Reader: it.reader, Target: into, Select: chosen, Overwrite: overwrite,
			Delete: req.Delete, DryRun: req.DryRun, NumericOwner: req.NumericOwner, Progress: done, Log: a.Log,
		})
		j.update(func(s *control.Job) { s.Skips = skips(result.Skipped) })
		e.Kind, e.Outcome = audit.RestoreDone, "done"
		if err != nil {
			e.Outcome, e.Says = "failed", err.Error()
		}
		if err := errors.Join(err, a.record(ctx, e)); err != nil {
			return nil, Fault(err)
		}
		out := control.RestoreResult{Target: req.Target, DryRun: req.DryRun,
			Files: int64(done.Files.Load() + done.Others.Load()), Dirs: int64(done.Dirs.Load()),
			Deleted: int64(done.Deleted.Load()), Bytes: int64(done.Bytes.Load()), WrittenBytes: int64(done.Written.Load()),
			Seconds: a.Clock().Sub(started).Seconds()}
		if overwrite == restore.Never {
			out.Kept = int64(done.Kept.Load())
		} else {
			out.Unchanged = int64(done.Kept.Load())
		}
		return &control.JobResult{Restore: &out}, nil
	})
	a.jobs.wg.Go(func() { // the item is kept open until the job has ended, also if it never ran
		<-j.ended
		it.close()
	})
	return j.snapshot(), nil
}

// Verify implements control.Work.
func (a *Agent) Verify(ctx context.Context, req control.VerifyRequest) (control.Job, error) {
	if req.Level != "" && req.Level != control.VerifyData && req.Level != control.VerifyStructure {
		return control.Job{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("level %q is not data or structure", req.Level)}
	}
	if req.Item != "" {
		if _, ok := a.Settings.Items[req.Item]; !ok {
			return control.Job{}, notFound("item", req.Item, "coffer item list")
		}
	}
	state := control.Job{Kind: control.KindVerify, Item: req.Item, Point: req.Point}
	j := a.jobs.start(control.PeerFrom(ctx).String(), state, func(ctx context.Context, j *job) (*control.JobResult, error) {
		return a.verify(ctx, j, req)
	})
	return j.snapshot(), nil
}

// verify is the work of a verify job.
func (a *Agent) verify(ctx context.Context, j *job, req control.VerifyRequest) (*control.JobResult, error) {
	started := a.Clock()
	done := new(restore.VerifyProgress)
	j.follow(func() control.Progress {
		return control.Progress{Phase: "checking", Bytes: int64(done.Bytes.Load()), Entries: int64(done.Packs.Load()), Skipped: int64(done.Damaged.Load())}
	})
	out := &control.VerifyResult{}
	note := func(findings []restore.Finding) {
		for _, f := range findings {
			if len(out.Faults) < maxNotes {
				line := string(f.Object)
				if f.Path != "" {
					line += " " + f.Path
				}
				out.Faults = append(out.Faults, line+": "+f.Err.Error())
			}
		}
	}
	checked := make(map[string]bool)
	for _, name := range a.itemNames(req.Item) {
		if vault := a.Settings.Items[name].Vault; !checked[vault] {
			checked[vault] = true
			v, err := a.vault(ctx, vault)
			if err != nil {
				return nil, err
			}
			findings, err := restore.VerifyRecords(ctx, v.vault)
			if err != nil {
				return nil, Fault(err)
			}
			note(findings)
		}
		findings, err := a.verifyItem(ctx, name, req, done)
		if errors.Is(err, catalog.ErrNoItem) && req.Item == "" {
			continue // nothing there yet
		}
		if err != nil {
			return nil, Fault(err)
		}
		note(findings)
	}
	out.Points, out.Objects, out.Files = int64(done.Points.Load()), int64(done.Packs.Load()), int64(done.Files.Load())
	out.ReadBytes, out.Seconds = int64(done.Bytes.Load()), a.Clock().Sub(started).Seconds()
	result := &control.JobResult{Verify: out}
	if len(out.Faults) > 0 {
		j.update(func(s *control.Job) { s.Result = result })
		return result, &control.Error{Code: control.CodeDamaged, Message: fmt.Sprintf("%d faults found, the first in %s", len(out.Faults), out.Faults[0]),
			Next: fmt.Sprintf("see all of them: coffer job show %d; make a fresh point from what is still there: coffer backup ITEM --full-read", j.id)}
	}
	return result, nil
}

func (a *Agent) verifyItem(ctx context.Context, name string, req control.VerifyRequest, done *restore.VerifyProgress) ([]restore.Finding, error) {
	it, err := a.existing(ctx, name)
	if err != nil {
		return nil, err
	}
	defer it.close()
	cfg := restore.VerifyConfig{Item: it.Item, Objects: it.vault.store, Reader: it.reader, Structure: req.Level == control.VerifyStructure, Progress: done}
	if req.Point != "" {
		p, err := a.pick(ctx, it, req.Point, "")
		if err != nil {
			return nil, err
		}
		cfg.Points = []catalog.PointName{p.Name}
	}
	return restore.Verify(ctx, cfg)
}

// Jobs implements control.Jobs.
func (a *Agent) Jobs(_ context.Context, filter control.JobFilter) ([]control.Job, error) {
	return a.jobs.list(filter), nil
}

// Job implements control.Jobs.
func (a *Agent) Job(_ context.Context, id int64) (control.Job, error) {
	j, err := a.jobs.get(id)
	if err != nil {
		return control.Job{}, err
	}
	return j.snapshot(), nil
}

// Cancel implements control.Jobs.
func (a *Agent) Cancel(_ context.Context, id int64) error {
	j, err := a.jobs.get(id)
	if err == nil {
		j.cancel(errCancelled)
	}
	return err
}

// Input implements control.Jobs.
func (a *Agent) Input(ctx context.Context, id int64, r io.Reader) error {
	j, err := a.jobs.get(id)
	if err != nil {
		return err
	}
	in := input{r: r, done: make(chan error)}
	select {
	case j.input <- in:
	case <-j.ended:
		return &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("job %d takes no data (any more)", id)}
	case <-ctx.Done():
		return ctx.Err()
	}
	select { // the job has r until it has read it or ended
	case <-in.done:
	case <-j.ended:
	}
	<-j.ended
	if s := j.snapshot(); s.Error != nil {
		return s.Error
	}
	return nil
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

// wirePoint is a point as callers see it.
func (a *Agent) wirePoint(vault string, p *catalog.Point) control.Point {
	s := p.Stats
	return control.Point{ID: p.Name.String(), Item: p.Item, Vault: vault, Time: p.Name.Time(), Host: p.Host, Kind: p.Kind, Tags: p.Tags,
		Stats: control.PointStats{Files: int64(s.Files + s.Others), Dirs: int64(s.Dirs), SourceBytes: int64(s.Bytes), ReadBytes: int64(s.Read),
			NewBytes: int64(s.New), StoredBytes: int64(s.Stored), Changed: int64(s.Changed), Changing: int64(s.Unquiet),
			Skipped: int64(s.Skipped), Seconds: time.Duration(p.Ended - p.Started).Seconds()}}
}
