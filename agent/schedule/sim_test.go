package schedule_test

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/schedule"
)

// world is an agent's host: a clock that can be set, time that passes, and jobs that take
// as long as they take.
type world struct {
	testing.TB
	memory  *memory
	stride  time.Duration // between two looks, at the most
	real    time.Duration // since the beginning
	set     time.Duration // by how much the clock is off
	tasks   []schedule.Task
	ends    func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration)
	refuse  error // what Start says
	runner  *schedule.Runner
	jobs    []*job
	last    int64
	started []start
}

// memory is kept over crashes.
type memory struct {
	data   []byte
	broken error // what Write says
}

func (m *memory) Read() ([]byte, error) {
	if m.data == nil {
		return nil, fs.ErrNotExist
	}
	return m.data, nil
}

func (m *memory) Write(data []byte) error {
	if m.broken == nil {
		m.data = data
	}
	return m.broken
}

// start is a try that began.
type start struct {
	task string
	at   time.Time     // by the clock
	real time.Duration // in truth
	try  schedule.Try
}

type job struct {
	id      int64
	task    schedule.Task
	ends    time.Duration
	outcome schedule.Outcome
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t testing.TB, tasks ...schedule.Task) *world {
	w := &world{TB: t, memory: new(memory), stride: 10 * time.Minute, tasks: tasks}
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) {
		return schedule.Good, 10 * time.Minute
	}
	w.boot()
	return w
}

// boot starts the agent anew: jobs that ran are gone, as after a crash.
func (w *world) boot() {
	w.jobs = nil
	w.runner = schedule.Open(schedule.Config{
		Memory: w.memory, Clock: w.now, Elapsed: func() time.Duration { return w.real }, After: time.After, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Tasks: func() []schedule.Task { return slices.Clone(w.tasks) }, Start: w.start,
	})
}

func (w *world) now() time.Time { return epoch.Add(w.real + w.set) }

func (w *world) start(t schedule.Task, try schedule.Try) (int64, error) {
	if w.refuse != nil {
		return 0, w.refuse
	}
	w.last++
	w.started = append(w.started, start{t.Name, w.now(), w.real, try})
	outcome, takes := w.ends(t, try)
	w.jobs = append(w.jobs, &job{w.last, t, w.real + takes, outcome})
	return w.last, nil
}

// step ends what has ended, and looks. It returns how long nothing happens.
func (w *world) step() time.Duration {
	for again := true; again; {
		again = false
		for i, j := range w.jobs {
			if j.ends <= w.real {
				w.jobs = slices.Delete(w.jobs, i, i+1)
				w.runner.Ended(j.task, j.id, j.outcome)
				again = true
				break
			}
		}
	}
	wait := min(w.runner.Look(), w.stride)
	for _, j := range w.jobs {
		wait = min(wait, j.ends-w.real)
	}
	return wait
}

// pass lets time pass with the agent running.
func (w *world) pass(d time.Duration) {
	w.Helper()
	for end := w.real + d; w.real < end; {
		wait := w.step()
		if wait < 0 {
			w.Fatalf("it waits %s", wait)
		}
		w.real = min(end, w.real+max(wait, time.Millisecond))
	}
	w.step()
}

// sleep lets time pass with the agent not running.
func (w *world) sleep(d time.Duration) {
	w.real += d
	w.boot()
}

// begins returns when runs of a task began, their first tries.
func (w *world) begins(task string) []time.Time {
	var out []time.Time
	for _, s := range w.started {
		if s.task == task && s.try.Number == 1 {
			out = append(out, s.at)
		}
	}
	return out
}

func (w *world) state(i int) schedule.State { return w.runner.State(w.tasks[i]) }

func named(name, text, zone string) schedule.Task {
	return schedule.Task{Name: name, Spec: schedule.Spec{Text: text, Zone: zone, Seed: "host/v/" + name}}
}

func at(t testing.TB, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	out, err := time.ParseInLocation("2006-01-02 15:04", text, loc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantTimes(t testing.TB, got []time.Time, want ...time.Time) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(g, w time.Time) bool { return g.Sub(w).Abs() < 2*time.Second }) {
		t.Errorf("runs at %v, want %v", got, want)
	}
}

var errFull = errors.New("no room")

const day = 24 * time.Hour

var quick = policy.Attempts{Tries: 3, First: time.Minute, Longest: time.Hour}
