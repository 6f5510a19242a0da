package schedule_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/schedule"
)

// TestYear: 400 days of schedules begin what a calendar says and nothing else, over both
// changes of the clocks, for many items.
func TestYear(t *testing.T) {
	nightly := named("nightly/a", "daily at 02:30", "Europe/Berlin")
	office := named("office/b", "0 8-18/2 * * mon-fri", "America/New_York")
	office.Spec.Not = "12:00-13:30\n16:00-17:00 fri"
	monthly := named("monthly/c", "monthly on 31 at 23:00", "")
	jittery := named("jittery/d", "weekly on sun at 01:00", "Europe/London")
	jittery.Spec.Jitter = 6 * time.Hour
	tasks := []schedule.Task{nightly, office, monthly, jittery, named("asked/e", "", "")}
	for i := range 4 {
		task := named("fleet/"+strconv.Itoa(i), "every 4 hours", "")
		task.Spec.Jitter = time.Hour
		tasks = append(tasks, task)
	}
	w := newWorld(t, tasks...)
	w.stride = day
	w.pass(400 * day)
	for _, task := range tasks {
		s, err := task.Spec.Schedule()
		if err != nil {
			t.Fatal(err)
		}
		var want []time.Time
		if s != nil {
			for run := s.Next(epoch); !run.After(epoch.Add(400 * day)); run = s.Next(run) {
				want = append(want, run)
			}
		}
		got := w.begins(task.Name)
		if len(got) != len(want) {
			t.Errorf("%s: %d runs, want %d", task.Name, len(got), len(want))
			continue
		}
		wantTimes(t, got, want...)
	}
	// And not only by the policy's own word: where clocks change, and a few counts.
	wantTimes(t, w.begins("nightly/a")[27:30], at(t, "Europe/Berlin", "2026-03-29 03:00"), at(t, "Europe/Berlin", "2026-03-30 02:30"), at(t, "Europe/Berlin", "2026-03-31 02:30"))
	if n := len(w.begins("nightly/a")); n != 400 {
		t.Errorf("nightly ran %d times in 400 days", n)
	}
	if n := len(w.begins("monthly/c")); n != 8 { // Mar May Jul Aug Oct Dec Jan Mar
		t.Errorf("monthly on 31 ran %d times", n)
	}
	if n := len(w.begins("fleet/3")); n != 2400 {
		t.Errorf("every 4 hours ran %d times", n)
	}
}

// TestNew: what is new, or changed, runs at its next time and not at once; what the old
// schedule owed is still owed.
func TestNew(t *testing.T) {
	w := newWorld(t, named("p/a", "daily at 10:00", "")) // it is noon
	w.pass(time.Hour)
	wantTimes(t, w.begins("p/a"))
	w.tasks[0].Spec.Text = "daily at 12:30"
	w.pass(time.Hour)
	wantTimes(t, w.begins("p/a"))
	w.pass(day)
	wantTimes(t, w.begins("p/a"), at(t, "UTC", "2026-03-02 12:30"))

	// Down over the next run, and up with another schedule: the run was missed.
	w.sleep(2 * day)
	w.tasks[0].Spec.Text = "daily at 03:00"
	w.pass(time.Hour)
	wantTimes(t, w.begins("p/a")[1:], at(t, "UTC", "2026-03-04 14:00"))
	w.pass(day)
	wantTimes(t, w.begins("p/a")[2:], at(t, "UTC", "2026-03-05 03:00"))

	// Taken out, and put back: it is new.
	all := w.tasks
	w.tasks = nil
	w.pass(3 * day)
	w.tasks = all
	w.pass(time.Hour)
	if n := len(w.begins("p/a")); n != 3 {
		t.Errorf("%d runs after it came back", n)
	}
	if s := w.state(0); s.Since.Before(w.now().Add(-2*time.Hour)) || s.Next.IsZero() {
		t.Errorf("it stands at %+v", s)
	}
	// Without a schedule nothing is owed any more.
	w.sleep(5 * day)
	w.tasks[0].Spec = schedule.Spec{}
	w.pass(day)
	if n := len(w.begins("p/a")); n != 3 {
		t.Errorf("%d runs without a schedule", n)
	}
}

// TestMissed: however many runs were missed, one makes up for them, not in a window.
func TestMissed(t *testing.T) {
	a, b := named("p/a", "hourly", ""), named("p/b", "daily at 02:00", "")
	b.Spec.Not = "08:00-18:00"
	w := newWorld(t, a, b)
	w.pass(day)
	w.started = nil
	w.sleep(10 * day) // it is noon
	w.pass(2 * time.Hour)
	wantTimes(t, w.begins("p/a"), at(t, "UTC", "2026-03-12 12:00"), at(t, "UTC", "2026-03-12 13:00"), at(t, "UTC", "2026-03-12 14:00"))
	wantTimes(t, w.begins("p/b"))
	if s := w.state(1); s.Paused != "window until 18:00" || !s.Next.Equal(at(t, "UTC", "2026-03-12 18:00")) {
		t.Errorf("in a window: paused %q, next %s", s.Paused, s.Next)
	}
	w.pass(day)
	wantTimes(t, w.begins("p/b"), at(t, "UTC", "2026-03-12 18:00"), at(t, "UTC", "2026-03-13 02:00"))
}

// TestLong: a run that takes longer than the time between two is not overlapped by the
// next, which makes up for all that was due meanwhile.
func TestLong(t *testing.T) {
	w := newWorld(t, named("p/a", "hourly", ""))
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) {
		return schedule.Good, 150 * time.Minute
	}
	w.pass(6 * time.Hour)
	wantTimes(t, w.begins("p/a"), at(t, "UTC", "2026-03-01 13:00"), at(t, "UTC", "2026-03-01 15:30"), at(t, "UTC", "2026-03-01 18:00"))
}

// TestRetry: a run that fails is tried again, longer apart each time, and not for ever;
// the next run begins anew.
func TestRetry(t *testing.T) {
	task := named("p/a", "daily at 02:00", "")
	task.Attempts = quick
	w := newWorld(t, task)
	w.ends = func(_ schedule.Task, try schedule.Try) (schedule.Outcome, time.Duration) {
		return schedule.Failed, time.Minute
	}
	w.pass(2 * day)
	var got []time.Time
	for i, s := range w.started {
		got = append(got, s.at)
		if s.try.Number != i%3+1 || !s.try.Began.Equal(got[i/3*3]) {
			t.Errorf("try %d of the run is number %d, begun at %s", i%3+1, s.try.Number, s.try.Began)
		}
	}
	wantTimes(t, got, at(t, "UTC", "2026-03-02 02:00"), at(t, "UTC", "2026-03-02 02:02"), at(t, "UTC", "2026-03-02 02:05"),
		at(t, "UTC", "2026-03-03 02:00"), at(t, "UTC", "2026-03-03 02:02"), at(t, "UTC", "2026-03-03 02:05"))
	if s := w.state(0); s.Failures != 6 || !s.Next.Equal(at(t, "UTC", "2026-03-04 02:00")) {
		t.Errorf("it stands at %+v", s)
	}
	if !w.runner.WillRetry(task, schedule.Try{Number: 2, Began: w.now()}) || w.runner.WillRetry(task, schedule.Try{Number: 3, Began: w.now()}) ||
		w.runner.WillRetry(task, schedule.Try{Number: 1, Began: w.now(), Asked: true}) {
		t.Error("it is wrong about what comes after a failure")
	}
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) { return schedule.Good, time.Minute }
	w.pass(day)
	if s := w.state(0); s.Failures != 0 || !s.Good.Equal(at(t, "UTC", "2026-03-04 02:00")) {
		t.Errorf("after a good run: %+v", s)
	}
	// What cannot be helped by trying again is not.
	w.started = nil
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) {
		return schedule.Final, time.Minute
	}
	w.pass(day)
	wantTimes(t, w.begins("p/a"), at(t, "UTC", "2026-03-05 02:00"))
	if len(w.started) != 1 {
		t.Errorf("it was tried %d times", len(w.started))
	}
}

// TestDeadline: all tries of a run have to be over by then, and a run that could not even
// begin again by then has failed.
func TestDeadline(t *testing.T) {
	task := named("p/a", "daily at 02:00", "")
	task.Attempts = policy.Attempts{Tries: 50, First: 10 * time.Minute, Longest: 10 * time.Minute, Deadline: time.Hour}
	w := newWorld(t, task)
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) {
		return schedule.Failed, 10 * time.Minute
	}
	w.pass(day)
	if len(w.started) != 3 { // 02:00, 02:20, 02:40
		t.Errorf("%d tries in an hour", len(w.started))
	}
	for _, s := range w.started {
		if !s.try.Until.Equal(at(t, "UTC", "2026-03-02 03:00")) {
			t.Errorf("a try has until %s", s.try.Until)
		}
	}
	w.started = nil
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) {
		w.tasks[0].Blocked = "vault v is inaccessible"
		return schedule.Prevented, time.Minute
	}
	w.pass(day)
	if s := w.state(0); len(w.started) != 1 || s.Failures != 4 || !s.Retry.IsZero() {
		t.Errorf("%d tries, and it stands at %+v", len(w.started), s)
	}
}

// TestBlocked: while a vault is closed nothing begins and no try is used up; when it is
// open again one run makes up for all.
func TestBlocked(t *testing.T) {
	task := named("p/a", "daily at 02:00", "")
	task.Attempts = quick
	w := newWorld(t, task)
	w.tasks[0].Blocked = "vault v is inaccessible"
	w.pass(5 * day)
	if s := w.state(0); len(w.started) != 0 || s.Paused != "vault v is inaccessible" || s.Overdue.IsZero() {
		t.Errorf("%d runs, and it stands at %+v", len(w.started), s)
	}
	w.tasks[0].Blocked = ""
	w.pass(time.Hour)
	wantTimes(t, w.begins("p/a"), at(t, "UTC", "2026-03-06 12:00"))

	// It is closed under the run.
	w.started = nil
	ends := schedule.Prevented
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) { return ends, time.Minute }
	w.pass(20 * time.Hour)
	if n := len(w.started); n < 9 || n > 20 { // 02:00 to 09:00, an hour apart in the end
		t.Errorf("tried %d times", n)
	}
	if s := w.state(0); s.Failures != 0 || s.Tries != 0 || s.Began.IsZero() {
		t.Errorf("it stands at %+v", s)
	}
	ends = schedule.Good
	w.pass(time.Hour)
	if s := w.state(0); !s.Retry.IsZero() || s.Held != 0 || !s.Good.After(at(t, "UTC", "2026-03-07 02:00")) {
		t.Errorf("after all: %+v", s)
	}
}

// TestStoreGone: a store that is away for two days is tried, told, and then all goes on.
func TestStoreGone(t *testing.T) {
	task := named("p/a", "every 4 hours", "")
	task.Attempts = quick
	w := newWorld(t, task)
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) {
		if w.real > 2*day && w.real < 4*day {
			return schedule.Failed, 5 * time.Minute
		}
		return schedule.Good, 5 * time.Minute
	}
	w.pass(2*day + 6*time.Hour)
	if s := w.state(0); s.Failures == 0 || !s.Overdue.IsZero() {
		t.Errorf("after a run that failed: %+v", s)
	}
	w.pass(day)
	if s := w.state(0); s.Overdue.IsZero() {
		t.Errorf("after a day: %+v", s)
	}
	w.pass(3 * day)
	if s := w.state(0); s.Failures != 0 || !s.Overdue.IsZero() {
		t.Errorf("when it is back: %+v", s)
	}
	if n := len(w.begins("p/a")); n != 6*6+1 { // 6 days and 6 hours
		t.Errorf("%d runs were begun", n)
	}
}

// TestAsk: what somebody asks for is beside what is due.
func TestAsk(t *testing.T) {
	task := named("p/a", "daily at 02:00", "")
	task.Attempts = quick
	w := newWorld(t, task)
	w.step()
	ends := schedule.Failed
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) { return ends, time.Minute }
	id, begun, err := w.runner.Ask(task, "uid 0")
	if err != nil || id != 1 || !begun {
		t.Fatal(id, begun, err)
	}
	if again, begun, err := w.runner.Ask(task, "uid 0"); err != nil || again != id || begun {
		t.Errorf("asked again while it runs: job %d, %v", again, err)
	}
	w.pass(13 * time.Hour)
	if len(w.started) != 1 || !w.started[0].try.Asked || w.started[0].try.By != "uid 0" || w.state(0).Failures != 1 {
		t.Errorf("%+v, and it stands at %+v", w.started, w.state(0))
	}
	w.pass(time.Hour + 90*time.Second) // it has failed once, and waits
	ends = schedule.Good
	if _, _, err := w.runner.Ask(task, "uid 0"); err != nil {
		t.Fatal(err)
	}
	w.started = nil
	w.pass(20 * time.Hour)
	if len(w.started) != 0 || w.state(0).Failures != 0 {
		t.Errorf("after a good one: %+v, and it stands at %+v", w.started, w.state(0))
	}
	w.refuse = errFull
	if _, _, err := w.runner.Ask(task, "uid 0"); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("what cannot begin: %v", err)
	}
	w.pass(6 * time.Hour)
	if s := w.state(0); s.Failures != 3 || s.Running {
		t.Errorf("what cannot begin by itself: %+v", s)
	}
}

// TestGood: a backup that somebody made is one that was due.
func TestGood(t *testing.T) {
	w := newWorld(t, named("p/a", "daily at 02:00", ""))
	w.ends = func(schedule.Task, schedule.Try) (schedule.Outcome, time.Duration) {
		return schedule.Failed, time.Minute
	}
	w.pass(2 * day)
	if got, want := w.state(0).Overdue, at(t, "UTC", "2026-03-02 02:00"); !got.Equal(want) {
		t.Errorf("overdue since %s, want %s", got, want)
	}
	w.real += 10 * time.Second // it has not looked since
	w.runner.Good("p/a", w.now())
	w.runner.Good("p/a", w.now().Add(time.Hour)) // by nobody's clock
	w.runner.Good("nobody", w.now())
	if s := w.state(0); !s.Overdue.IsZero() || !s.Good.Equal(w.now()) {
		t.Errorf("it stands at %+v", s)
	}
	deadline := named("p/a", "daily at 02:00", "")
	deadline.Attempts.Deadline = 2 * time.Hour
	w.tasks[0] = deadline
	w.pass(15 * time.Hour)
	if s := w.state(0); !s.Overdue.IsZero() {
		t.Errorf("before the deadline: %+v", s)
	}
	w.pass(time.Hour)
	if s := w.state(0); s.Overdue.IsZero() {
		t.Errorf("after the deadline: %+v", s)
	}
}

// TestCrash: wherever the agent dies, no run is lost, and at most one is too many.
func TestCrash(t *testing.T) {
	task := named("p/a", "daily at 02:00", "")
	task.Attempts = quick
	// Cut off while it runs.
	w := newWorld(t, task)
	w.pass(14*time.Hour + 5*time.Minute)
	w.sleep(time.Minute)
	w.pass(22 * time.Hour)
	if n := len(w.started); n != 2 || w.started[1].try.Number != 2 || w.state(0).Failures != 0 {
		t.Errorf("%d tries, and it stands at %+v", n, w.state(0))
	}
	// It dies under every try: there is an end to it.
	w = newWorld(t, task)
	w.pass(14 * time.Hour)
	for range 20 {
		w.pass(5 * time.Minute)
		w.sleep(time.Minute)
	}
	if n := len(w.started); n != 3 {
		t.Errorf("a run that kills the agent was tried %d times", n)
	}
	// The end could not be recorded: one run too many, and no more.
	w = newWorld(t, task)
	w.pass(14*time.Hour + 5*time.Minute)
	w.memory.broken = errFull
	w.pass(time.Hour)
	w.memory.broken = nil
	w.sleep(time.Minute)
	w.pass(20 * time.Hour)
	if n := len(w.started); n != 2 {
		t.Errorf("%d runs", n)
	}
	// An orderly stop uses up no try.
	w = newWorld(t, task)
	w.pass(14*time.Hour + 5*time.Minute)
	w.runner.Ended(task, w.jobs[0].id, schedule.Stopped)
	w.sleep(time.Minute)
	w.pass(20 * time.Hour)
	if n := len(w.started); n != 2 || w.started[1].try.Number != 1 || !w.started[1].try.Began.Equal(w.started[0].try.Began) {
		t.Errorf("%+v", w.started)
	}
}

// TestRecordsLost: with records that cannot be read or written backups go on.
func TestRecordsLost(t *testing.T) {
	w := newWorld(t, named("p/a", "daily at 02:00", ""))
	w.pass(day)
	for _, text := range []string{"", "{", `{"p/a": null}`, `{"p/a": {"since": 5}}`, "[]"} {
		w.memory.data = []byte(text)
		w.sleep(day)
		w.started = nil
		w.pass(day)
		if len(w.begins("p/a")) != 1 {
			t.Errorf("%q: runs at %v", text, w.begins("p/a"))
		}
	}
	w.memory.broken = errFull
	w.started = nil
	w.pass(3 * day)
	if n := len(w.begins("p/a")); n != 3 {
		t.Errorf("%d runs in 3 days with a state folder that cannot be written", n)
	}
}

// TestFile: what one agent wrote the next one reads.
func TestFile(t *testing.T) {
	f := schedule.File(filepath.Join(t.TempDir(), "schedule.json"))
	if _, err := f.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before anything was written: %v", err)
	}
	for _, text := range []string{`{"one":1}`, `{"another":2}`} {
		if err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Read(); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
}
