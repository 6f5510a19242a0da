package policy_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

// world makes points and rules by chance, the same for a seed.
type world struct {
	*rand.Rand
	now time.Time
}

func (w world) points() []policy.Point {
	out := make([]policy.Point, w.IntN(60))
	scale := []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour}[w.IntN(4)]
	for i := range out {
		back := time.Duration(w.Int64N(int64(40*scale))) - scale // some are dated after now
		p := policy.Point{ID: fmt.Sprintf("p%02d", i), Time: w.now.Add(-back).Truncate(scale / 4), Damaged: w.IntN(8) == 0}
		if w.IntN(8) == 0 {
			p.Tags = []string{[]string{"release", "other"}[w.IntN(2)]}
		}
		if w.IntN(12) == 0 {
			p.Holds = []policy.Hold{{Owner: "anna", Reason: "audit"}}
		}
		out[i] = p
	}
	return out
}

func (w world) retention(zones []*time.Location) policy.Retention {
	n := func() int { return max(0, w.IntN(12)-5) }
	r := policy.Retention{
		Last: n(), Hourly: n(), Daily: n(), Weekly: n(), Monthly: n(), Yearly: n(),
		Minimum: w.IntN(3), Zone: zones[w.IntN(len(zones))],
	}
	if w.IntN(3) == 0 {
		r.Within = time.Duration(w.Int64N(int64(20 * 24 * time.Hour)))
	}
	if w.IntN(3) == 0 || r.Check(policy.Allow{}) != nil {
		r.Tags = []string{"release"}
	}
	return r
}

// more adds to one rule.
func (w world) more(r policy.Retention) policy.Retention {
	numbers := []*int{&r.Last, &r.Hourly, &r.Daily, &r.Weekly, &r.Monthly, &r.Yearly}
	switch k := w.IntN(len(numbers) + 3); {
	case k < len(numbers):
		*numbers[k] += 1 + w.IntN(4)
	case k == len(numbers):
		r.Within += time.Duration(w.Int64N(int64(10 * 24 * time.Hour)))
	case k == len(numbers)+1:
		r.Tags = append([]string{"other"}, r.Tags...)
	default:
		r.Minimum = max(1, r.Minimum) + 1
	}
	return r
}

// TestProperties holds Decide to what it promises, for points and rules by chance.
func TestProperties(t *testing.T) {
	zones := []*time.Location{nil, zone(t, "Europe/Berlin"), zone(t, "America/New_York"), zone(t, "Australia/Lord_Howe")}
	expired, future := 0, 0
	for seed := range uint64(3000) {
		w := world{rand.New(rand.NewPCG(seed, 1)), at(t, "2026-11-01T06:10").Add(time.Duration(seed) * 7 * time.Hour)}
		points, r := w.points(), w.retention(zones)
		decisions := decide(t, points, r, w.now, policy.Allow{})
		keeps := kept(decisions)
		expired += len(points) - len(keeps)
		fail := func(what string, missing []policy.Point) {
			t.Helper()
			if len(missing) > 0 {
				t.Fatalf("seed %d, %+v: %s: %+v", seed, r, what, missing)
			}
		}

		// The order does not matter, and the points that are given are not changed.
		shuffled := slices.Clone(points)
		w.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := decide(t, shuffled, r, w.now, policy.Allow{}); !reflect.DeepEqual(again, decisions) {
			t.Fatalf("seed %d: another order, another decision:\n%+v\n%+v", seed, decisions, again)
		}

		// What is kept stays kept without the rest, for the same reasons.
		again := decide(t, keeps, r, w.now, policy.Allow{})
		fail("is let go by and by", lost(keeps, kept(again)))
		reasons := slices.DeleteFunc(slices.Clone(decisions), func(d policy.Decision) bool { return !d.Keep })
		if len(keeps) > 0 && !reflect.DeepEqual(again, reasons) {
			t.Fatalf("seed %d: other reasons:\n%+v\n%+v", seed, reasons, again)
		}

		// A rule or a hold more lets nothing go.
		fail("goes by a rule more", lost(keeps, kept(decide(t, points, w.more(r), w.now, policy.Allow{}))))
		if len(points) > 0 {
			holding := slices.Clone(points)
			holding[w.IntN(len(holding))].Holds = []policy.Hold{{Owner: "berta"}}
			fail("goes by a hold", lost(keeps, kept(decide(t, holding, r, w.now, policy.Allow{}))))
		}

		// Holds, tags, what is dated after now and the newest good point stay, always.
		var newest policy.Point
		var must []policy.Point
		for _, p := range points {
			if p.Time.After(w.now) {
				future++
			}
			if len(p.Holds) > 0 || p.Time.After(w.now) || slices.ContainsFunc(p.Tags, func(tag string) bool { return slices.Contains(r.Tags, tag) }) {
				must = append(must, p)
			}
			if !p.Damaged && !p.Time.After(w.now) && cmp.Or(p.Time.Compare(newest.Time), cmp.Compare(p.ID, newest.ID)) > 0 {
				newest = p
			}
		}
		if newest.ID != "" {
			must = append(must, newest)
		}
		fail("must stay", lost(must, keeps))

		w.clock(t, points, r, fail)
	}
	if expired < 1000 || future < 1000 {
		t.Errorf("%d points expired and %d were dated after now: the cases say little", expired, future)
	}
}

// clock holds Decide to what it promises about clocks that jump.
func (w world) clock(t *testing.T, points []policy.Point, r policy.Retention, fail func(string, []policy.Point)) {
	t.Helper()
	keeps := kept(decide(t, points, r, w.now, policy.Allow{}))
	past := slices.DeleteFunc(slices.Clone(points), func(p policy.Point) bool { return p.Time.After(w.now) })
	pastKeeps := kept(decide(t, past, r, w.now, policy.Allow{}))

	// What is dated after now stays, and all else is as if it were not there.
	future := lost(points, past)
	fail("goes without what is dated after now", lost(keeps, append(slices.Clone(pastKeeps), future...)))
	fail("is pushed out by what is dated after now", lost(append(slices.Clone(pastKeeps), future...), keeps))

	// The clock goes back, by whatever, and comes again: nothing goes.
	back := kept(decide(t, points, r, w.now.Add(-time.Duration(w.Int64N(int64(24*time.Hour)))), policy.Allow{}))
	fail("goes as the clock is put back", lost(keeps, back))
	fail("goes as it is right again", lost(keeps, kept(decide(t, back, r, w.now, policy.Allow{}))))

	// It goes forth: nothing goes but for points dated in between.
	forth := w.now.Add(time.Duration(w.Int64N(int64(24 * time.Hour))))
	ahead := kept(decide(t, past, r, forth, policy.Allow{}))
	fail("goes as the clock is put forth", lost(pastKeeps, ahead))
	fail("goes as it is right again", lost(pastKeeps, kept(decide(t, ahead, r, w.now, policy.Allow{}))))
}

// TestExpires: before its time no point goes, however many backups are made; and each
// that no hold, tag or date keeps goes once enough are made.
func TestExpires(t *testing.T) {
	zones := []*time.Location{zone(t, "Europe/Berlin"), zone(t, "Australia/Lord_Howe")}
	told := 0
	for seed := range uint64(400) {
		w := world{rand.New(rand.NewPCG(seed, 2)), at(t, "2026-03-27T06:10").Add(time.Duration(seed) * 11 * time.Hour)}
		points, r := w.points(), w.retention(zones)
		decisions := decide(t, points, r, w.now, policy.Allow{})
		for _, d := range decisions {
			if d.Expires.IsZero() {
				continue
			}
			told++
			if d.Pinned || !d.Keep || !d.Expires.After(w.now) {
				t.Fatalf("seed %d: %+v", seed, d)
			}
			more := slices.Clone(points)
			last := d.Expires.Add(-time.Second)
			for i := range 100 { // spread from now to just before, and dense at its end
				share := time.Duration(float64(last.Sub(w.now)) * float64(i+1) / 100)
				more = append(more, policy.Point{ID: fmt.Sprintf("q%03d", i), Time: w.now.Add(share)})
			}
			if missing := lost([]policy.Point{d.Point}, kept(decide(t, more, r, last, policy.Allow{}))); len(missing) > 0 {
				t.Fatalf("seed %d, now %s, %+v: %+v goes before its time", seed, w.now, r, d)
			}
		}
		for i := range 40 {
			when := w.now.AddDate(i, 1, 0)
			points = append(points, policy.Point{ID: fmt.Sprintf("r%03d", i), Time: when})
		}
		left := kept(decide(t, points, r, w.now.AddDate(41, 0, 0), policy.Allow{}))
		for _, d := range decisions {
			if !d.Pinned && len(lost([]policy.Point{d.Point}, left)) == 0 {
				t.Fatalf("seed %d, %+v: %+v never goes", seed, r, d)
			}
		}
	}
	if told < 500 {
		t.Errorf("of %d points only was a time told", told)
	}
}

// TestDayByDay: letting go every day comes to the same as once at the end.
func TestDayByDay(t *testing.T) {
	r := policy.Retention{Last: 2, Hourly: 5, Daily: 7, Weekly: 4, Monthly: 6, Yearly: 2, Within: 50 * time.Hour, Zone: zone(t, "America/New_York")}
	now := at(t, "2025-01-01T01:30")
	var all, left []policy.Point
	for i := range 3 * 800 {
		now = now.Add(8 * time.Hour)
		p := policy.Point{ID: fmt.Sprintf("p%04d", i), Time: now}
		all, left = append(all, p), append(left, p)
		left = kept(decide(t, left, r, now.Add(time.Minute), policy.Allow{}))
	}
	if once := kept(decide(t, all, r, now.Add(time.Minute), policy.Allow{})); !reflect.DeepEqual(once, left) {
		t.Errorf("once:\n%v\nday by day:\n%v", once, left)
	}
}

// TestBackupByAWrongClock: a backup made while the clock is a day ahead takes the place
// of one point of each rule at the most, and no more goes when the clock is right again.
func TestBackupByAWrongClock(t *testing.T) {
	r := policy.Retention{Last: 3, Daily: 7, Weekly: 4, Monthly: 3, Within: 5 * 24 * time.Hour}
	now := at(t, "2026-11-22T09:00")
	var points []policy.Point
	for i := range 120 {
		points = append(points, policy.Point{ID: fmt.Sprintf("p%03d", i), Time: now.Add(-time.Duration(i)*24*time.Hour - 7*time.Hour)})
	}
	before := kept(decide(t, points, r, now, policy.Allow{}))
	ahead := now.Add(24 * time.Hour)
	wrong := policy.Point{ID: "wrong", Time: ahead.Add(-time.Hour)}
	during := kept(decide(t, append(slices.Clone(before), wrong), r, ahead, policy.Allow{}))
	if gone := lost(before, during); len(gone) > 3 {
		t.Errorf("one backup lets go %v", gone)
	}
	after := kept(decide(t, during, r, now, policy.Allow{}))
	if gone := lost(during, after); len(gone) > 0 {
		t.Errorf("the clock is right again, and %v goes", gone)
	}
	days := 0
	for _, p := range after {
		if p.ID != "wrong" && now.Sub(p.Time) < 6*24*time.Hour {
			days++
		}
	}
	if days != 6 {
		t.Errorf("%d of the last 6 days are left", days)
	}
}
