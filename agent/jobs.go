package agent

import (
	"context"
	"io"
	"iter"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/queue"
)

// start queues a job. What it does with keys is done for it.
func (a *Agent) start(by string, state control.Job, do queue.Work) *queue.Job {
	return a.jobs.Start(by, state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		a.tell.JobBegan(state)
		defer a.changedBy(state) // before anybody hears that it has ended
		asks := keyring.Purpose{Vault: state.Vault, Item: state.Item, By: by, Job: j.ID()}
		return do(keyring.WithPurpose(ctx, asks), j)
	})
}

// Jobs implements control.Jobs.
func (a *Agent) Jobs(_ context.Context, filter control.JobFilter) ([]control.Job, error) {
	return a.jobs.List(filter), nil
}

// Job implements control.Jobs.
func (a *Agent) Job(_ context.Context, id int64) (control.Job, error) {
	j, err := a.jobs.Get(id)
	if err != nil {
		return control.Job{}, err
	}
	return j.Snapshot(), nil
}

// Cancel implements control.Jobs.
func (a *Agent) Cancel(_ context.Context, id int64) error {
	j, err := a.jobs.Get(id)
	if err == nil {
		j.Cancel()
	}
	return err
}

// Input implements control.Jobs.
func (a *Agent) Input(ctx context.Context, id int64, r io.Reader) error {
	j, err := a.jobs.Get(id)
	if err != nil {
		return err
	}
	return j.Send(ctx, r)
}

// Events implements control.Jobs.
func (a *Agent) Events(ctx context.Context, id int64, after uint64) iter.Seq2[control.Event, error] {
	j, err := a.jobs.Get(id)
	if err != nil {
		return func(yield func(control.Event, error) bool) { yield(control.Event{}, err) }
	}
	return j.Events(ctx, after)
}
