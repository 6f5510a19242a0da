package controltest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// Asked returns the requests that started jobs or changed something, in order.
func (b *Backend) Asked() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.asked)
}

// note remembers a request.
func (b *Backend) note(req any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, req)
}

// InputOf returns what was read as the input of a job.
func (b *Backend) InputOf(id int64) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.inputs[id]
}

// Backup implements control.Work.
func (b *Backend) Backup(ctx context.Context, req control.BackupRequest) (control.Job, error) {
	return b.begin(ctx, req, control.Job{Kind: control.KindBackup, Item: req.Item})
}

// Restore implements control.Work.
func (b *Backend) Restore(ctx context.Context, req control.RestoreRequest) (control.Job, error) {
	return b.begin(ctx, req, control.Job{Kind: control.KindRestore, Item: req.Item, Point: req.Point})
}

// Verify implements control.Work.
func (b *Backend) Verify(ctx context.Context, req control.VerifyRequest) (control.Job, error) {
	return b.begin(ctx, req, control.Job{Kind: control.KindVerify, Item: req.Item, Point: req.Point})
}

// begin starts a job. It runs when somebody first follows it.
func (b *Backend) begin(ctx context.Context, req any, j control.Job) (control.Job, error) {
	if j.Item != "" {
		if _, err := b.Item(ctx, j.Item); err != nil {
			return control.Job{}, err
		}
	}
	if j.Vault != "" {
		if _, err := b.Vault(ctx, j.Vault); err != nil {
			return control.Job{}, err
		}
	}
	run := &job{Job: j, play: Play{End: control.Job{State: control.JobDone}}, changed: make(chan struct{})}
	if b.Script != nil {
		run.play = b.Script(j.Kind, cmp.Or(j.Item, j.Vault))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, req)
	run.ID = int64(len(b.jobs) + 118)
	run.State, run.Queued, run.Started = control.JobRunning, b.Now, b.Now
	run.By = control.PeerFrom(ctx).String()
	b.jobs = append(b.jobs, run)
	first := run.Job
	return first, nil
}

// perform plays a job up to its end or to where it waits, once. Callers hold the
// mutex.
func (j *job) perform(b *Backend) {
	if j.played || j.State.Ended() {
		return
	}
	j.played = true
	for _, e := range j.play.Events {
		j.add(b, e)
	}
	if !j.play.Waits {
		j.end(b)
	}
}

// add appends an event. Callers hold the mutex.
func (j *job) add(b *Backend, e control.Event) {
	e.Seq = uint64(len(j.events) + 1)
	e.Time = b.Now.Add(j.play.Step * time.Duration(len(j.events)))
	if e.Progress != nil {
		j.Progress = *e.Progress
	}
	j.events = append(j.events, e)
	close(j.changed)
	j.changed = make(chan struct{})
}

// end ends the job as its play says. Callers hold the mutex.
func (j *job) end(b *Backend) {
	if j.State.Ended() {
		return
	}
	end := j.play.End
	j.State, j.Result, j.Error, j.Skips, j.Output = end.State, end.Result, end.Error, end.Skips, end.Output
	if end.Point != "" {
		j.Point = end.Point
	}
	if end.Progress != (control.Progress{}) {
		j.Progress = end.Progress
	}
	j.Ended = b.Now.Add(j.play.Step * time.Duration(len(j.events)))
	done := j.Job
	j.add(b, control.Event{Job: &done})
}

func (b *Backend) find(id int64) (*job, error) {
	for _, j := range b.jobs {
		if j.ID == id {
			return j, nil
		}
	}
	return nil, notFound("job", strconv.FormatInt(id, 10), "job list")
}

// Jobs implements control.Jobs.
func (b *Backend) Jobs(_ context.Context, filter control.JobFilter) ([]control.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []control.Job{}
	for _, j := range slices.Backward(b.jobs) {
		if (filter.Item == "" || j.Item == filter.Item) && (filter.State == "" || j.State == filter.State) {
			out = append(out, j.Job)
		}
	}
	return out, nil
}

// Job implements control.Jobs.
func (b *Backend) Job(_ context.Context, id int64) (control.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return control.Job{}, err
	}
	return j.Job, nil
}

// Cancel implements control.Jobs.
func (b *Backend) Cancel(_ context.Context, id int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil || j.State.Ended() {
		return err
	}
	j.play.End = control.Job{State: control.JobCancelled, Error: &control.Error{
		Code: control.CodeCancelled, Message: fmt.Sprintf("job %d was cancelled", id),
	}}
	j.end(b)
	return nil
}

// Events implements control.Jobs.
func (b *Backend) Events(ctx context.Context, id int64, after uint64) iter.Seq2[control.Event, error] {
	return func(yield func(control.Event, error) bool) {
		b.mu.Lock()
		j, err := b.find(id)
		if err != nil {
			b.mu.Unlock()
			yield(control.Event{}, err)
			return
		}
		now := j.Job
		j.perform(b)
		b.mu.Unlock()
		if !yield(control.Event{Seq: after, Time: b.Now, Job: &now}, nil) || now.State.Ended() {
			return
		}
		for n := int(after); ; {
			b.mu.Lock()
			news, changed, ended := j.events[n:], j.changed, j.State.Ended()
			b.mu.Unlock()
			for _, e := range news {
				if !yield(e, nil) {
					return
				}
			}
			if n += len(news); ended {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(control.Event{}, ctx.Err())
				return
			}
		}
	}
}

// Input implements control.Jobs: the job ends when its input does.
func (b *Backend) Input(_ context.Context, id int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	j, findErr := b.find(id)
	if findErr != nil {
		return findErr
	}
	if err != nil {
		j.play.End = control.Job{State: control.JobFailed, Error: &control.Error{
			Code: control.CodeFailed, Message: "the input is not whole: " + err.Error(),
		}}
	} else {
		if b.inputs == nil {
			b.inputs = map[int64][]byte{}
		}
		b.inputs[id] = data
	}
	j.end(b)
	return err
}
