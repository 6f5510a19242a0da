package notify

import (
	"cmp"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// How long a fault that comes and goes is remembered, and how long it has to wait
// before it is told again: twice as long each time.
const (
	flapMemory = time.Hour
	flapFirst  = 5 * time.Minute
)

// repeatStd is after how long a fault that lasts is told again unless said otherwise.
const repeatStd = 24 * time.Hour

// fault is something that is wrong, until all who were told of it know that it is over.
type fault struct {
	Notice message.Notice  `json:"notice"` // the newest
	Raised time.Time       `json:"raised"` // when it last became worth telling: it began, came back or became worse
	Stage  int             `json:"stage"`  // how often it did
	Ended  time.Time       `json:"ended,omitzero"`
	Over   *message.Notice `json:"over,omitempty"` // what to tell of its end
	Flaps  int             `json:"flaps,omitempty"`
	Told   map[string]told `json:"told"` // by channel
}

// told is what a channel was told of a fault.
type told struct {
	At    time.Time `json:"at"`
	Stage int       `json:"stage"`
	Over  bool      `json:"over,omitempty"` // that it is over
}

func (f *fault) over() bool { return f.Over != nil }

// happen notes that the fault is reported.
func (f *fault) happen(now time.Time, m message.Notice, how How) {
	raise := how == Graver || f.Stage == 0
	if f.over() { // it came back
		f.Flaps++
		f.Over, f.Ended = nil, time.Time{}
		raise = true
	}
	m.Count = f.Notice.Count
	if raise {
		f.Raised = now
		f.Stage++
	}
	if raise || how == Again {
		m.Count++
	}
	f.Notice = m
}

// end notes that the fault is over.
func (f *fault) end(now time.Time, m message.Notice) {
	m.Item, m.Count, m.Subject = f.Notice.Item, f.Notice.Count, cmp.Or(m.Subject, f.Notice.Subject)
	f.Over, f.Ended = &m, now
}

// notice is what there is to tell of the fault now.
func (f *fault) notice() message.Notice {
	if f.over() {
		return *f.Over
	}
	return f.Notice
}

// due is when a channel is to be told of the fault, which may be long ago.
func (f *fault) due(name string, cfg config.Notify) (at time.Time, ok bool) {
	t, known := f.Told[name]
	if f.over() {
		return f.Ended, known && !t.Over && wants(cfg, *f.Over)
	}
	if !wants(cfg, f.Notice) {
		return time.Time{}, false
	}
	repeat := time.Duration(cfg.Repeat)
	if repeat <= 0 {
		repeat = repeatStd
	}
	switch {
	case !known:
		return f.Raised, true
	case t.Stage < f.Stage:
		if f.Flaps == 0 {
			return f.Raised, true
		}
		return later(f.Raised, t.At.Add(f.flapWait(repeat))), true
	}
	return t.At.Add(repeat), true
}

// flapWait is how long after it was told the last time a fault that came back is told.
func (f *fault) flapWait(repeat time.Duration) time.Duration {
	wait := flapFirst
	for range f.Flaps - 1 {
		if wait >= repeat {
			break
		}
		wait *= 2
	}
	return min(wait, repeat)
}

// telling is what a channel knows that is told of the fault now.
func (f *fault) telling(now time.Time) told { return told{At: now, Stage: f.Stage, Over: f.over()} }

// done tells whether nothing hangs on the fault any more.
func (f *fault) done(now time.Time, channels map[string]config.Notify) bool {
	if !f.over() || now.Sub(f.Ended) < flapMemory && !now.Before(f.Ended) {
		return false
	}
	for name, cfg := range channels {
		if _, ok := f.due(name, cfg); ok {
			return false
		}
	}
	return true
}

// mend takes back times that are in the future: the clock was put back, and nothing
// may wait until it is there again.
func (f *fault) mend(now time.Time) {
	if f.Raised.After(now) {
		f.Raised = now
	}
	if f.Ended.After(now) {
		f.Ended = now
	}
	for name, t := range f.Told {
		if t.At.After(now) {
			t.At = now
			f.Told[name] = t
		}
	}
}

// wants tells whether a channel is to be told of something.
func wants(cfg config.Notify, m message.Notice) bool {
	if len(cfg.Items) > 0 && !slices.Contains(cfg.Items, m.Item) || cfg.Ping != nil {
		return false
	}
	if len(cfg.On) == 0 {
		return m.Kind != message.Success
	}
	return slices.Contains(cfg.On, string(m.Kind))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
