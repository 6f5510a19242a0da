package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/internal/durable"
)

// jobs is the queue: what waits, what runs, and what is remembered of what ran.
// At most a fixed number run at once, and one per item.
type jobs struct {
	dir   string // where ended jobs are kept
	clock func() time.Time
	log   *slog.Logger
	slots chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	all   map[int64]*job
	last  int64
	items map[string]*sync.Mutex // held while a job of the item, or about the vault's keys, runs
	stop  context.Context        // of the agent: jobs end with it
	halt  context.CancelCauseFunc
}

// remembered is how many ended jobs are kept.
const remembered = 1000

// maxRunning is how many jobs run at once.
const maxRunning = 2

// progressEvery is how often a follower is told how far a job is.
const progressEvery = 200 * time.Millisecond

// work is what a job does.
type work func(ctx context.Context, j *job) (*control.JobResult, error)

// job is one job. Followers wait on changed, which is closed and replaced at every
// change.
type job struct {
	id     int64
	cancel context.CancelCauseFunc
	input  chan input // of a backup whose data the caller sends
	ended  chan struct{}
	slot   bool // it has one; the job's own

	mu       sync.Mutex
	state    control.Job
	progress func() control.Progress
	notes    []control.Event
	seq      uint64
	changed  chan struct{}
}

// input is a caller's data and where the caller waits for its end.
type input struct {
	r    io.Reader
	done chan error
}

// maxNotes is how many notes of a job are kept for followers that come late.
const maxNotes = 1000

var errCancelled = &control.Error{Code: control.CodeCancelled, Message: "cancelled by request"}

// errStopping is the cause with which jobs end when the agent stops.
var errStopping = &control.Error{Code: control.CodeCancelled, Message: "the agent was stopped",
	Next: "run the job again; a backup goes on where this one stopped"}

// openJobs reads what is remembered.
func openJobs(dir string, clock func() time.Time, log *slog.Logger) (*jobs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	q := &jobs{dir: dir, clock: clock, log: log, slots: make(chan struct{}, maxRunning),
		all: make(map[int64]*job), items: make(map[string]*sync.Mutex)}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		id, err := strconv.ParseInt(strings.TrimSuffix(f.Name(), ".json"), 10, 64)
		if err != nil {
			continue
		}
		q.last = max(q.last, id)
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		j := &job{id: id, cancel: func(error) {}, ended: make(chan struct{}), changed: make(chan struct{})}
		if err != nil || json.Unmarshal(raw, &j.state) != nil || j.state.ID != id {
			log.Warn("record of an ended job is not readable", "file", f.Name(), "err", err)
			continue
		}
		if !j.state.State.Ended() { // the process died under it
			ended := q.clock()
			j.state.State, j.state.Ended = control.JobFailed, ended
			j.state.Error = &control.Error{Code: control.CodeFailed, Message: "the agent ended while the job ran",
				Next: "run the job again; a backup goes on where this one stopped"}
		}
		close(j.ended)
		q.all[id] = j
	}
	return q, nil
}

// start queues a job and returns it. stop ends it with the agent.
func (q *jobs) start(by string, state control.Job, do work) *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	ctx, cancel := context.WithCancelCause(q.stop)
	j := &job{id: q.last, cancel: cancel, input: make(chan input), ended: make(chan struct{}), changed: make(chan struct{}), state: state}
	j.state.ID, j.state.By, j.state.State, j.state.Queued = j.id, by, control.JobQueued, q.clock()
	q.all[j.id] = j
	q.forget()
	item := q.lock(subjectOf(state))
	q.save(j)
	q.wg.Go(func() {
		defer cancel(nil)
		q.run(ctx, j, item, do)
	})
	return j
}

// run waits for the job's turn and does it.
func (q *jobs) run(ctx context.Context, j *job, item *sync.Mutex, do work) {
	var result *control.JobResult
	err := q.turn(ctx, item)
	if err == nil {
		j.slot = true
		j.update(func(s *control.Job) { s.State, s.Started = control.JobRunning, q.clock() })
		q.save(j)
		q.log.Info("job started", "job", j.id, "kind", j.state.Kind, "item", j.state.Item)
		asks := keyring.Purpose{Vault: j.state.Vault, Item: j.state.Item, By: j.state.By, Job: j.id}
		result, err = do(keyring.WithPurpose(ctx, asks), j)
		item.Unlock()
		if j.slot {
			<-q.slots
		}
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	j.finish(q.clock(), result, err)
	q.save(j)
	s := j.snapshot()
	attrs := []any{"job", j.id, "kind", s.Kind, "item", s.Item, "state", s.State, "seconds", s.Ended.Sub(cmp.Or(s.Started, s.Ended)).Seconds()}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	q.log.Info("job ended", attrs...)
	close(j.ended)
}

// save writes the job's record. That is for people; nothing hangs on it.
func (q *jobs) save(j *job) {
	raw, err := json.Marshal(j.snapshot())
	if err == nil {
		err = durable.WriteFile(filepath.Join(q.dir, fmt.Sprintf("%08d.json", j.id)), raw)
	}
	if err != nil {
		q.log.Warn("record of a job not written", "job", j.id, "err", err)
	}
}

// forget drops the oldest ended jobs. The caller holds mu.
func (q *jobs) forget() {
	if len(q.all) <= remembered {
		return
	}
	ids := make([]int64, 0, len(q.all))
	for id, j := range q.all {
		if j.over() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids[:min(len(ids), len(q.all)-remembered)] {
		delete(q.all, id)
		if err := os.Remove(filepath.Join(q.dir, fmt.Sprintf("%08d.json", id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.log.Warn("record of an ended job not removed", "job", id, "err", err)
		}
	}
}

// get returns a job.
func (q *jobs) get(id int64) (*job, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j, ok := q.all[id]; ok {
		return j, nil
	}
	return nil, &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("there is no job %d", id), Next: "see what there is: coffer job list"}
}

// list returns jobs, the newest first.
func (q *jobs) list(filter control.JobFilter) []control.Job {
	q.mu.Lock()
	all := make([]*job, 0, len(q.all))
	for _, j := range q.all {
		all = append(all, j)
	}
	q.mu.Unlock()
	slices.SortFunc(all, func(a, b *job) int { return cmp.Compare(b.id, a.id) })
	limit := cmp.Or(filter.Limit, 100)
	var out []control.Job
	for _, j := range all {
		s := j.snapshot()
		s.Skips = nil
		if (filter.Item == "" || s.Item == filter.Item) && (filter.State == "" || s.State == filter.State) {
			out = append(out, s)
		}
		if len(out) == limit {
			break
		}
	}
	return out
}

// running tells whether a job that which picks has not ended.
func (q *jobs) running(which func(control.Job) bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range q.all {
		if !j.over() && which(j.snapshot()) {
			return true
		}
	}
	return false
}

// end cancels the jobs that which picks, and returns when they have ended or ctx is
// done.
func (q *jobs) end(ctx context.Context, which func(control.Job) bool, cause error) {
	q.mu.Lock()
	var ending []*job
	for _, j := range q.all {
		if !j.over() && which(j.snapshot()) {
			ending = append(ending, j)
		}
	}
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

// update changes the job's state and tells its followers.
func (j *job) update(change func(*control.Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.state)
	j.tell()
}

// tell wakes the followers. The caller holds mu.
func (j *job) tell() {
	j.seq++
	close(j.changed)
	j.changed = make(chan struct{})
}

// follow lets the job's progress be asked for.
func (j *job) follow(progress func() control.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.progress = progress
}

// note says something to the job's followers.
func (j *job) note(now time.Time, level, message string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tell()
	if len(j.notes) < maxNotes {
		j.notes = append(j.notes, control.Event{Seq: j.seq, Time: now, Note: &control.Note{Level: level, Message: message}})
	}
}

func (j *job) finish(now time.Time, result *control.JobResult, err error) {
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
	case control.CodeOf(err) == control.CodeCancelled:
		j.state.State, j.state.Error = control.JobCancelled, control.AsError(err)
	default:
		j.state.State, j.state.Error = control.JobFailed, control.AsError(err)
	}
	j.tell()
}

func (j *job) over() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.State.Ended()
}

// snapshot returns the job as it is now.
func (j *job) snapshot() control.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.state
	if j.progress != nil {
		s.Progress = j.progress()
	}
	return s
}

// events follows the job until it ends.
func (j *job) events(ctx context.Context, after uint64, clock func() time.Time) iter.Seq2[control.Event, error] {
	return func(yield func(control.Event, error) bool) {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		told := control.JobState("")
		if !j.over() { // an ended job has one event
			s := j.snapshot()
			told = s.State
			if !yield(control.Event{Time: clock(), Job: &s}, nil) {
				return
			}
		} else {
			after = math.MaxUint64
		}
		for {
			j.mu.Lock()
			state, seq, changed := j.state, j.seq, j.changed
			if j.progress != nil {
				state.Progress = j.progress()
			}
			notes := j.notes
			j.mu.Unlock()
			for _, n := range notes {
				if n.Seq > after {
					after = n.Seq
					if !yield(n, nil) {
						return
					}
				}
			}
			event := control.Event{Seq: seq, Time: clock(), Progress: &state.Progress}
			if state.State != told {
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
