package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/schedule"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/backup/source/limit"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/kek"
)

// Backup implements control.Work.
func (a *Agent) Backup(ctx context.Context, req control.BackupRequest) (control.Job, error) {
	j, err := a.startBackup(control.PeerFrom(ctx).String(), req, run{})
	if err != nil {
		return control.Job{}, err
	}
	return j.Snapshot(), nil
}

// run is which run of a policy a backup is; of none if it is zero.
type run struct {
	policy string
	try    schedule.Try
}

// startBackup starts a backup of an item. The hooks and limits of the policy that the
// item is in are those of all its backups, also where somebody asked for one.
func (a *Agent) startBackup(by string, req control.BackupRequest, r run) (*queue.Job, error) {
	cfg, ok := a.settings().Items[req.Item]
	if !ok {
		return nil, notFound("item", req.Item, "coffer item list")
	}
	level, err := chunk.ParseLevel(a.settings().Vaults[cfg.Vault].Compression)
	if err != nil {
		return nil, err
	}
	_, p := a.settings().PolicyOf(req.Item)
	state := control.Job{Kind: control.KindBackup, Item: req.Item, Policy: r.policy, Priority: p.Priority, Try: r.try.Number}
	return a.start(by, state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		ctx, ended := a.until(ctx, r.try.Until)
		defer ended()
		result, err := a.backupJob(ctx, j, req, level)
		if late := context.Cause(ctx); errors.Is(late, errLate) {
			return nil, late
		}
		return result, err
	}), nil
}

// errLate is the cause with which a run ends whose deadline is over.
var errLate error = &control.Error{Code: control.CodeFailed, Message: "the deadline of the policy is over",
	Next: "what was stored is used by the next backup; give the policy more time (deadline), or see what took so long: coffer job show"}

// until returns a context that ends at a time, if there is one. The caller calls ended.
func (a *Agent) until(ctx context.Context, end time.Time) (_ context.Context, ended func()) {
	if end.IsZero() {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	left := end.Sub(a.Clock())
	if left <= 0 { // it waited for its turn as long
		cancel(errLate)
		return ctx, func() {}
	}
	late, done := a.After(left), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-late:
			cancel(errLate)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// backupJob is the work of a backup job, with all that is around it.
func (a *Agent) backupJob(ctx context.Context, j *queue.Job, req control.BackupRequest, level chunk.Level) (*control.JobResult, error) {
	began := a.Clock()
	it, err := a.awaitKeys(ctx, j, func() (*item, error) { return a.protected(ctx, req.Item) })
	if err != nil {
		return nil, err
	}
	defer it.close()
	notes, err := a.mayWrap(ctx, it.vault)
	for _, n := range notes {
		j.Note("warning", n)
	}
	if err != nil {
		return nil, err
	}
	result, err := a.hooked(ctx, j, req.Item, func() (*control.JobResult, error) { return a.backup(ctx, j, it, req, level) })
	if err == nil {
		a.backedUp(req.Item, began)
	}
	return result, err
}

// backup is the work of a backup job.
func (a *Agent) backup(ctx context.Context, j *queue.Job, it *item, req control.BackupRequest, level chunk.Level) (*control.JobResult, error) {
	var stream Stream
	name := ""
	if req.Input != nil {
		in, err := j.AwaitInput(ctx)
		if err != nil {
			return nil, err
		}
		defer close(in.Done)
		stream, name = in.R, req.Input.Name
	}
	src, err := a.Parts.Source(a.settings().Items[req.Item], name, stream)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", req.Item, err)
	}
	if name, p := a.settings().PolicyOf(req.Item); name != "" {
		if l := a.plan.limiter(name, p.ReadLimit); l != nil {
			src = limit.New(src, l.Wait)
		}
	}
	expected := a.lastSize(ctx, it)
	done := new(backup.Progress)
	j.Follow(func() control.Progress {
		return control.Progress{Phase: "reading", Bytes: int64(done.Bytes.Load()), BytesTotal: expected,
			Entries:  int64(done.Files.Load() + done.Dirs.Load() + done.Others.Load()),
			NewBytes: int64(done.New.Load()), StoredBytes: int64(done.Stored.Load()), Skipped: int64(done.Skipped.Load())}
	})
	ended, err := it.beginWriting(ctx)
	if err != nil {
		return nil, err
	}
	defer ended()
	p, err := backup.Run(ctx, backup.Config{
		Item: it.Item, Packs: it.vault.store, Index: it.index, Source: src, Level: level,
		BringUp: func(ctx context.Context) (catalog.Synced, error) {
			return a.bringUpWriting(ctx, it, func(recovered int) {
				j.Note("info", fmt.Sprintf("%d packs of an interrupted backup found: what is in them is not stored again", recovered))
			})
		},
		Retention: a.retention(it.vault.name), Retain: a.retain(it), FullRead: req.FullRead, Tags: req.Tags, Host: a.host, Agent: a.Program.Version,
		Progress: done, Clock: a.Clock, Log: a.Log,
	})
	if err != nil {
		return nil, Fault(a.unlockable(it.vault.name, err))
	}
	j.Update(func(s *control.Job) { s.Point, s.Skips = p.Name.String(), skips(p.Skipped) })
	out := a.wirePoint(it.vault.name, p)
	return &control.JobResult{Point: &out}, nil
}

// keyWait is how long a job waits before it asks keys again that do not answer.
const keyWait = 15 * time.Second

// awaitKeys opens what a job needs. While keys do not answer the job pauses, and
// goes on by itself when they do; how long that may last is the vault's state's to
// say. Keys that answer and refuse end it.
func (a *Agent) awaitKeys(ctx context.Context, j *queue.Job, open func() (*item, error)) (*item, error) {
	paused := false
	for {
		it, err := open()
		if err == nil && paused {
			j.Note("info", "the keys answer again: going on")
		}
		if err == nil || !errors.Is(err, kek.ErrUnreachable) || errors.Is(err, kek.ErrDenied) || errors.Is(err, kek.ErrMissing) {
			return it, err
		}
		if !paused {
			paused = true
			j.Note("warning", fmt.Sprintf("paused until the keys answer: %v", err))
			j.Follow(func() control.Progress { return control.Progress{Phase: "waiting for keys"} })
		}
		if err := a.jobs.Pause(ctx, j, a.After(keyWait)); err != nil {
			return nil, err
		}
	}
}

// lastSize is how much there was in the last point: what progress is measured by.
func (a *Agent) lastSize(ctx context.Context, it *item) int64 {
	for s, err := range it.index.Summaries(ctx, catalog.PointQuery{Newest: true}) {
		if err != nil {
			return 0
		}
		if s.State != catalog.PointGone && !s.Unreadable {
			return int64(s.Stats.Bytes)
		}
	}
	return 0
}
