package schedule

import (
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

// Record is what is remembered of a task. The zero value is one that was never seen.
type Record struct {
	Spec  Spec      `json:"spec"`
	Since time.Time `json:"since,omitzero"` // when this schedule was first seen
	// After: runs that were due later than this count.
	After time.Time `json:"after,omitzero"`
	Last  time.Time `json:"last,omitzero"` // when the last run began, or its last try
	Good  time.Time `json:"good,omitzero"` // when the last run that was good began
	// Owed is when a run was due, by the schedule of before, that has not begun.
	Owed time.Time `json:"owed,omitzero"`

	Running bool  `json:"running,omitempty"`
	Asked   bool  `json:"asked,omitempty"` // somebody asked for what runs
	Job     int64 `json:"job,omitempty"`   // the last one

	// Of the run that is not over:
	Began time.Time `json:"began,omitzero"`
	Tries int       `json:"tries,omitempty"` // that it has used up
	Held  int       `json:"held,omitempty"`  // how often in a row it was prevented
	Retry time.Time `json:"retry,omitzero"`  // when it is tried again

	Failures int `json:"failures,omitempty"` // since the last try that was good
}

// task is a Task whose schedule was read.
type task struct {
	Task
	schedule *policy.Schedule
}

// decision is what is to be done about a task.
type decision struct {
	run bool // now
	try Try  // which one
	// next is when something is to be done next, as far as is known; zero if never.
	next time.Time
	// paused says why a run that is due does not begin; "" if none is, or if it does.
	paused string
}

// see takes notice of a task and of the time: that it is new, or not what it was, or
// that the clock is. It tells whether the record has changed.
func (r *Record) see(t task, now time.Time) bool {
	if r.Since.IsZero() {
		*r = Record{Spec: t.Spec, Since: now, After: now}
		return true
	}
	changed := r.believe(now)
	if r.Spec != t.Spec {
		r.change(t, now)
		changed = true
	}
	if !r.Running && !r.Retry.IsZero() && t.Attempts.Passed(r.Began, now) { // while something stood in its way
		r.Failures++
		r.over()
		changed = true
	}
	return changed
}

// change takes over another schedule. What was due by the old one still is.
func (r *Record) change(t task, now time.Time) {
	if old, err := r.Spec.Schedule(); err == nil && !r.Running {
		if due, ok := missed(old, r.After, now); ok {
			r.Owed = due
		}
	}
	if t.schedule == nil {
		r.Owed = time.Time{}
	}
	r.Spec, r.Since, r.After = t.Spec, now, now
}

// believe puts right what is dated after now: the clock was put back while nobody
// looked, and nobody knows how long ago the last run was. If it is ahead by less than
// half of the time to the next run, the task waits for that one. Else it waits for the
// next one that the clock comes to.
func (r *Record) believe(now time.Time) bool {
	newest := r.Since
	if r.Last.After(newest) {
		newest = r.Last
	}
	ahead := newest.Sub(now)
	if ahead <= 0 || newest.Equal(r.Last) && ahead <= r.After.Sub(r.Last) {
		return false
	}
	r.shift(-ahead)
	r.After = now
	return true
}

// shift moves all times, as the clock was moved.
func (r *Record) shift(by time.Duration) {
	for _, t := range []*time.Time{&r.Since, &r.After, &r.Last, &r.Good, &r.Owed, &r.Began, &r.Retry} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
}

// missed is Schedule.Missed, quickly where there is none.
func missed(s *policy.Schedule, after, now time.Time) (time.Time, bool) {
	if s == nil {
		return time.Time{}, false
	}
	if next := s.Next(after); next.IsZero() || next.After(now) {
		return time.Time{}, false
	}
	return s.Missed(after, now)
}

// decide says what is to be done.
func (r *Record) decide(t task, now time.Time) decision {
	d := decision{next: r.upcoming(t, now)}
	if r.Running {
		return d
	}
	_, fresh := missed(t.schedule, r.After, now)
	fresh = fresh || !r.Owed.IsZero()
	switch {
	case fresh: // it takes the place of a run whose tries go on
		d.try = Try{Number: 1, Began: now}
	case r.Retry.IsZero():
		return d
	case r.Retry.After(now):
		d.next = earlier(d.next, r.Retry)
		return d
	default:
		d.try = Try{Number: r.Tries + 1, Began: r.Began}
	}
	if t.Blocked != "" {
		d.paused = t.Blocked
		return d
	}
	if t.schedule != nil {
		if open := t.schedule.Open(now); open.After(now) {
			d.paused, d.next = "window until "+open.Format("15:04"), earlier(d.next, open)
			return d
		}
	}
	if t.Attempts.Deadline > 0 {
		d.try.Until = d.try.Began.Add(t.Attempts.Deadline)
	}
	d.run, d.next = true, now
	return d
}

// upcoming is when the schedule has its next run.
func (r *Record) upcoming(t task, now time.Time) time.Time {
	if t.schedule == nil {
		return time.Time{}
	}
	if r.After.After(now) {
		now = r.After
	}
	return t.schedule.Next(now)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// begin records a try that begins.
func (r *Record) begin(t task, try Try, now time.Time) {
	r.Running, r.Asked, r.Last = true, try.Asked, now
	if try.Asked { // it is beside what is due
		return
	}
	if try.Number == 1 && now.Equal(try.Began) {
		// No run is due before half of the time to the next one has passed: a clock that
		// is put back a little finds none that was had already.
		r.After = now
		if next := r.upcoming(t, now); !next.IsZero() {
			r.After = now.Add(next.Sub(now) / 2)
		}
		r.over()
		r.Owed = time.Time{}
	}
	r.Began, r.Retry = try.Began, time.Time{}
}

// end records how a try ended.
func (r *Record) end(t task, outcome Outcome, now time.Time) {
	asked := r.Asked
	r.Running, r.Asked = false, false
	switch outcome {
	case Good:
		r.Good, r.Failures = r.Last, 0
		r.over()
		return
	case Failed, Final:
		r.Failures++
	}
	if asked { // whoever asked sees how it ended; what is due stays due
		return
	}
	switch outcome {
	case Stopped:
		r.Retry = now
		return
	case Prevented:
		r.Held++
		r.Retry = now.Add(t.Attempts.Wait(r.Held))
		return
	case Failed:
		r.Held = 0
		r.Tries++
		if at, ok := t.Attempts.Next(r.Began, now, r.Tries); ok {
			r.Retry = at
			return
		}
	}
	r.over()
}

// over: the run has had its tries.
func (r *Record) over() {
	r.Began, r.Retry, r.Tries, r.Held = time.Time{}, time.Time{}, 0, 0
}

// overdue returns since when a run has been due that was not good in time, which is its
// deadline, or else the run after it. Zero if all is well.
func (r *Record) overdue(t task, now time.Time) time.Time {
	if t.schedule == nil || r.Since.IsZero() {
		return time.Time{}
	}
	from := r.Since
	if r.Good.After(from) {
		from = r.Good
	}
	due := t.schedule.Next(from)
	if due.IsZero() {
		return due
	}
	late := t.schedule.Next(due)
	if t.Attempts.Deadline > 0 {
		late = due.Add(t.Attempts.Deadline)
	}
	if late.IsZero() || now.Before(late) {
		return time.Time{}
	}
	return due
}
