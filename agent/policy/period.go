package policy

import (
	"fmt"
	"time"
)

// period is a rule that keeps one point of each of n periods.
type period struct {
	rule, noun string // "daily", "day"
	n          int
	begin      func(time.Time) time.Time // of the period that a local time is in
	next       func(time.Time) time.Time // of the period behind the one that begins there
}

// periods returns the rules, the shortest first.
func (d *decider) periods() []period {
	date := func(year int, month time.Month, day int) time.Time {
		return startOf(year, month, day, d.zone)
	}
	hour := func(t time.Time) time.Time {
		// Not by the clock on the wall alone: an hour that comes twice is two.
		past := time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
		begin := t.Add(-past)
		if change := stretchOf(t, d.zone).start; begin.Before(change) {
			return change.In(d.zone)
		}
		return begin
	}
	return []period{
		{"hourly", "hour", d.r.Hourly, hour, func(t time.Time) time.Time { return hour(t.Add(time.Hour)) }},
		{
			"daily", "day", d.r.Daily,
			func(t time.Time) time.Time { return date(t.Date()) },
			func(t time.Time) time.Time { return date(t.Year(), t.Month(), t.Day()+1) },
		},
		{
			"weekly", "week", d.r.Weekly,
			func(t time.Time) time.Time {
				return date(t.Year(), t.Month(), t.Day()-(int(t.Weekday())+6)%7)
			},
			func(t time.Time) time.Time { return date(t.Year(), t.Month(), t.Day()+7) },
		},
		{
			"monthly", "month", d.r.Monthly,
			func(t time.Time) time.Time { return date(t.Year(), t.Month(), 1) },
			func(t time.Time) time.Time { return date(t.Year(), t.Month()+1, 1) },
		},
		{
			"yearly", "year", d.r.Yearly,
			func(t time.Time) time.Time { return date(t.Year(), 1, 1) },
			func(t time.Time) time.Time { return date(t.Year()+1, 1, 1) },
		},
	}
}

// startOf returns the first moment of a day. It need not be 00:00: clocks may be put
// forward then.
func startOf(year int, month time.Month, day int, zone *time.Location) time.Time {
	wall := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	s := stretchOf(wall.Add(-26*time.Hour), zone) // no zone is further from UTC
	for {
		at := wall.Add(-s.offset)
		if s.has(at) {
			return at.In(zone)
		}
		change := s.end
		if s = stretchOf(change, zone); s.wall(change).After(wall) {
			return change.In(zone)
		}
	}
}

// period keeps the newest point of each of p.n periods.
func (d *decider) period(p period) {
	if p.n == 0 || len(d.good) == 0 {
		return
	}
	rank := 0
	var begins, ends time.Time // of the period that was kept last
	var open time.Time         // the first period that has no point yet
	for _, i := range d.good {
		t := d.out[i].Point.Time.In(d.zone)
		if rank > 0 && !t.Before(begins) {
			continue // a newer point stands for it
		}
		if rank == p.n {
			break
		}
		rank++
		begins = p.begin(t)
		ends = p.next(begins)
		var notBefore time.Time
		if rank == 1 {
			open = ends
			if !d.now.Before(ends) {
				open = p.begin(d.now.In(d.zone))
			}
		}
		if rank > 1 || !d.now.Before(ends) { // else a newer one of the same period is enough
			notBefore = open
			for range p.n - rank {
				notBefore = p.next(notBefore)
			}
		}
		d.keep(i, fmt.Sprintf("%s %d of %d", p.rule, rank, p.n), notBefore)
	}
}

// expired says of what is not kept why.
func (d *decider) expired() {
	var damaged, why []string
	for _, p := range d.periods() {
		if p.n > 0 {
			why = append(why, fmt.Sprintf("%s: newer points stand for its %s or for all %d", p.rule, p.noun, p.n))
		}
	}
	if d.r.Last > 0 {
		why = append([]string{fmt.Sprintf("last: not one of the newest %d", d.r.Last)}, why...)
	}
	if d.r.Within > 0 {
		why = append(why, "within: older than "+Span(d.r.Within)+" before the newest")
	}
	if len(d.r.Tags) > 0 {
		why = append(why, "tags: it has none of them")
		damaged = why[len(why)-1:]
	}
	if len(why) == 0 {
		why = []string{"no rule keeps it"}
	}
	damaged = append([]string{"damaged, and a newer point is good"}, damaged...)
	if d.r.Minimum == 0 {
		damaged[0] = "damaged"
	}
	for i := range d.out {
		switch p := &d.out[i]; {
		case p.Keep:
		case p.Point.Damaged:
			p.Reasons = damaged
		default:
			p.Reasons = why
		}
	}
}
