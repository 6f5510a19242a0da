package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"
)

// Schedule says when something runs. It is never changed, and may be used by several
// goroutines at once.
type Schedule struct {
	calendar calendar
	zone     *time.Location
	closed   closed
	jitter   time.Duration
	share    float64 // of the jitter that is this host's, from 0 up to but without 1
}

// Options are what belongs to a schedule beside its text.
type Options struct {
	// Zone is whose local time is meant; nil is UTC.
	Zone *time.Location
	// Not are windows in which nothing begins. A run that falls into one begins when
	// it ends, and several of them are one.
	Not []Window
	// Jitter puts every run later by up to this much, at most a day: by a share of it
	// that hangs on Seed alone, so that hosts spread and each stays put. It is made
	// smaller where a window would begin before it is over.
	Jitter time.Duration
	Seed   string // such as vault/item
}

// maxJitter is the longest jitter.
const maxJitter = 24 * time.Hour

// ErrNever: windows leave no time of the week in which to run.
var ErrNever = errors.New("the windows cover the whole week, so that nothing ever runs; leave some time between them")

// ParseSchedule reads a cron expression or words. Faults of the text are *ParseError.
//
// A cron expression has five fields: minute (0-59), hour (0-23), day of the month
// (1-31), month (1-12, jan-dec), day of the week (0-7, sun-sat; 0 and 7 are Sunday).
// A field is *, a value, a range, a step (*/4, 8-18/2), or a list of these. A range of
// days of the week may go over its end (fri-mon). As in crontab(5), if neither of the
// two fields of days begins with *, a day that satisfies one of them is meant. @hourly,
// @daily, @midnight, @weekly, @monthly, @yearly and @annually are short for others.
//
// In words, in capitals or not:
//
//	hourly [at :MM]
//	every N minutes              N divides 60
//	every N hours [at :MM]       N divides 24; counted from 00:00
//	daily [at TIMES]             also: every day
//	DAYS [at TIMES]              weekdays, weekends, mon, mon-fri, monday and friday; also: every DAYS
//	weekly [on DAYS] [at TIMES]
//	monthly [on DATES] [at TIMES]
//	yearly [on DATE] [at TIMES]
//
// TIMES are times of day, 00:00 to 23:59, DATES days of the month (1, 15th, last day)
// or one of the first to fourth of a weekday (the first sunday), DATE is a day and a
// month (24 dec). Lists have commas or "and" between. What is left out is 00:00,
// Sunday, the 1st and 1 January.
//
// A local time that does not exist, because clocks are put forward, runs at the first
// moment after it. One that comes twice, because they are put back, runs the first
// time; but what runs in every hour of the day goes on through both.
func ParseSchedule(text string, o Options) (*Schedule, error) {
	s := &Schedule{zone: o.Zone, closed: sum(o.Not), jitter: o.Jitter, share: share(o.Seed)}
	if s.zone == nil {
		s.zone = time.UTC
	}
	src := source{"schedule", text}
	err := src.check()
	if err != nil {
		return nil, err
	}
	if s.calendar, err = src.calendar(); err != nil {
		return nil, err
	}
	switch {
	case s.closed.always():
		return nil, ErrNever
	case o.Jitter < 0 || o.Jitter > maxJitter:
		return nil, fmt.Errorf("jitter is %s, and may be 0 to 24h", o.Jitter)
	}
	return s, nil
}

func (s source) calendar() (calendar, error) {
	fields := s.split("")
	if len(fields) == 0 {
		return calendar{}, s.fail(s.end(), `write "daily at 02:00" or a cron expression`, "it is empty")
	}
	switch c := fields[0].text[0]; {
	case c == '@':
		if c, err := s.alias(fields[0]); err != nil || len(fields) == 1 {
			return c, err
		}
		return calendar{}, s.fail(fields[1], "leave it out", "%q is not expected here", fields[1].text)
	case len(fields[0].text) > 3 && (fields[0].text[:3] == "tz=" || len(fields[0].text) > 8 && fields[0].text[:8] == "cron_tz="):
		return calendar{}, s.fail(fields[0], "set the time zone of the policy", "a time zone is not part of a schedule")
	case c >= 'a' && c <= 'z' && fields[0].text != "h" && fields[0].text != "l":
		w := words{source: s, rest: s.split(",")}
		return w.schedule()
	}
	return s.cron(fields)
}

// share maps a seed to 0 up to but without 1, evenly. It is the same for ever: hosts
// do not move because the program was upgraded.
func share(seed string) float64 {
	digest := sha256.Sum256([]byte(seed))
	return float64(binary.BigEndian.Uint64(digest[:8])>>11) / (1 << 53)
}

// Next returns the first run later than after. It is zero if there is none within a
// hundred years, or after the year 9000: neither happens with a clock that is right.
func (s *Schedule) Next(after time.Time) time.Time {
	after = after.Round(0) // by the wall clock alone
	if first := time.Date(1, 1, 3, 0, 0, 0, 0, time.UTC); after.Before(first) {
		after = first
	}
	if after.Year() > 9000 {
		return time.Time{}
	}
	// A run is later than the time it is due by less than the jitter.
	for due := after.Add(-s.jitter); ; {
		if due = s.due(due); due.IsZero() {
			return due
		}
		if run := s.spread(due); run.After(after) {
			return run
		}
	}
}

// Runs returns the next n runs later than after, or as many as there are.
func (s *Schedule) Runs(after time.Time, n int) []time.Time {
	var out []time.Time
	for range n {
		if after = s.Next(after); after.IsZero() {
			break
		}
		out = append(out, after)
	}
	return out
}

// Open returns t, or the end of the window that t is in.
func (s *Schedule) Open(t time.Time) time.Time {
	if len(s.closed) == 0 {
		return t
	}
	if in, until := s.hold(t); in {
		return until.In(s.zone)
	}
	return t
}

// due returns the first time after t at which a run is due, without jitter.
func (s *Schedule) due(t time.Time) time.Time {
	if len(s.closed) == 0 {
		return s.calendar.after(t, s.zone)
	}
	if begin := s.begin(t); !begin.IsZero() {
		t = begin.Add(-1) // what fell into the window before t is still to come
	}
	next := s.calendar.after(t, s.zone)
	if next.IsZero() {
		return next
	}
	return s.Open(next)
}

// begin returns when the window that t is in began; zero if t is in none.
func (s *Schedule) begin(t time.Time) time.Time {
	if in, _ := s.hold(t); !in {
		return time.Time{}
	}
	// A window is shorter than a week, or than two where the only time between windows is
	// left out as clocks are put forward.
	for at := t.AddDate(0, 0, -23); ; {
		in, until := s.hold(at)
		if in && until.After(t) {
			return at
		}
		at = until
	}
}

// spread adds the jitter to a time that is in no window. Later times stay later, and
// none comes to be in a window.
func (s *Schedule) spread(due time.Time) time.Time {
	most := s.jitter
	if most > 0 && len(s.closed) > 0 {
		_, until := s.hold(due)
		most = min(most, until.Sub(due))
	}
	return due.Add(time.Duration(float64(most) * s.share).Truncate(time.Second))
}

// Missed tells whether a run should have begun after last, when the last one began,
// and not later than now; and which was the latest. However many were missed, one run
// makes up for them, at Open(now): once it has begun, none is missed any more.
//
// A zero last is that of a thing that is not known to have run: nothing was missed. A
// last that is later than now comes from a clock that was ahead: nothing was missed
// either, and Next(now) goes on as ever.
func (s *Schedule) Missed(last, now time.Time) (due time.Time, missed bool) {
	last, now = last.Round(0), now.Round(0)
	if last.IsZero() || !last.Before(now) {
		return time.Time{}, false
	}
	if oldest := now.AddDate(-farthest, 0, 0); last.Before(oldest) {
		last = oldest
	}
	none := func(seconds int) bool { // no run after that time up to now
		next := s.Next(last.Add(time.Duration(seconds) * time.Second))
		return next.IsZero() || next.After(now)
	}
	// Runs are whole seconds apart, so a second before the first "none" is the latest.
	seconds := sort.Search(int(min(int64(now.Sub(last)/time.Second)+1, math.MaxInt)), none)
	if seconds == 0 {
		return time.Time{}, false
	}
	return s.Next(last.Add(time.Duration(seconds-1) * time.Second)), true
}
