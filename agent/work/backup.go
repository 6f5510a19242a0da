package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/schedule"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/limit"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/kek"
)

// Backup implements control.Work.
func (d *Desk) Backup(ctx context.Context, req control.BackupRequest) (control.Job, error) {
	j, err := d.StartBackup(control.PeerFrom(ctx).String(), req, Run{})
	if err != nil {
		return control.Job{}, err
	}
	return j.Snapshot(), nil
}

// Run is which run of a policy a backup is; of none if it is zero.
type Run struct {
	Policy string
	Try    schedule.Try
}

// StartBackup starts a backup of an item. The hooks and limits of the policy that the
// item is in are those of all its backups, also where somebody asked for one.
func (d *Desk) StartBackup(by string, req control.BackupRequest, r Run) (*queue.Job, error) {
	cfg, ok := d.cfg.Settings().Items[req.Item]
	if !ok {
		return nil, fault.NotFound("item", req.Item, "coffer item list")
	}
	if req.Input != nil && cfg.Stream == nil {
		return nil, &control.Error{Code: control.CodeBadRequest,
			Message: fmt.Sprintf("item %s is of files, and a stream is none of its points: they would take the places of those that the retention keeps", req.Item),
			Next:    fmt.Sprintf("give the stream an item of its own in the config, as in items.NAME: {vault: %s, stream: {name: dump}}, then: coffer backup NAME --stdin", cfg.Vault)}
	}
	_, p := d.cfg.Settings().PolicyOf(req.Item)
	state := control.Job{Kind: control.KindBackup, Item: req.Item, Policy: r.Policy, Priority: p.Priority, Try: r.Try.Number}
	return d.cfg.Start(by, state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		ctx, ended := d.until(ctx, r.Try.Until)
		defer ended()
		result, err := d.backupJob(ctx, j, req)
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
func (d *Desk) until(ctx context.Context, end time.Time) (_ context.Context, ended func()) {
	if end.IsZero() {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	left := end.Sub(d.cfg.Clock())
	if left <= 0 { // it waited for its turn as long
		cancel(errLate)
		return ctx, func() {}
	}
	late, done := d.cfg.After(left), make(chan struct{})
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
func (d *Desk) backupJob(ctx context.Context, j *queue.Job, req control.BackupRequest) (*control.JobResult, error) {
	began := d.cfg.Clock()
	it, err := d.awaitKeys(ctx, j, func() (*vault.Item, error) { return d.cfg.Vaults.Protected(ctx, req.Item) })
	if err != nil {
		return nil, err
	}
	defer it.Close()
	notes, err := d.cfg.Rules.MayWrap(ctx, it.Vault)
	for _, n := range notes {
		j.Note("warning", n)
	}
	if err != nil {
		return nil, err
	}
	result, err := d.hooked(ctx, j, req.Item, func() (*control.JobResult, error) { return d.backup(ctx, j, it, req) })
	if err == nil {
		d.cfg.Good(req.Item, began)
	}
	return result, err
}

// backup is the work of a backup job.
func (d *Desk) backup(ctx context.Context, j *queue.Job, it *vault.Item, req control.BackupRequest) (*control.JobResult, error) {
	var stream io.Reader
	name := ""
	if req.Input != nil {
		in, err := j.AwaitInput(ctx)
		if err != nil {
			return nil, err
		}
		defer close(in.Done)
		stream, name = in.R, req.Input.Name
	}
	src, err := d.cfg.Source(d.cfg.Settings().Items[req.Item], name, stream)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", req.Item, err)
	}
	if name, p := d.cfg.Settings().PolicyOf(req.Item); name != "" {
		if l := d.cfg.Limiter(name, p.ReadLimit); l != nil {
			src = limit.New(src, l.Wait)
		}
	}
	expected := d.lastSize(ctx, it)
	done := new(backup.Progress)
	j.Follow(func() control.Progress {
		return control.Progress{Phase: "reading", Bytes: int64(done.Bytes.Load()), BytesTotal: expected,
			Entries:  int64(done.Files.Load() + done.Dirs.Load() + done.Others.Load()),
			NewBytes: int64(done.New.Load()), StoredBytes: int64(done.Stored.Load()), Skipped: int64(done.Skipped.Load())}
	})
	ended, err := it.BeginWriting(ctx)
	if err != nil {
		return nil, err
	}
	defer ended()
	cfg, err := d.writing(it, src, done)
	if err != nil {
		return nil, err
	}
	cfg.FullRead, cfg.Tags = req.FullRead, req.Tags
	cfg.BringUp = func(ctx context.Context) (catalog.Synced, error) {
		return it.BringUpWriting(ctx, func(recovered int) {
			j.Note("info", control.Counted(recovered, "pack")+" of an interrupted backup found: what is in there is not stored again")
		})
	}
	p, err := d.run(ctx, it, cfg)
	if err != nil {
		return nil, fault.Of(d.cfg.Vaults.Unlockable(it.Vault.Name, err))
	}
	j.Update(func(s *control.Job) { s.Point, s.Skips = p.Name.String(), skips(p.Skipped) })
	out := point.Wire(it.Vault.Name, p)
	return &control.JobResult{Point: &out}, nil
}

// writing is what all backups of an item have in common.
func (d *Desk) writing(it *vault.Item, src source.Source, done *backup.Progress) (backup.Config, error) {
	level, err := chunk.ParseLevel(d.cfg.Settings().Vaults[it.Vault.Name].Compression)
	return backup.Config{
		Item: it.Item, Packs: it.Vault.Store, Index: it.Index, Source: src, Level: level,
		BringUp:   func(ctx context.Context) (catalog.Synced, error) { return it.BringUpWriting(ctx, func(int) {}) },
		Retention: d.cfg.Vaults.Retention(it.Vault.Name), Retain: it.Retain(),
		Host: d.cfg.Host, Agent: d.cfg.Version, Progress: done, Clock: d.cfg.Clock, Log: d.cfg.Log,
	}, err
}

// run runs a backup of an item, and has its point missed from now on.
func (d *Desk) run(ctx context.Context, it *vault.Item, cfg backup.Config) (*catalog.Point, error) {
	p, err := backup.Run(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := it.Learn(ctx, p); err != nil { // the point is kept, and the next look learns of it
		d.cfg.Log.Warn("a new point is not remembered yet", "item", it.Name(), "point", p.Name, "err", err)
	}
	return p, nil
}

// keyWait is how long a job waits before it asks keys again that do not answer.
const keyWait = 15 * time.Second

// awaitKeys opens what a job needs. While keys do not answer the job pauses, and
// goes on by itself when they do; how long that may last is the vault's state's to
// say. Keys that answer and refuse end it.
func (d *Desk) awaitKeys(ctx context.Context, j *queue.Job, open func() (*vault.Item, error)) (*vault.Item, error) {
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
		if err := d.cfg.Jobs.Pause(ctx, j, d.cfg.After(keyWait)); err != nil {
			return nil, err
		}
	}
}

// lastSize is how much there was in the last point: what progress is measured by.
func (d *Desk) lastSize(ctx context.Context, it *vault.Item) int64 {
	for s, err := range it.Index.Summaries(ctx, catalog.PointQuery{Newest: true}) {
		if err != nil {
			return 0
		}
		if s.State != catalog.PointGone && !s.Unreadable {
			return int64(s.Stats.Bytes)
		}
	}
	return 0
}
