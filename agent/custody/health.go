package custody

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// Health is the state of one vault's keys and what led to it. The zero value knows
// nothing. It is kept as JSON over restarts, so that a restart neither heals an
// outage nor hides it. It is not safe for concurrent use; copies are independent.
//
// Time in it never counts backwards. A clock that is set back stops it for one
// step; of a step so long that the clock may have been set forward, or the machine
// was off, nothing counts until a key has answered again.
type Health struct{ r record }

// cause is why the state is what it is.
type cause string

const (
	allOpen     cause = "open"
	someOpen    cause = "partial"     // at least one opens, at least one does not
	outOfReach  cause = "unreachable" // none opens, and nobody said no
	takenAway   cause = "denied"      // none opens, and somebody said no since one did
	nobodyAsked cause = "silent"      // no key was asked for long
	cameBack    cause = "late"        // one opens, too long after it was taken away
)

// record is Health as it is kept. The durations grow with time.
type record struct {
	State  State         `json:"state"`
	Cause  cause         `json:"cause"`
	Since  time.Time     `json:"since"` // the state is what it is
	Reason string        `json:"reason"`
	Next   string        `json:"next,omitempty"`
	Seen   time.Time     `json:"seen"`             // the clock, at the last call
	Gap    time.Duration `json:"gap,omitempty"`    // that no answer has confirmed
	Quiet  time.Duration `json:"quiet,omitempty"`  // since the last answer
	Opened bool          `json:"opened,omitempty"` // a key did, once
	Closed time.Duration `json:"closed,omitempty"` // since the last good answer
	Outage time.Duration `json:"outage,omitempty"` // since the keys were taken away
	Alarms int           `json:"alarms,omitempty"` // that were given in this outage
	Keys   []keyRecord   `json:"keys,omitempty"`
}

// keyRecord is the last answer of one version of a key.
type keyRecord struct {
	Key         string        `json:"key"`
	Provider    kek.Provider  `json:"provider"`
	URI         string        `json:"uri"`
	Version     string        `json:"version,omitempty"`
	Fingerprint string        `json:"fingerprint"`
	Answer      Answer        `json:"answer"`
	Says        string        `json:"says,omitempty"`
	Age         time.Duration `json:"age,omitempty"` // of the answer
	Every       time.Duration `json:"every"`
	Alarmed     bool          `json:"alarmed,omitempty"` // that it was taken away
}

// State returns the state as of the last event.
func (h Health) State() State {
	if h.r.State == "" {
		return Unknown
	}
	return h.r.State
}

// Since returns when the state was entered, by the clock of that time.
func (h Health) Since() time.Time { return h.r.Since }

// Reason says why the state is what it is, without a full stop.
func (h Health) Reason() string {
	if h.r.State == "" {
		return "no key was asked yet"
	}
	return h.r.Reason
}

// Next says what to do, and where. It is "" if there is nothing to do.
func (h Health) Next() string { return h.r.Next }

// Refusal is why a vault may not be used.
type Refusal struct {
	Says string // what it is, and why: "inaccessible: ..."
	Next string
}

// Refused returns why nobody may use a vault at now, secrets that were opened before
// included; nil if it may be used. Nobody has to call Tick for it: a vault whose time has
// run out is refused though its state still says otherwise. One of which nothing is known
// yet is not refused: its keys are asked by whoever opens it.
func (h Health) Refused(now time.Time, s Settings) *Refusal {
	h.Tick(now, s)
	switch h.r.State {
	case Inaccessible:
		return &Refusal{Says: "inaccessible: " + h.Reason(), Next: h.Next()}
	case RequiresRevalidation:
		return &Refusal{Says: "to be revalidated: " + h.Reason(), Next: h.Next()}
	}
	return nil
}

// Observe takes the last answers of all versions of keys that are in use, one each:
// a key that is not among them is no longer in use. An answer older than three times
// its Every is none. Without any answer it is Tick.
func (h *Health) Observe(now time.Time, s Settings, probes []Probe) []Notice {
	if !answered(now, probes) {
		return h.Tick(now, s)
	}
	s = s.orDefault()
	r := &h.r
	before := *r
	r.advance(now, s, answeredStep)
	r.Quiet = 0
	r.note(now, probes)
	r.weigh(s)
	return r.tell(now, s, before)
}

// Tick lets time pass without an answer. It closes a vault whose time has run out,
// and opens none.
func (h *Health) Tick(now time.Time, s Settings) []Notice {
	s = s.orDefault()
	r := &h.r
	before := *r
	r.advance(now, s, silentStep)
	if r.State == "" {
		return nil
	}
	if (r.Cause == allOpen || r.Cause == someOpen) && r.Quiet >= max(s.Limit, 3*r.every()) {
		r.Cause = nobodyAsked
	}
	r.settle(s)
	return r.tell(now, s, before)
}

// Revalidate is an operator's word that the vault may be used again. Every version
// of a key in use must be among probes, asked for this purpose, and open. If one
// does not, the error is ErrNotBack, says which and why, and nothing has changed;
// Observe what it answered.
func (h *Health) Revalidate(now time.Time, probes []Probe) ([]Notice, error) {
	if len(probes) == 0 {
		return nil, fmt.Errorf("%w: no key was asked", ErrNotBack)
	}
	for _, p := range probes {
		if AnswerOf(p.Err) == NoAnswer {
			return nil, fmt.Errorf("%w: key %s was not asked to the end: try again", ErrNotBack, p.Key)
		}
	}
	next := h.r
	before := h.r
	next.advance(now, Settings{}.orDefault(), answeredStep)
	next.note(now, probes)
	if bad := next.bad(); len(bad) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotBack, join(bad, keyRecord.describe))
	}
	next.Quiet, next.Closed, next.Outage, next.Alarms = 0, 0, 0, 0
	next.State, next.Cause, next.Opened = Accessible, allOpen, true
	h.r = next
	return h.r.tell(now, Settings{}.orDefault(), before), nil
}

// MarshalJSON is the inverse of UnmarshalJSON.
func (h Health) MarshalJSON() ([]byte, error) { return json.Marshal(h.r) }

// UnmarshalJSON takes what MarshalJSON made, and refuses what makes no sense.
func (h *Health) UnmarshalJSON(data []byte) error {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read the state of keys: %w", err)
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("read the state of keys: %w", err)
	}
	h.r = r
	return nil
}

func (r record) check() error {
	causes := map[State][]cause{
		"":                   {""},
		Accessible:           {allOpen},
		Degraded:             {someOpen, outOfReach, takenAway, nobodyAsked},
		Inaccessible:         {outOfReach, takenAway, nobodyAsked},
		RequiresRevalidation: {cameBack},
	}
	if !slices.Contains(causes[r.State], r.Cause) {
		return fmt.Errorf("state %q because of %q makes no sense", r.State, r.Cause)
	}
	if r.Alarms < 0 || min(r.Gap, r.Quiet, r.Closed, r.Outage) < 0 {
		return fmt.Errorf("a negative time makes no sense")
	}
	for _, k := range r.Keys {
		if min(k.Age, k.Every) < 0 {
			return fmt.Errorf("a negative time of key %q makes no sense", k.Key)
		}
	}
	return nil
}

// answered tells whether any key has answered lately.
func answered(now time.Time, probes []Probe) bool {
	return slices.ContainsFunc(probes, func(p Probe) bool {
		return AnswerOf(p.Err) != NoAnswer && (p.Asked.IsZero() || elapsed(p.Asked, now) <= p.stale())
	})
}

// short is an error on one line of bounded length.
func short(err error) string {
	const limit = 400
	text := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\n", "; "), "?")
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit]) + " ..."
	}
	return text
}
