package custody

import (
	"math"
	"slices"
	"time"
)

// alarms is when an outage by denial is told, after its beginning.
func alarms() []time.Duration {
	return []time.Duration{0, 5 * time.Minute, 10 * time.Minute, 25 * time.Minute}
}

// step says what ends a stretch of time.
type step uint8

const (
	silentStep   step = iota // nothing but the clock
	answeredStep             // a key has answered, so what the clock says is confirmed
)

// advance lets time pass up to now.
func (r *record) advance(now time.Time, s Settings, by step) {
	passed := elapsed(r.Seen, now)
	r.Seen = now
	r.Keys = slices.Clone(r.Keys) // copies of a Health share nothing
	if by == silentStep && passed > s.leap() {
		// The clock was set, or the machine slept. Nothing changes on that alone; the
		// next answer tells what it means.
		r.Gap = plus(r.Gap, passed)
		return
	}
	if by == answeredStep {
		passed, r.Gap = plus(passed, r.Gap), 0
	}
	r.Quiet, r.Closed = plus(r.Quiet, passed), plus(r.Closed, passed)
	if r.Cause == takenAway {
		r.Outage = plus(r.Outage, passed)
	}
	for i := range r.Keys {
		r.Keys[i].Age = plus(r.Keys[i].Age, passed)
	}
}

// elapsed returns how long it is from then to now, never less than nothing. If both
// have a monotonic reading it is the longer of the two: one does not count while a
// machine sleeps, the other may be set.
func elapsed(then, now time.Time) time.Duration {
	if then.IsZero() {
		return 0
	}
	return max(0, now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// plus adds without wrapping around.
func plus(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// note keeps the answers. A probe without one leaves the last answer of its key.
func (r *record) note(now time.Time, probes []Probe) {
	keys := make([]keyRecord, 0, len(probes))
	for _, p := range probes {
		k := keyRecord{
			Key: p.Key, Provider: p.Ref.Provider, URI: p.Ref.URI, Version: p.Ref.Version, Fingerprint: p.Ref.Fingerprint.String(),
			Answer: AnswerOf(p.Err), Every: p.every(),
		}
		i := slices.IndexFunc(r.Keys, func(old keyRecord) bool { return old.Key == k.Key && old.Fingerprint == k.Fingerprint })
		if i >= 0 {
			k.Alarmed = r.Keys[i].Alarmed
		}
		switch {
		case k.Answer != NoAnswer:
			if p.Err != nil {
				k.Says = short(p.Err)
			}
			if !p.Asked.IsZero() {
				k.Age = elapsed(p.Asked, now)
			}
		case i >= 0:
			k.Answer, k.Says, k.Age = r.Keys[i].Answer, r.Keys[i].Says, r.Keys[i].Age
		default:
			continue
		}
		if k.Age > p.stale() {
			k.Answer, k.Says = Unreachable, "it was last asked "+k.Age.Round(time.Second).String()+" ago"
		}
		if k.Answer == Opens {
			k.Alarmed = false
		}
		keys = append(keys, k)
	}
	r.Keys = keys
}

// every is the longest time between two questions to a key.
func (r *record) every() time.Duration {
	longest := Probe{}.every()
	for i, k := range r.Keys {
		if i == 0 || k.Every > longest {
			longest = k.Every
		}
	}
	return longest
}

// bad returns the keys that do not open.
func (r *record) bad() []keyRecord {
	return slices.DeleteFunc(slices.Clone(r.Keys), func(k keyRecord) bool { return k.Answer == Opens })
}

// weigh finds the cause that the answers stand for, and the state.
func (r *record) weigh(s Settings) {
	bad := r.bad()
	switch {
	case len(bad) < len(r.Keys):
		r.open(s, bad)
	case slices.ContainsFunc(bad, func(k keyRecord) bool { return k.Answer.takenAway() }):
		r.takeAway()
	case r.Cause != takenAway && r.Cause != cameBack:
		// Keys that were taken away and then are out of reach are still taken away:
		// else a firewall rule would win the owner's revocation hours of grace.
		r.Cause = outOfReach
	}
	r.settle(s)
}

// open: at least one key opens.
func (r *record) open(s Settings, bad []keyRecord) {
	youngest := time.Duration(math.MaxInt64)
	for _, k := range r.Keys {
		if k.Answer == Opens {
			youngest = min(youngest, k.Age)
		}
	}
	r.Opened, r.Closed = true, youngest
	switch {
	case r.Cause == cameBack:
		return
	case r.Cause == takenAway && r.Outage > s.Heal:
		r.Cause = cameBack
	case len(bad) > 0:
		r.Cause = someOpen
	default:
		r.Cause = allOpen
	}
	if r.Cause != cameBack {
		r.Outage, r.Alarms = 0, 0
	}
}

// takeAway: no key opens, and somebody said no.
func (r *record) takeAway() {
	if r.Cause == takenAway || r.Cause == cameBack {
		return
	}
	r.Cause, r.Outage, r.Alarms = takenAway, 0, 0
	// It began at any time since the last good answer. If that was one probe ago, and
	// as much again for a provider that answers late, the earliest is taken.
	if r.Opened && r.Closed <= 2*r.every() {
		r.Outage = r.Closed
	}
}

// settle finds the state that the cause and the time stand for.
func (r *record) settle(s Settings) {
	closed := r.State == Inaccessible || !r.Opened
	switch {
	case r.Cause == cameBack:
		r.State = RequiresRevalidation
	case r.Cause == allOpen:
		r.State = Accessible
	case r.Cause == someOpen:
		r.State = Degraded
	case closed, r.Closed >= s.Grace, r.Cause == takenAway && r.Outage >= s.Limit:
		r.State = Inaccessible
	default:
		r.State = Degraded
	}
}

// tell returns what an operator should hear of since before, and keeps the reason.
func (r *record) tell(now time.Time, s Settings, before record) []Notice {
	from := Health{before}.State()
	if r.State != before.State {
		r.Since = now
	}
	r.Reason, r.Next = r.reason(now, s), r.next()
	var out []Notice
	notice := func(kind Kind, from State, says, next string) {
		out = append(out, Notice{Kind: kind, From: from, To: r.State, Says: says, Next: next})
	}
	if r.State != before.State || r.Cause != before.Cause {
		notice(Change, from, r.Reason, r.Next)
	}
	if r.Cause == takenAway {
		due := 0
		for _, at := range alarms() {
			if r.Outage >= at {
				due++
			}
		}
		if due > r.Alarms {
			notice(Alarm, r.State, r.alarm(), r.Next)
			r.Alarms = due
			for i, k := range r.Keys {
				r.Keys[i].Alarmed = k.Alarmed || k.Answer.takenAway()
			}
		}
	}
	for i, k := range r.Keys {
		if k.Answer.takenAway() && !k.Alarmed {
			notice(Alarm, r.State, k.describe(), k.advice())
			r.Keys[i].Alarmed = true
		}
	}
	return out
}
