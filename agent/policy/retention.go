package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Retention says which points of an item are kept. A point is kept if one rule keeps
// it. Zero is no rule.
type Retention struct {
	// Last keeps the newest ones.
	Last int
	// Hourly to Yearly keep the newest point of each of so many hours, days, weeks (from
	// Monday, ISO 8601), months and years that have points. Those that have none do not
	// count, so that nothing goes because a host was switched off.
	Hourly, Daily, Weekly, Monthly, Yearly int
	// Within keeps what is not older than this, counted back from the newest good point
	// and not from the clock: where no backup is made, nothing goes.
	Within time.Duration
	// Tags keep the points that have one of them.
	Tags []string
	// Minimum is how many of the newest good points are kept whatever the rules say;
	// 0 is 1.
	Minimum int
	// Zone is whose hours and days are meant; nil is UTC.
	Zone *time.Location
}

// Allow is what an operator has asked for by name. The zero value is safe.
type Allow struct {
	// Empty allows a retention that keeps nothing: there need not be a rule, and Minimum
	// 0 is 0. Holds, and points dated after the clock, are kept even so.
	Empty bool
}

// Point is a recovery point, as far as it matters here.
type Point struct {
	ID   string    // its name; one in the item
	Time time.Time // when the backup began
	Tags []string
	// Holds keep it until they are released.
	Holds []Hold
	// Damaged: it is known not to restore as a whole. It counts for no number and stands
	// for no day, and is let go only when a newer good point is there.
	Damaged bool
	// Asked: somebody asked for it to go.
	Asked bool
}

// Hold keeps a point against all rules.
type Hold struct {
	Owner  string // who asked for it
	Reason string
}

// Decision is what becomes of a point.
type Decision struct {
	Point Point
	Keep  bool
	// Reasons say why, in a fixed order; at least one. Decisions may share them: they
	// are not to be changed.
	Reasons []string
	// Expires is, for a point that is kept, before when no rule lets it go, however many
	// backups are made by a clock that is right: "not before". Zero if the next backup
	// may be enough, and if it is pinned.
	Expires time.Time
	// Pinned: a hold, a tag or its date keeps it, and no backup changes that.
	Pinned bool
}

// ErrKeepsNothing: a retention would let every point go.
var ErrKeepsNothing = errors.New("the retention has no rule, so that nothing is kept but holds; " +
	"give it one (last, hourly, daily, weekly, monthly, yearly, within, tags), or ask for it with --allow-empty")

// Check tells what is wrong with a retention.
func (r Retention) Check(allow Allow) error {
	for _, f := range []struct {
		name string
		n    int
	}{
		{"last", r.Last}, {"hourly", r.Hourly}, {"daily", r.Daily}, {"weekly", r.Weekly},
		{"monthly", r.Monthly}, {"yearly", r.Yearly}, {"minimum", r.Minimum},
	} {
		if f.n < 0 {
			return fmt.Errorf("retention %s is %d; write how many to keep, or leave it out", f.name, f.n)
		}
	}
	if r.Within < 0 {
		return fmt.Errorf("retention within is %s; write how long to keep, such as 30d", r.Within)
	}
	if slices.Contains(r.Tags, "") {
		return errors.New("retention tags has an empty tag; leave it out")
	}
	if !allow.Empty && r.empty() {
		return ErrKeepsNothing
	}
	return nil
}

func (r Retention) empty() bool {
	return max(r.Last, r.Hourly, r.Daily, r.Weekly, r.Monthly, r.Yearly) == 0 && r.Within == 0 && len(r.Tags) == 0
}

// Decide says of each point whether it is kept, oldest first; of one time, by ID. If
// the retention does not pass Check there are no decisions and nothing may be let go.
//
// The newest point of an hour, day, week, month or year stands for it. A point that
// is listed twice counts once. One that somebody asked to go counts for nothing, so that
// no other goes because of it; a hold keeps it all the same.
//
// now is trusted for one thing only. Points dated after it come from a clock that was
// ahead, or the clock is behind now: nobody can tell. They are kept, and count for
// nothing, until the clock has passed them. Else now changes nothing, so that a clock
// which jumps forth or back lets nothing go by itself. A backup that is made while it
// is wrong counts as one backup: it may take the place of the oldest of a rule as the
// next right one would have, early by the jump at the most.
func Decide(points []Point, r Retention, now time.Time, allow Allow) ([]Decision, error) {
	if err := r.Check(allow); err != nil {
		return nil, fmt.Errorf("decide what to keep: %w", err)
	}
	d := decider{r: r, now: now, zone: r.Zone}
	if d.zone == nil {
		d.zone = time.UTC
	}
	if d.r.Minimum == 0 && !allow.Empty {
		d.r.Minimum = 1
	}
	d.sort(points)
	d.always()
	d.newest()
	d.counted()
	for _, p := range d.periods() {
		d.period(p)
	}
	d.expired()
	return d.whole(), nil
}

// KeepAll says of each point what becomes of it where no retention is: it is kept, unless
// somebody asked for it to go and nobody holds it. They come in the order of points.
func KeepAll(points []Point) []Decision {
	out := make([]Decision, 0, len(points))
	for _, p := range points {
		if p.goes() {
			out = append(out, Decision{Point: p, Reasons: []string{asked}})
			continue
		}
		why := []string{"no retention: everything is kept"}
		for _, h := range p.Holds {
			why = append(why, h.Why())
		}
		out = append(out, Decision{Point: p, Keep: true, Reasons: why, Pinned: true})
	}
	return out
}

// asked is why a point goes that somebody asked to go.
const asked = "somebody asked for it to go"

func (p Point) goes() bool { return p.Asked && len(p.Holds) == 0 }

// decider holds what is decided.
type decider struct {
	r    Retention
	now  time.Time
	zone *time.Location
	out  []Decision // oldest first
	// asked are those that somebody asked to go and nobody holds; they are not in out.
	asked []Decision
	past  int // out[:past] are not dated after now
	// good are the indexes in out of points that are neither damaged nor dated after
	// now, newest first: those that count.
	good []int
}

// sort fills out.
func (d *decider) sort(points []Point) {
	d.out = make([]Decision, len(points))
	for i, p := range points {
		d.out[i].Point = p
	}
	slices.SortFunc(d.out, compareDecisions)
	d.out = slices.DeleteFunc(merge(d.out), func(c Decision) bool {
		if c.Point.goes() {
			d.asked = append(d.asked, Decision{Point: c.Point, Reasons: []string{asked}})
		}
		return c.Point.goes()
	})
	d.past = len(d.out)
	for d.past > 0 && d.out[d.past-1].Point.Time.After(d.now) {
		d.past--
	}
	for i := d.past - 1; i >= 0; i-- {
		if !d.out[i].Point.Damaged {
			d.good = append(d.good, i)
		}
	}
}

func compareDecisions(a, b Decision) int {
	return cmp.Or(a.Point.Time.Compare(b.Point.Time), cmp.Compare(a.Point.ID, b.Point.ID))
}

// whole is what is decided of all points.
func (d *decider) whole() []Decision {
	if len(d.asked) == 0 {
		return d.out
	}
	all := slices.Concat(d.out, d.asked)
	slices.SortFunc(all, compareDecisions)
	return all
}

// merge makes one of points that are listed twice: with all their holds and tags, and
// damaged, or asked to go, if one of them is.
func merge(sorted []Decision) []Decision {
	out := sorted[:0]
	for _, next := range sorted {
		n := len(out)
		if n == 0 || next.Point.ID != out[n-1].Point.ID || !next.Point.Time.Equal(out[n-1].Point.Time) {
			out = append(out, next)
			continue
		}
		p := &out[n-1].Point
		p.Tags = union(p.Tags, next.Point.Tags, cmp.Compare[string])
		p.Holds = union(p.Holds, next.Point.Holds, compareHolds)
		p.Damaged = p.Damaged || next.Point.Damaged
		p.Asked = p.Asked || next.Point.Asked
	}
	return out
}

func union[T comparable](a, b []T, compare func(T, T) int) []T {
	all := slices.Concat(a, b)
	slices.SortFunc(all, compare)
	return slices.Compact(all)
}

func compareHolds(a, b Hold) int {
	return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Reason, b.Reason))
}

// keep notes a reason. notBefore is zero or past if it may end with the next backup.
func (d *decider) keep(i int, reason string, notBefore time.Time) {
	p := &d.out[i]
	p.Keep = true
	p.Reasons = append(p.Reasons, reason)
	if !p.Pinned && notBefore.After(d.now) && notBefore.After(p.Expires) {
		p.Expires = notBefore
	}
}

// pin notes a reason that no backup ends.
func (d *decider) pin(i int, reason string) {
	d.keep(i, reason, time.Time{})
	d.out[i].Pinned = true
}

// always: holds, tags, and what is dated after now.
func (d *decider) always() {
	for i := range d.out {
		p := &d.out[i].Point
		for _, h := range slices.SortedFunc(slices.Values(p.Holds), compareHolds) {
			d.pin(i, h.Why())
		}
		for _, tag := range slices.Compact(slices.Sorted(slices.Values(d.r.Tags))) {
			if slices.Contains(p.Tags, tag) {
				d.pin(i, "tag "+tag)
			}
		}
		if i >= d.past {
			d.pin(i, "dated after the clock: kept, and not counted, until then")
		}
	}
}

// Why says for people what keeps a held point.
func (h Hold) Why() string {
	switch {
	case h.Owner == "" && h.Reason == "":
		return "held"
	case h.Owner == "":
		return "held: " + h.Reason
	case h.Reason == "":
		return "held by " + h.Owner
	}
	return "held by " + h.Owner + ": " + h.Reason
}

// newest: the minimum, and damaged points that no good one has followed.
func (d *decider) newest() {
	from := 0
	if len(d.good) > 0 {
		from = d.good[0] + 1
	}
	for i := from; i < d.past && d.r.Minimum > 0; i++ {
		d.keep(i, "damaged, but no newer point is good", time.Time{})
	}
	for rank, i := range d.good[:min(d.r.Minimum, len(d.good))] {
		if d.r.Minimum == 1 {
			d.keep(i, "newest good point", time.Time{})
		} else {
			d.keep(i, fmt.Sprintf("minimum %d of %d", rank+1, d.r.Minimum), time.Time{})
		}
	}
}

// counted: last and within.
func (d *decider) counted() {
	for rank, i := range d.good[:min(d.r.Last, len(d.good))] {
		d.keep(i, fmt.Sprintf("last %d of %d", rank+1, d.r.Last), time.Time{})
	}
	if d.r.Within == 0 || len(d.good) == 0 {
		return
	}
	reason := "within " + Span(d.r.Within)
	newest := d.out[d.good[0]].Point.Time
	for i := range d.past {
		t := d.out[i].Point.Time
		if !t.Before(newest.Add(-d.r.Within)) {
			d.keep(i, reason, t.Add(d.r.Within))
		}
	}
}
