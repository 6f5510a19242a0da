package proof

import (
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/store/pack"
)

// Pack is a pack and when it was read last.
type Pack struct {
	ID pack.ID
	// Read is when all of it was last read and found good; zero if it never was.
	Read time.Time
	// Known is since when it is known not to have been read; zero: this run is the
	// first to see it.
	Known time.Time
}

// since is from when on the pack's time runs. What is said to lie in the future was
// written by a clock that was wrong: nothing is known of it.
func (p Pack) since(plan Plan) time.Time {
	for _, t := range []time.Time{p.Read, p.Known} {
		if !t.IsZero() && !t.After(plan.Now) {
			return t
		}
	}
	return plan.New()
}

// Plan of a run.
type Plan struct {
	Now time.Time
	// Interval is how long it is until the next run, at the most, and Every how long a
	// pack may go unread. They say how many packs are read.
	Interval, Every time.Duration
	// Part, if not 0, says it instead, in percent.
	Part int
}

// New is from when on the time of a pack runs that this run is the first to see: it was
// not there at the last run.
func (p Plan) New() time.Time { return p.Now.Add(-p.Interval) }

// Choose returns the packs that a run reads, those that have waited the longest first.
//
// Of all packs it takes the share that this run has of Every, so that runs are alike;
// and beyond it each pack that would be older than Every before the next run ends. So
// whatever was missed is caught up by the next run, and no clock that jumps can put a
// pack off for longer than Every.
func Choose(packs []Pack, plan Plan) []pack.ID {
	sorted := slices.Clone(packs)
	slices.SortStableFunc(sorted, func(a, b Pack) int { return a.since(plan).Compare(b.since(plan)) })
	n := share(len(sorted), plan)
	if plan.Part == 0 {
		late := plan.Now.Add(plan.Interval - plan.Every)
		for n < len(sorted) && !sorted[n].since(plan).After(late) {
			n++
		}
	}
	ids := make([]pack.ID, n)
	for i := range ids {
		ids[i] = sorted[i].ID
	}
	return ids
}

// share is how many packs of so many a run takes at least.
func share(packs int, plan Plan) int {
	if plan.Part != 0 {
		return min((packs*plan.Part+99)/100, packs)
	}
	runs := 1 // in Every
	if plan.Interval > 0 {
		runs = max(int(plan.Every/plan.Interval), 1)
	}
	return (packs + runs - 1) / runs
}

// looked is how many runs Interval looks ahead.
const looked = 8

// Interval is how long it is from a run at now to the next, at the most: schedules are
// not even.
func Interval(s *policy.Schedule, now time.Time) time.Duration {
	longest, last := time.Duration(0), now
	for _, next := range s.Runs(now, looked) {
		longest = max(longest, next.Sub(last))
		last = next
	}
	return longest
}
