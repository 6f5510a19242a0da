package custody_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/custody"
)

// model is what a plain reading of the rules knows of a vault.
type model struct {
	opened  bool          // some key did
	allGood bool          // at the last look
	late    bool          // a key came back more than half an hour after a denial
	last    string        // answers of the keys
	closed  time.Duration // since a denial with no key open, the least that has surely passed; -1: there is none
}

// FuzzHealth drives the machine with any events at any times and holds it to the
// invariants of the package.
func FuzzHealth(f *testing.F) {
	f.Add([]byte{0, 1, 1, 10, 5, 3, 15, 1})
	f.Add([]byte{0, 0, 2, 61, 6, 1, 7, 5, 16, 255, 0, 3})
	f.Add([]byte{0, 1, 1, 5, 7, 60, 1, 40, 15, 0, 0, 1})
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		events := make([]byte, 100)
		for i := range events {
			events[i] = byte(random.Uint32())
			if i%4 == 1 {
				events[i] %= 32 // some short steps
			}
		}
		f.Add(events)
	}
	f.Fuzz(func(t *testing.T, events []byte) {
		const answers = "oooudmuudduodomdcc"
		var h custody.Health
		now, seen, m := start(), start(), model{closed: -1}
		for ; len(events) >= 2; events = events[2:] {
			step := time.Duration(events[1]) * time.Minute / 4 // to an hour
			switch {
			case events[1] >= 250:
				step = 25 * time.Hour
			case events[1] >= 245:
				step = -3 * time.Hour
			}
			now = now.Add(step)
			step = now.Sub(seen) // what passed since the machine last looked at the clock
			before := h
			what := int(events[0]) % 12
			letters := answers[what : what+1+int(events[0]>>4)%2]
			switch {
			case what < 8:
				h.Observe(now, custody.Settings{}, probes(letters))
				m.observe(letters, step)
				seen = now
			case what < 10:
				h.Tick(now, custody.Settings{})
				m.pass(step)
				seen = now
			case what == 10:
				if _, err := h.Revalidate(now, probes(letters)); err == nil {
					m = model{opened: true, allGood: true, closed: -1, last: letters}
					seen = now
				} else if h.State() != before.State() {
					t.Fatalf("a revalidation that was refused (%v) made %s of %s", err, h.State(), before.State())
				}
			default:
				h = restarted(t, h)
			}
			m.check(t, before, h, what == 10, now)
		}
	})
}

func (m *model) observe(letters string, step time.Duration) {
	m.pass(step)
	if strings.Trim(letters, "c") == "" {
		return
	}
	var known []byte
	for i := range letters {
		switch {
		case letters[i] != 'c':
			known = append(known, letters[i])
		case i < len(m.last):
			known = append(known, m.last[i]) // a question withdrawn changes nothing
		}
	}
	m.last = string(known)
	open, denied := strings.Count(m.last, "o"), strings.ContainsAny(m.last, "dm")
	m.allGood = open == len(m.last)
	switch {
	case open > 0:
		m.late = m.late || m.closed > 30*time.Minute
		m.opened, m.closed = true, -1
	case denied && m.closed < 0:
		m.closed = 0
	}
}

// pass counts what no clock that was set can have made longer.
func (m *model) pass(step time.Duration) {
	if m.closed >= 0 && step > 0 && step <= 40*time.Minute {
		m.closed += step
	}
}

func (m *model) check(t *testing.T, before, h custody.Health, revalidated bool, now time.Time) {
	t.Helper()
	s := h.State()
	refused := h.Refused(now, custody.Settings{})
	closed := s == custody.Inaccessible || s == custody.RequiresRevalidation
	switch {
	case s == custody.Accessible && !(m.opened && m.allGood):
		t.Fatalf("accessible without a good answer of every key: %s", h.Reason())
	case s == custody.Degraded && !m.opened:
		t.Fatalf("degraded and no key ever opened: %s", h.Reason())
	case m.closed >= 10*time.Minute && s != custody.Inaccessible && s != custody.RequiresRevalidation:
		t.Fatalf("%s %v after a denial: %s", s, m.closed, h.Reason())
	case before.State() == custody.RequiresRevalidation && s != before.State() && !revalidated:
		t.Fatalf("%s without an operator's word", s)
	case m.late && s != custody.RequiresRevalidation:
		t.Fatalf("%s after keys came back late: %s", s, h.Reason())
	case closed && refused == nil:
		t.Fatalf("it may be used while %s", s)
	case refused != nil && (refused.Says == "" || refused.Next == ""):
		t.Fatalf("it is refused, and nobody says why: %+v", refused)
	case s != custody.Accessible && s != custody.Unknown && h.Next() == "":
		t.Fatalf("%s, and no next step", s)
	case h.Reason() == "":
		t.Fatalf("%s, and no reason", s)
	}
}

// FuzzUnmarshal: what is read is either refused or goes on working.
func FuzzUnmarshal(f *testing.F) {
	var h custody.Health
	h.Observe(start(), custody.Settings{}, probes("oo"))
	h.Observe(start().Add(time.Minute), custody.Settings{}, probes("du"))
	raw, err := json.Marshal(h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var h custody.Health
		if json.Unmarshal(raw, &h) != nil {
			return
		}
		before := h.State()
		h.Tick(start().Add(time.Hour), custody.Settings{})
		if s := h.State(); s == custody.Accessible && before != s {
			t.Fatalf("time alone made %s of %s", s, before)
		}
		h.Observe(start().Add(time.Hour), custody.Settings{}, probes("o"))
		if s := h.State(); s != custody.Accessible && s != custody.RequiresRevalidation {
			t.Fatalf("%s after a good answer", s)
		}
	})
}
