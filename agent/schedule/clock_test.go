package schedule_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/schedule"
)

// TestClockBack: a clock that is put back, by anything, at any time, runs nothing twice
// and loses nothing: the agent sees it happen.
func TestClockBack(t *testing.T) {
	for _, back := range []time.Duration{2 * time.Second, time.Minute, time.Hour, 5 * time.Hour, 12 * time.Hour, day, 3 * day, 400 * day} {
		for hour := range 24 {
			w := newWorld(t, named("p/a", "daily at 02:00", ""))
			w.pass(2*day + time.Duration(hour)*time.Hour + 3*time.Second)
			w.set -= back
			w.pass(4 * day)
			gaps(t, w, back.String()+" at "+w.now().Format("15h"), 12*time.Hour, 36*time.Hour)
		}
	}
}

// gaps wants so much true time between two runs that follow each other.
func gaps(t *testing.T, w *world, what string, least, most time.Duration) {
	t.Helper()
	last := time.Duration(0)
	for i, s := range w.started {
		if gap := s.real - last; i > 0 && (gap < least || gap > most) {
			t.Errorf("%s: %s between two runs, the second at %s", what, gap, s.at)
		}
		last = s.real
	}
	if gap := w.real - last; gap > most {
		t.Errorf("%s: no run for the last %s", what, gap)
	}
}

// TestClockForth: a clock that jumps ahead looks like a host that slept. There may be one
// run more for it, and none is lost; when it is put right again all is as it was.
func TestClockForth(t *testing.T) {
	for hour := range 24 {
		w := newWorld(t, named("p/a", "daily at 02:00", ""))
		w.pass(2*day + time.Duration(hour)*time.Hour + 3*time.Second)
		before := len(w.started)
		w.set += day
		w.pass(15 * time.Minute)
		if n := len(w.started) - before; n != 1 {
			t.Errorf("at %dh: %d runs as the clock jumped by a day", hour, n)
		}
		w.pass(2 * time.Hour)
		w.set -= day
		w.pass(4 * day)
		w.started = w.started[before:]
		gaps(t, w, w.now().Format("at 15h"), 10*time.Minute, 37*time.Hour)
		if n := len(w.started); n > 6 {
			t.Errorf("at %dh: %d runs in 4 days", hour, n)
		}
	}
}

// TestClockBackUnseen: it is put back while the agent is down. A run may come early or
// late by half of the time between two, and no more.
func TestClockBackUnseen(t *testing.T) {
	for _, back := range []time.Duration{2 * time.Second, time.Hour, 11 * time.Hour, day, 40 * day} {
		for hour := range 24 {
			w := newWorld(t, named("p/a", "daily at 02:00", ""))
			w.pass(2*day + time.Duration(hour)*time.Hour + 3*time.Second)
			w.set -= back
			w.sleep(time.Second)
			w.pass(4 * day)
			gaps(t, w, back.String()+" unseen, at "+w.now().Format("15h"), time.Second, 48*time.Hour)
			if n := len(w.started); n < 5 || n > 8 {
				t.Errorf("%s unseen at %dh: %d runs in 6 days", back, hour, n)
			}
		}
	}
	// A first start with a clock that is a year ahead.
	w := newWorld(t, named("p/a", "daily at 02:00", ""))
	w.set = 365 * day
	w.pass(time.Hour)
	w.set = 0
	w.sleep(time.Minute)
	w.pass(3 * day)
	if n := len(w.started); n != 3 {
		t.Errorf("%d runs in 3 days after a clock that was a year ahead", n)
	}
}

// TestChaos: crashes, jumps of a day, failures and downtime at random. What may never
// happen: two runs of one task at once, a task that is forgotten, a flood.
func TestChaos(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tasks := []schedule.Task{named("p/a", "daily at 02:00", "Europe/Berlin"), named("p/b", "every 4 hours", ""), named("p/c", "*/30 * * * *", "")}
		for i := range tasks {
			tasks[i].Attempts = quick
			tasks[i].Spec.Jitter = time.Duration(rng.IntN(10)) * time.Minute
		}
		w := newWorld(t, tasks...)
		w.ends = func(task schedule.Task, _ schedule.Try) (schedule.Outcome, time.Duration) {
			for _, j := range w.jobs {
				if j.task.Name == task.Name {
					t.Errorf("seed %d: two runs of %s at once", seed, task.Name)
				}
			}
			return []schedule.Outcome{schedule.Good, schedule.Good, schedule.Good, schedule.Failed, schedule.Prevented, schedule.Final}[rng.IntN(6)],
				time.Duration(rng.IntN(50)) * time.Minute
		}
		jumps := 0
		for range 60 {
			switch rng.IntN(5) {
			case 0:
				w.set += time.Duration(rng.IntN(49)-24) * time.Hour
				jumps++
			case 1:
				w.sleep(time.Duration(rng.IntN(30)) * time.Hour)
			case 2:
				w.sleep(0)
			}
			w.pass(time.Duration(rng.IntN(24*60)) * time.Minute)
		}
		w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) { return schedule.Good, time.Minute }
		before := len(w.started)
		w.pass(10 * day)
		counts := map[string]int{}
		for _, s := range w.started[before:] {
			counts[s.task]++
		}
		for name, want := range map[string]int{"p/a": 10, "p/b": 60, "p/c": 480} {
			if n := counts[name]; n < want-1 || n > want+3 {
				t.Errorf("seed %d: %s ran %d times in 10 quiet days, want %d", seed, name, n, want)
			}
		}
		if limit := int(w.real/(30*time.Minute))*4 + 10*jumps; before > limit {
			t.Errorf("seed %d: %d tries in %s", seed, before, w.real)
		}
	}
}
