package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/internal/durable"
)

// lookEvery is how often the clock is looked at: it may have been set.
const lookEvery = 30 * time.Second

// farthest is how far ahead anything is waited for.
const farthest = 24 * time.Hour

// keepEvery is how long changes that only cost a run too many after a crash, because its
// end is not known, wait for others to be kept with them.
const keepEvery = time.Second

// slack is by how much the clock may fall behind between two looks without having been
// put back.
const slack = time.Second

// Config of a Runner. All of it must be set.
type Config struct {
	Memory Memory // where the records are kept
	Clock  func() time.Time
	// Elapsed is the time that has passed since some moment, whatever was done to the
	// clock.
	Elapsed func() time.Duration
	After   func(time.Duration) <-chan time.Time
	// Tasks are those that there are now.
	Tasks func() []Task
	// Start begins a try and returns its job. When the job has ended, and not before
	// Start has returned, somebody calls Ended.
	Start func(t Task, try Try) (job int64, err error)
	Log   *slog.Logger
}

// Memory keeps the records.
type Memory interface {
	// Read returns what was written last. fs.ErrNotExist if nothing was.
	Read() ([]byte, error)
	// Write replaces it, whole or not at all, whatever happens.
	Write(data []byte) error
}

// File is a Memory in a file of that path, for a JSON object. One that is damaged is set
// aside.
type File string

// Read implements Memory.
func (f File) Read() ([]byte, error) { return durable.ReadSealed(string(f)) }

// Write implements Memory.
func (f File) Write(data []byte) error { return durable.WriteSealed(string(f), data) }

// Runner is safe for concurrent use.
type Runner struct {
	Config
	wake chan struct{}

	mu      sync.Mutex
	specs   map[Spec]*policy.Schedule // read before
	records map[string]*Record
	live    map[string]bool // those that run, and not only by the record
	looking bool            // Run goes on, and keeps at its next look what has changed
	dirty   bool            // records have changed that are not kept yet
	now     time.Time       // at the last look
	elapsed time.Duration   // then
	kept    time.Duration   // elapsed when the records were kept last
}

// Open reads the records. If they cannot be read it begins anew, and says so: nothing is
// run again because of that, and what was missed is.
func Open(cfg Config) *Runner {
	r := &Runner{Config: cfg, wake: make(chan struct{}, 1), specs: make(map[Spec]*policy.Schedule), records: make(map[string]*Record), live: make(map[string]bool)}
	raw, err := cfg.Memory.Read()
	if err == nil {
		err = json.Unmarshal(raw, &r.records)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		cfg.Log.Warn("what is known of the last runs cannot be read: each policy goes on at its next time, and runs that were missed are not made up for",
			"err", err)
		clear(r.records)
	}
	maps.DeleteFunc(r.records, func(_ string, rec *Record) bool { return rec == nil })
	return r
}

// Run begins what is due until ctx ends. Jobs that it has begun go on.
func (r *Runner) Run(ctx context.Context) {
	r.look(true)
	defer r.look(false)
	for ctx.Err() == nil {
		wait := min(r.Look(), lookEvery)
		select {
		case <-r.After(wait):
		case <-r.wake:
		case <-ctx.Done():
		}
	}
}

// look says whether looks go on. After the last, what has changed is kept.
func (r *Runner) look(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looking = on; !on {
		r.save()
	}
}

// Wake has the tasks looked at: they may have changed, or what blocked them.
func (r *Runner) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Look begins what is due now, and returns how long nothing will be: while nobody sets
// the clock, nothing ends, and nothing that blocks a task goes away.
func (r *Runner) Look() time.Duration {
	found := r.Tasks()
	r.mu.Lock()
	defer r.mu.Unlock()
	tasks := r.read(found)
	now := r.tick()
	r.drop(tasks)
	wait := farthest
	tries := make(map[string]Try)
	for _, t := range tasks {
		rec := r.record(t, now)
		d := rec.decide(t, now)
		if d.run {
			rec.begin(t, d.try, now)
			r.dirty = true
			tries[t.Name] = d.try
		} else if left := d.next.Sub(now); !d.next.IsZero() && left < wait {
			wait = max(left, 0)
		}
	}
	if len(tries) > 0 || r.elapsed-r.kept >= keepEvery {
		r.save() // a crash after this finds runs that were cut off, and tries them again
	} else if r.dirty {
		wait = min(wait, keepEvery)
	}
	for _, t := range tasks {
		if try, ok := tries[t.Name]; ok {
			r.start(t, try, now)
		}
	}
	return wait
}

// read reads the schedules of tasks. The caller holds mu.
func (r *Runner) read(tasks []Task) []task {
	out := make([]task, 0, len(tasks))
	if len(r.specs) > 2*len(tasks)+maxSpecs { // most of them were changed
		clear(r.specs)
	}
	for _, t := range tasks {
		s, known := r.specs[t.Spec]
		if !known {
			var err error
			if s, err = t.Spec.Schedule(); err != nil {
				r.Log.Error("a schedule is not understood: it runs only when asked", "task", t.Name, "err", err)
			}
			r.specs[t.Spec] = s
		}
		out = append(out, task{t, s})
	}
	return out
}

// maxSpecs is how many schedules are kept that no task has any more.
const maxSpecs = 1000

// tick returns the time. If the clock was put back since the last look, all that is
// remembered is. One that was put forward is believed: the host may have slept. The
// caller holds mu.
func (r *Runner) tick() time.Time {
	now, elapsed := r.Clock().Round(0), r.Elapsed()
	if !r.now.IsZero() {
		if by := now.Sub(r.now) - (elapsed - r.elapsed); by < -slack {
			r.Log.Warn("the clock was put back", "by", -by.Round(time.Second))
			for _, rec := range r.records {
				rec.shift(by)
			}
			r.dirty = true
		}
	}
	r.now, r.elapsed = now, elapsed
	return now
}

// record returns the record of a task, brought up to now. The caller holds mu.
func (r *Runner) record(t task, now time.Time) *Record {
	rec := r.records[t.Name]
	if rec == nil {
		rec = new(Record)
		r.records[t.Name] = rec
	}
	was := rec.Spec
	known := !rec.Since.IsZero()
	if rec.see(t, now) {
		r.dirty = true
	}
	if known && was != t.Spec {
		r.Log.Info("schedule changed", "task", t.Name, "from", was.Text, "to", t.Spec.Text, "owed", !rec.Owed.IsZero(), "next", rec.upcoming(t, now))
	}
	if rec.Running && !r.live[t.Name] {
		r.Log.Warn("a run was cut off", "task", t.Name, "job", rec.Job)
		rec.end(t, Failed, now)
		r.dirty = true
	}
	return rec
}

// drop forgets the tasks that there are no more. The caller holds mu.
func (r *Runner) drop(tasks []task) {
	wanted := make(map[string]bool, len(tasks))
	for _, t := range tasks {
		wanted[t.Name] = true
	}
	for name, rec := range r.records {
		if r.live[name] || wanted[name] {
			continue
		}
		r.Log.Info("no longer scheduled", "task", name, "last", rec.Last, "retry", rec.Retry)
		delete(r.records, name)
		r.dirty = true
	}
}

// start begins a try that is recorded. The caller holds mu.
func (r *Runner) start(t task, try Try, now time.Time) {
	rec := r.records[t.Name]
	job, err := r.Start(t.Task, try)
	if err != nil {
		r.Log.Warn("a run did not begin", "task", t.Name, "err", err)
		rec.end(t, Failed, now)
	} else {
		rec.Job, r.live[t.Name] = job, true
	}
	r.dirty = true
}

// save keeps what has changed. If that fails it is tried again at the next look: a full
// disk keeps no backup from running. The caller holds mu.
func (r *Runner) save() {
	if !r.dirty {
		return
	}
	r.kept = r.elapsed
	raw, err := json.Marshal(r.records)
	if err == nil {
		err = r.Memory.Write(raw)
	}
	if err != nil {
		r.Log.Warn("records of runs not kept: after a restart some may run again", "err", err)
		return
	}
	r.dirty = false
}

// Ended says how the try that a job was has ended.
func (r *Runner) Ended(t Task, job int64, outcome Outcome) {
	defer r.Wake()
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.records[t.Name]
	if rec == nil || rec.Job != job || !r.live[t.Name] {
		return
	}
	now := r.tick()
	delete(r.live, t.Name)
	rec.end(r.read([]Task{t})[0], outcome, now)
	r.dirty = true
	if !r.looking { // else a look does it soon, once for all that have ended by then
		r.save()
	}
}

// Good says that what a task is for was done without it, by something that began then.
func (r *Runner) Good(name string, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.records[name]; rec != nil && began.After(rec.Good) && !began.After(r.Clock()) {
		rec.Good, r.dirty = began, true // kept at the next look
	}
}

// Ask begins a run now that somebody asks for, whatever the schedule says, and returns
// its job; or that of the run that is not over, and then begun is false.
func (r *Runner) Ask(t Task, by string) (job int64, begun bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	read := r.read([]Task{t})[0]
	now := r.tick()
	rec := r.record(read, now)
	if rec.Running {
		return rec.Job, false, nil
	}
	try := Try{Number: 1, Began: now, Asked: true, By: by}
	if t.Attempts.Deadline > 0 {
		try.Until = now.Add(t.Attempts.Deadline)
	}
	if job, err = r.Start(t, try); err != nil {
		return 0, false, fmt.Errorf("run %s: %w", t.Name, err)
	}
	rec.begin(read, try, now)
	rec.Job, r.live[t.Name], r.dirty = job, true, true
	r.save()
	return job, true, nil
}

// State is how a task stands.
type State struct {
	Record
	// Next is when it is to run next, or be tried again; zero if never by itself.
	Next time.Time
	// Paused says why a run that is due does not begin; "" if none is.
	Paused string
	// Overdue is since when a run has been due that was not good in time; zero if all is
	// well.
	Overdue time.Time
}

// State tells how a task stands.
func (r *Runner) State(t Task) State {
	r.mu.Lock()
	defer r.mu.Unlock()
	read := r.read([]Task{t})[0]
	now := r.Clock().Round(0)
	rec := Record{}
	if known := r.records[t.Name]; known != nil {
		rec = *known
	}
	rec.see(read, now)
	d := rec.decide(read, now)
	return State{Record: rec, Next: d.next, Paused: d.paused, Overdue: rec.overdue(read, now)}
}

// WillRetry tells whether a try that failed now would be followed by another.
func (r *Runner) WillRetry(t Task, try Try) bool {
	_, again := t.Attempts.Next(try.Began, r.Clock(), try.Number)
	return again && !try.Asked
}
