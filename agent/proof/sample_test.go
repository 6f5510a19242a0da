package proof_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/store/pack"
)

const day = 24 * time.Hour

func id(n int) (id pack.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

// simulated is packs as time and a verify by schedule go over them. Beside what the
// agent notes it keeps the true time of each reading.
type simulated struct {
	notes map[pack.ID]proof.Pack
	truth map[pack.ID]time.Time // last read or, if never, there since
	reads int
}

func (s *simulated) add(n int, now time.Time) {
	s.truth[id(n)] = now
	s.notes[id(n)] = proof.Pack{ID: id(n)}
}

// run is one run at a true time, with a clock that is wrong by off. It returns the
// longest that a pack had waited.
func (s *simulated) run(now time.Time, off, interval, every time.Duration) (longest time.Duration) {
	packs := make([]proof.Pack, 0, len(s.notes))
	for _, p := range s.notes {
		packs = append(packs, p)
	}
	slices.SortFunc(packs, func(a, b proof.Pack) int { return slices.Compare(a.ID[:], b.ID[:]) })
	for _, t := range s.truth {
		longest = max(longest, now.Sub(t))
	}
	clock := now.Add(off)
	plan := proof.Plan{Now: clock, Interval: interval, Every: every}
	chosen := proof.Choose(packs, plan)
	s.reads += len(chosen)
	for _, id := range chosen {
		s.notes[id] = proof.Pack{ID: id, Read: clock}
		s.truth[id] = now
	}
	for id, p := range s.notes {
		if p.Read.After(clock) || p.Read.IsZero() && (p.Known.IsZero() || p.Known.After(clock)) {
			s.notes[id] = proof.Pack{ID: id, Known: plan.New()}
		}
	}
	return longest
}

// TestEveryPackWithinDays runs a vault for 60 days on several schedules, with packs that
// come and go, and reads every pack within the days that were promised.
func TestEveryPackWithinDays(t *testing.T) {
	for _, test := range []struct {
		schedule string
		every    time.Duration
	}{
		{"daily at 03:00", 30 * day}, {"daily at 03:00", 7 * day}, {"sun at 03:00", 30 * day}, {"every 6 hours", 3 * day},
		{"0 3 1,2,20 * *", 25 * day}, {"daily at 03:00", 12 * time.Hour}, {"mon-fri at 12:00", 10 * day},
	} {
		s, err := policy.ParseSchedule(test.schedule, policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		sim := &simulated{notes: make(map[pack.ID]proof.Pack), truth: make(map[pack.ID]time.Time)}
		packs := 0
		for ; packs < 1000; packs++ {
			sim.add(packs, begin)
		}
		longest, runs := time.Duration(0), 0
		last := begin
		for now := s.Next(begin); now.Before(begin.Add(60 * day)); now = s.Next(now) {
			for range rng.IntN(20) { // written some time since the last run
				sim.add(packs, last.Add(time.Duration(rng.Int64N(int64(now.Sub(last))))))
				packs++
			}
			for id := range sim.notes { // and some are pruned
				if rng.IntN(200) == 0 {
					delete(sim.notes, id)
					delete(sim.truth, id)
				}
			}
			longest = max(longest, sim.run(now, 0, proof.Interval(s, now), test.every))
			last = now
			runs++
		}
		promised := max(test.every, proof.Interval(s, begin))
		if longest > promised {
			t.Errorf("%s, every %v: a pack was not read for %v", test.schedule, test.every, longest)
		}
		if most := len(sim.notes) * int(60*day/test.every+2) * 2; sim.reads > max(most, packs*runs/2) && test.every > proof.Interval(s, begin) {
			t.Errorf("%s, every %v: %d reads of %d packs in 60 days", test.schedule, test.every, sim.reads, packs)
		}
		t.Logf("%s, every %v: %d runs, %d packs, %d reads, longest wait %v", test.schedule, test.every, runs, packs, sim.reads, longest)
	}
}

// TestWrongClockPutsNothingOff lets runs be missed and the clock jump to and fro: each
// pack is read within the days after the last jump, and what was missed at once.
func TestWrongClockPutsNothingOff(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 3))
		begin := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
		sim := &simulated{notes: make(map[pack.ID]proof.Pack), truth: make(map[pack.ID]time.Time)}
		for n := range 300 {
			sim.add(n, begin)
		}
		const every = 10 * day
		off := time.Duration(0)
		for n := range 30 {
			if rng.IntN(4) == 0 {
				continue // missed
			}
			if rng.IntN(5) == 0 {
				off = time.Duration(rng.IntN(800)-400) * day
			}
			sim.run(begin.Add(time.Duration(n)*day), off, day, every)
		}
		settled := begin.Add(30 * day)
		for n := range 11 { // a clock that is right again
			sim.run(settled.Add(time.Duration(n)*day), 0, day, every)
		}
		for id, read := range sim.truth {
			if read.Before(settled) {
				t.Fatalf("seed %d: pack %s was last read %v before the clock was right, and not in the %v after", seed, id, settled.Sub(read), every)
			}
		}
	}
}

// TestMissedRunsAreCaughtUp: the first run after a pause reads what came due meanwhile.
func TestMissedRunsAreCaughtUp(t *testing.T) {
	now := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	var packs []proof.Pack
	for n := range 100 {
		packs = append(packs, proof.Pack{ID: id(n), Read: now.Add(-time.Duration(n) * day)})
	}
	got := proof.Choose(packs, proof.Plan{Now: now, Interval: day, Every: 30 * day})
	if len(got) != 71 || got[0] != id(99) || got[70] != id(29) { // older than 29 days by tomorrow's run
		t.Errorf("%d packs are read, the first %v and the last %v", len(got), got[0], got[len(got)-1])
	}
	if got := proof.Choose(packs, proof.Plan{Now: now, Interval: day, Every: 30 * day, Part: 7}); len(got) != 7 || got[0] != id(99) {
		t.Errorf("a part of 7 percent is %d packs", len(got))
	}
	if got := proof.Choose(nil, proof.Plan{Now: now, Interval: day, Every: day}); len(got) != 0 {
		t.Errorf("%d packs of none", len(got))
	}
	if got := proof.Choose(packs[:3], proof.Plan{Now: now, Part: 100}); len(got) != 3 {
		t.Errorf("all of 3 is %d", len(got))
	}
}
