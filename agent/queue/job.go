package queue

import (
	"context"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// MaxNotes is how many notes of a job are kept for those who come late.
const MaxNotes = 1000

// progressEvery is how often a follower is told how far a job is.
const progressEvery = 200 * time.Millisecond

// Job is one job. Followers wait on changed, which is closed and replaced at every
// change.
type Job struct {
	id     int64
	clock  func() time.Time
	cancel context.CancelCauseFunc
	input  chan Input // of a backup whose data the caller sends
	ended  chan struct{}
	turn   *turn // once it runs

	mu       sync.Mutex
	state    control.Job
	progress func() control.Progress
	after    context.CancelCauseFunc // ends what goes on when the job is cancelled; nil: nothing does
	notes    []control.Event
	seq      uint64
	changed  chan struct{}
}

func newJob(id int64, state control.Job, clock func() time.Time) *Job {
	return &Job{id: id, clock: clock, cancel: func(error) {}, input: make(chan Input), ended: make(chan struct{}),
		changed: make(chan struct{}), state: state}
}

// ID returns the job's number.
func (j *Job) ID() int64 { return j.id }

// Cancel asks the job to stop, and what it does After that.
func (j *Job) Cancel() {
	j.cancel(errCancelled)
	j.mu.Lock()
	after := j.after
	j.mu.Unlock()
	if after != nil {
		after(errCancelled)
	}
}

// After returns a context for what a job has to do also when it was cancelled: a Cancel
// that comes from now on ends it, and no other end of the job does. The job calls done.
func (j *Job) After(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.after = cancel
	return ctx, func() {
		cancel(nil)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.after = nil
	}
}

// Update changes the job's state and tells its followers.
func (j *Job) Update(change func(*control.Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.state)
	j.tell()
}

// tell wakes the followers. The caller holds mu.
func (j *Job) tell() {
	j.seq++
	close(j.changed)
	j.changed = make(chan struct{})
}

// Follow lets the job's progress be asked for.
func (j *Job) Follow(progress func() control.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.progress = progress
}

// Note says something to people: level is "info" or "warning".
func (j *Job) Note(level, message string) {
	now := j.clock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tell()
	if len(j.notes) < MaxNotes {
		j.notes = append(j.notes, control.Event{Seq: j.seq, Time: now, Note: &control.Note{Level: level, Message: message}})
	}
}

// finish ends the job.
func (j *Job) finish(now time.Time, result *control.JobResult, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.progress != nil {
		j.state.Progress = j.progress()
	}
	j.progress = nil
	j.state.Ended, j.state.Result = now, result
	switch {
	case err == nil:
		j.state.State = control.JobDone
	case isCancelled(err):
		j.state.State, j.state.Error = control.JobCancelled, control.AsError(err)
	default:
		j.state.State, j.state.Error = control.JobFailed, control.AsError(err)
	}
	j.tell()
}

// Snapshot returns the job as it is now.
func (j *Job) Snapshot() control.Job {
	s, _, _ := j.look()
	return s
}

// look returns the job as it is now, what was noted, and what is closed at the next
// change. The notes are not to be changed.
func (j *Job) look() (control.Job, []control.Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.state
	if j.progress != nil {
		s.Progress = j.progress()
	}
	return s, slices.Clip(j.notes), j.changed
}

// Events follows the job until it ends, as control.Jobs says.
func (j *Job) Events(ctx context.Context, after uint64) iter.Seq2[control.Event, error] {
	return func(yield func(control.Event, error) bool) {
		first, notes, _ := j.look()
		told := first.State
		late := len(notes) > 0 && notes[len(notes)-1].Seq > after
		if !yield(control.Event{Time: j.clock(), Job: &first}, nil) || told.Ended() && !late {
			return
		}
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			state, notes, changed := j.look()
			for _, n := range notes {
				if n.Seq > after {
					after = n.Seq
					if !yield(n, nil) {
						return
					}
				}
			}
			event := control.Event{Seq: after, Time: j.clock(), Progress: &state.Progress}
			if state.State != told || state.State.Ended() {
				told = state.State
				event.Progress, event.Job = nil, &state
			}
			if !yield(event, nil) || told.Ended() {
				return
			}
			select {
			case <-changed:
			case <-tick.C:
			case <-ctx.Done():
				yield(control.Event{}, ctx.Err())
				return
			}
		}
	}
}

// Input is a caller's data. Who has read it closes Done.
type Input struct {
	R    io.Reader
	Done chan struct{}
}

// inputWait is how long a job waits for the data that its caller is to send.
const inputWait = time.Minute

// AwaitInput waits for the caller's data.
func (j *Job) AwaitInput(ctx context.Context) (Input, error) {
	late := time.NewTimer(inputWait)
	defer late.Stop()
	select {
	case in := <-j.input:
		return in, nil
	case <-late.C:
		return Input{}, &control.Error{Code: control.CodeFailed, Message: "the data did not come: whoever asked for this backup is gone"}
	case <-ctx.Done():
		return Input{}, ctx.Err()
	}
}

// Send gives the job the caller's data, and returns when it has ended: with what it
// failed with, if it did.
func (j *Job) Send(ctx context.Context, r io.Reader) error {
	in := Input{R: r, Done: make(chan struct{})}
	select {
	case j.input <- in:
	case <-j.ended:
		return &control.Error{Code: control.CodeConflict, Message: "the job takes no data (any more)"}
	case <-ctx.Done():
		return ctx.Err()
	}
	select { // the job has r until it has read it or ended
	case <-in.Done:
	case <-j.ended:
	}
	<-j.ended
	if s := j.Snapshot(); s.Error != nil {
		return s.Error
	}
	return nil
}
