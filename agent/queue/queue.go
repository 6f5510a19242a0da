// Package queue is the jobs of the agent: what waits, what runs, and what is
// remembered of what ran.
//
// Invariants:
//   - At most so many jobs run at once, and beside them one prune; of each subject one
//     (Subject).
//   - Of those that could run, the one of the highest priority goes first, and of one
//     priority the one that came first; but who has waited for Patience goes before both.
//   - A job that was started ends, whatever happens to the process: what a crash cut off
//     is there afterwards as a job that failed.
//   - Nothing hangs on the records: they are for people, and losing them loses no backup.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// Config of a Queue. Dir, Clock and Log must be set.
type Config struct {
	Dir   string // where jobs are remembered
	Clock func() time.Time
	Log   *slog.Logger
	Slots int // how many run at once; 0 is DefaultSlots
	Keep  int // how many are remembered, besides those that have not ended; 0 is Remembered
	// Ended, if set, is told of every job that has ended. It must not wait.
	Ended func(control.Job)
}

// DefaultSlots is how many jobs run at once unless said otherwise.
const DefaultSlots = 2

// Behind is the priority of what is done to vaults: backups go first.
const Behind = -100

// Remembered is how many jobs that have ended are kept, the last ones.
const Remembered = 1000

// ErrStopping is the cause with which jobs end when the agent stops.
var ErrStopping error = &control.Error{Code: control.CodeCancelled, Message: "the agent was stopped",
	Next: "run the job again; a backup goes on where this one stopped"}

var errCancelled = &control.Error{Code: control.CodeCancelled, Message: "cancelled by request"}

// Work is what a job does. Its error says how the job ended: control.CodeCancelled is
// not a failure.
type Work func(ctx context.Context, j *Job) (*control.JobResult, error)

// Queue is safe for concurrent use.
type Queue struct {
	cfg  Config
	stop context.Context
	halt context.CancelCauseFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	all     map[int64]*Job
	past    []int64 // those that have ended, as they ended
	last    int64
	work    lane
	prunes  lane
	busy    map[string]bool // subjects that a job works on, or that are held
	waiting []*turn
}

// Open reads what is remembered. Jobs get the values of ctx, and not its end: Stop ends
// them.
func Open(ctx context.Context, cfg Config) (*Queue, error) {
	cfg.Keep = cmp.Or(cfg.Keep, Remembered)
	q := &Queue{cfg: cfg, all: make(map[int64]*Job), work: lane{most: cmp.Or(cfg.Slots, DefaultSlots)}, prunes: lane{most: 1}, busy: make(map[string]bool)}
	q.stop, q.halt = context.WithCancelCause(context.WithoutCancel(ctx))
	return q, q.read()
}

// SetSlots changes how many jobs run at once. Those that run go on.
func (q *Queue) SetSlots(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.work.most = cmp.Or(n, DefaultSlots)
	q.admit()
}

// Start queues a job. state says what it is about; number, state and times are the
// queue's to fill in.
func (q *Queue) Start(by string, state control.Job, do Work) *Job {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	ctx, cancel := context.WithCancelCause(q.stop)
	j := newJob(q.last, state, q.cfg.Clock)
	j.cancel = cancel
	j.state.ID, j.state.By, j.state.State, j.state.Queued = j.id, by, control.JobQueued, q.cfg.Clock()
	q.all[j.id] = j
	q.save(j)
	t := &turn{job: j.id, since: j.state.Queued, priority: state.Priority, subject: Subject(state), lane: &q.work, granted: make(chan struct{})}
	if state.Kind == control.KindPrune {
		t.lane = &q.prunes
	}
	q.waiting = append(q.waiting, t)
	q.admit()
	q.wg.Go(func() {
		defer cancel(nil)
		q.run(ctx, j, t, do)
	})
	return j
}

// run waits for the job's turn and does it.
func (q *Queue) run(ctx context.Context, j *Job, t *turn, do Work) {
	var result *control.JobResult
	err := q.await(ctx, t)
	if err == nil {
		j.turn = t
		j.Update(func(s *control.Job) { s.State, s.Started = control.JobRunning, q.cfg.Clock() })
		q.save(j)
		q.cfg.Log.Info("job started", "job", j.id, "kind", j.state.Kind, "item", j.state.Item)
		result, err = do(ctx, j)
		q.leave(t)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	j.finish(q.cfg.Clock(), result, err)
	q.save(j)
	q.remember(j.id)
	s := j.Snapshot()
	attrs := []any{"job", j.id, "kind", s.Kind, "item", s.Item, "state", s.State, "seconds", s.Ended.Sub(cmp.Or(s.Started, s.Ended)).Seconds()}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	q.cfg.Log.Info("job ended", attrs...)
	close(j.ended)
	if q.cfg.Ended != nil {
		q.cfg.Ended(s)
	}
}

// Then runs f once the job has ended, also if it never ran. Stop waits for it.
func (q *Queue) Then(j *Job, f func()) {
	q.wg.Go(func() {
		<-j.ended
		f()
	})
}

// Get returns a job. CodeNotFound if there is none of that number.
func (q *Queue) Get(id int64) (*Job, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j, ok := q.all[id]; ok {
		return j, nil
	}
	return nil, &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("there is no job %d", id), Next: "see what there is: coffer job list"}
}

// listed is how many jobs are listed unless the caller says otherwise.
const listed = 100

// List returns jobs, the newest first.
func (q *Queue) List(filter control.JobFilter) []control.Job {
	q.mu.Lock()
	all := make([]*Job, 0, len(q.all))
	for _, j := range q.all {
		all = append(all, j)
	}
	q.mu.Unlock()
	slices.SortFunc(all, func(a, b *Job) int { return cmp.Compare(b.id, a.id) })
	limit := cmp.Or(filter.Limit, listed)
	var out []control.Job
	for _, j := range all {
		s := j.Snapshot()
		s.Skips, s.Output = nil, ""
		if (filter.Item == "" || s.Item == filter.Item) && (filter.State == "" || s.State == filter.State) {
			out = append(out, s)
		}
		if len(out) == limit {
			break
		}
	}
	return out
}

// Running tells whether a job that which picks has not ended.
func (q *Queue) Running(which func(control.Job) bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pick(which)) > 0
}

// pick returns the jobs that which picks and that have not ended. The caller holds mu.
func (q *Queue) pick(which func(control.Job) bool) []*Job {
	var out []*Job
	for _, j := range q.all {
		if s := j.Snapshot(); !s.State.Ended() && which(s) {
			out = append(out, j)
		}
	}
	return out
}

// End cancels the jobs that which picks, and returns when they have ended or ctx is
// done.
func (q *Queue) End(ctx context.Context, which func(control.Job) bool, cause error) {
	q.mu.Lock()
	ending := q.pick(which)
	q.mu.Unlock()
	for _, j := range ending {
		j.cancel(cause)
	}
	for _, j := range ending {
		select {
		case <-j.ended:
		case <-ctx.Done():
			return
		}
	}
}

// Stop ends all jobs at a safe point with ErrStopping, and returns when all have ended.
// Nobody starts one any more.
func (q *Queue) Stop() {
	q.halt(ErrStopping)
	q.wg.Wait()
}

// Subject is what no other job works on at the same time: an item, or the keys of a
// vault. A prune is beside both, since it holds up no backup, and so is a verification
// of a whole vault.
func Subject(j control.Job) string {
	subject := j.Item
	if j.Vault != "" && j.Item == "" {
		subject = "vault " + j.Vault // no item has a space in its name
	}
	if j.Kind == control.KindPrune || j.Kind == control.KindVerify && j.Item == "" {
		return j.Kind + " " + subject
	}
	return subject
}

// Hold keeps jobs of these subjects from running until release is called. If there is
// one already, waiting ones included, it holds nothing.
func (q *Queue) Hold(subjects ...string) (release func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := func(s string) bool { return q.busy[s] }
	if slices.ContainsFunc(subjects, taken) ||
		len(q.pick(func(j control.Job) bool { return slices.Contains(subjects, Subject(j)) })) > 0 {
		return nil, false
	}
	for _, s := range subjects {
		q.busy[s] = true
	}
	return sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, s := range subjects {
			delete(q.busy, s)
		}
		q.admit()
	}), true
}

// isCancelled tells whether err says that a job was stopped, and did not fail.
func isCancelled(err error) bool {
	var e *control.Error
	return errors.As(err, &e) && e.Code == control.CodeCancelled
}
