package custody_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/kek"
)

func start() time.Time { return time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC) }

// answer is what a letter of a story stands for.
func answer(letter rune) error {
	switch letter {
	case 'o':
		return nil
	case 'u':
		return fmt.Errorf("%w: connection refused", kek.ErrUnreachable)
	case 'd':
		return fmt.Errorf("%w: permission revoked", kek.ErrDenied)
	case 'm':
		return fmt.Errorf("%w: deleted", kek.ErrMissing)
	case 'c':
		return fmt.Errorf("ask: %w", context.Canceled)
	}
	panic("no such answer")
}

// probes has one letter for each key: main in an HSM, then cloud in Key Vault.
func probes(letters string) []custody.Probe {
	refs := []kek.Ref{
		{Name: "main", Provider: kek.PKCS11, URI: "pkcs11:token=backup", Version: "v3", Fingerprint: kek.Fingerprint{1}},
		{Name: "cloud", Provider: kek.KeyVault, URI: "https://corp.vault.azure.net/keys/backup", Version: "abc", Fingerprint: kek.Fingerprint{2}},
	}
	var out []custody.Probe
	for i, letter := range letters {
		out = append(out, custody.Probe{Key: refs[i].Name, Ref: refs[i], Err: answer(letter), Every: 5 * time.Minute})
	}
	return out
}

// play tells a story, a line of which is a time, an event, and what must come of
// it: the state, "cached" if secrets that were opened may be used, and the kinds of the
// notices in order. An event is tick, revalidate and answers, or answers.
func play(t *testing.T, story string, restart func(custody.Health) custody.Health) {
	t.Helper()
	var h custody.Health
	for line := range strings.Lines(story) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		at, err := time.ParseDuration(words[0])
		if err != nil {
			t.Fatal(err)
		}
		h = restart(h)
		now, before := start().Add(at), h.State()
		var notices []custody.Notice
		event := words[1]
		switch event {
		case "tick":
			notices = h.Tick(now, custody.Settings{})
		case "revalidate":
			event = words[1] + " " + words[2]
			var err error
			if notices, err = h.Revalidate(now, probes(words[2])); err != nil {
				if !errors.Is(err, custody.ErrNotBack) {
					t.Errorf("%s: error is %v", line, err)
				}
				event += " refused"
			}
		default:
			notices = h.Observe(now, custody.Settings{}, probes(words[1]))
		}
		got := []string{words[0], event, string(h.State())}
		if h.State() != custody.Unknown && h.Refused(now, custody.Settings{}) == nil {
			got = append(got, "cached")
		}
		for _, n := range notices {
			got = append(got, string(n.Kind))
			checkNotice(t, n, before, h)
		}
		if got, want := strings.Join(got, " "), strings.Join(words, " "); got != want {
			t.Errorf("got  %s\nwant %s\nin%s", got, want, story)
			return
		}
	}
}

func checkNotice(t *testing.T, n custody.Notice, before custody.State, h custody.Health) {
	t.Helper()
	good := n.To == h.State() && n.Says != ""
	switch n.Kind {
	case custody.Change:
		good = good && n.From == before && n.Says == h.Reason() && n.Next == h.Next()
	case custody.Alarm:
		good = good && n.From == n.To
	}
	if !good || (n.Next == "") != (n.To == custody.Accessible) {
		t.Errorf("notice %+v of %s to %s (%s)", n, before, h.State(), h.Reason())
	}
}

// TestRefused: a vault whose time has run out is refused before anybody has said so to its
// state. A key that answers is no matter of the grace time, however short that is.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		answers string // one a minute
		grace   time.Duration
		after   time.Duration // since the last answer
		want    string
	}{
		{"", 0, time.Hour, ""}, // its keys are asked by whoever opens it
		{"o", 0, 0, ""},
		{"d", 0, 0, "inaccessible: no key opens the vault since"},
		{"od", 0, 8 * time.Minute, ""},
		{"od", 0, 9 * time.Minute, "inaccessible: no key opens the vault since"},
		{"ou", time.Minute, 0, "inaccessible: no key can be reached"},
		{"ou", 10 * time.Minute, 8 * time.Minute, ""},
		{"ou", 10 * time.Minute, 9 * time.Minute, "inaccessible: no key can be reached"},
		{"o", time.Minute, 4 * time.Minute, ""}, // until it is asked the next time
		{"o" + strings.Repeat("d", 40) + "o", 0, 0, "to be revalidated: the keys were taken away for more than"},
	} {
		var h custody.Health
		s, now := custody.Settings{Grace: tt.grace}, start()
		for i := range tt.answers {
			now = start().Add(time.Duration(i) * time.Minute)
			h.Observe(now, s, probes(tt.answers[i:i+1]))
		}
		before := h.State()
		why := h.Refused(now.Add(tt.after), s)
		switch {
		case h.State() != before:
			t.Errorf("%s: asking made %s of %s", tt.answers, h.State(), before)
		case tt.want == "" && why != nil, tt.want != "" && (why == nil || !strings.HasPrefix(why.Says, tt.want) || why.Next == ""):
			t.Errorf("%s, after %s: refused %+v, want %q", tt.answers, tt.after, why, tt.want)
		}
	}
}

// TestHealth: every transition, each story once through and once with a restart
// before each event.
func TestHealth(t *testing.T) {
	for name, story := range map[string]string{
		"nothing known": `
			0m tick unknown
			1m c    unknown
			2m o    accessible cached change`,
		"never opened, denied": `
			0m  d inaccessible change alarm
			29m o accessible cached change`,
		"never opened, unreachable": `
			0m   u inaccessible change
			600m o accessible cached change`,
		"denied, the last good answer just before: back after 9 minutes": `
			0m o    accessible cached change
			5m d    degraded cached change alarm
			9m tick degraded cached
			9m o    accessible cached change`,
		"denied, the last good answer just before: closed after 10 minutes": `
			0m  o    accessible cached change
			1m  d    degraded cached change alarm
			5m  d    degraded cached alarm
			9m  d    degraded cached
			10m tick inaccessible change alarm
			11m d    inaccessible
			25m d    inaccessible alarm
			29m o    accessible cached change`,
		"missing, no good answer for long: counted from the first denial": `
			0m  o    accessible cached change
			30m m    degraded cached change alarm
			39m tick degraded cached alarm
			41m tick inaccessible change alarm
			59m o    accessible cached change`,
		"back after 11 minutes": `
			0m  o accessible cached change
			1m  d degraded cached change alarm
			11m o accessible cached change`,
		"back after 29 minutes": `
			0m  o accessible cached change
			1m  d degraded cached change alarm
			11m d inaccessible change alarm
			29m o accessible cached change`,
		"back after 31 minutes": `
			0m  o            accessible cached change
			1m  d            degraded cached change alarm
			11m tick         inaccessible change alarm
			31m o            requires_revalidation change
			32m o            requires_revalidation
			33m d            requires_revalidation alarm
			34m u            requires_revalidation
			35m tick         requires_revalidation
			36m revalidate d refused requires_revalidation
			37m revalidate o accessible cached change
			38m o            accessible cached`,
		"back after 31 minutes, two keys and one of them denied": `
			0m  oo            accessible cached change
			1m  dm            degraded cached change alarm
			11m dm            inaccessible change alarm
			31m od            requires_revalidation change
			32m revalidate od refused requires_revalidation
			33m revalidate oc refused requires_revalidation
			34m revalidate oo accessible cached change`,
		"revalidated before the next probe": `
			0m  o            accessible cached change
			1m  d            degraded cached change alarm
			11m tick         inaccessible change alarm
			40m revalidate o accessible cached change
			41m d            degraded cached change alarm`,
		"unreachable: grace, then closed, then heals by itself": `
			0m   o    accessible cached change
			11m  u    degraded cached change
			31m  u    degraded cached
			719m u    degraded cached
			720m u    inaccessible change
			800m o    accessible cached change`,
		"unreachable: the last of the grace is ticked away": `
			0m   o    accessible cached change
			690m u    degraded cached change
			719m tick degraded cached
			720m tick inaccessible change
			721m o    accessible cached change`,
		"unreachable, then denied: a new outage": `
			0m  o    accessible cached change
			5m  u    degraded cached change
			40m d    degraded cached change alarm
			49m tick degraded cached alarm
			50m tick inaccessible change alarm
			69m o    accessible cached change`,
		"denied, then unreachable: no grace for what was taken away": `
			0m  o    accessible cached change
			1m  d    degraded cached change alarm
			2m  u    degraded cached
			9m  u    degraded cached alarm
			11m u    inaccessible change alarm
			31m o    requires_revalidation change`,
		"closed by a long outage, then denied": `
			0m   o    accessible cached change
			721m u    inaccessible change
			722m d    inaccessible change alarm
			753m o    requires_revalidation change`,
		"one of two unreachable": `
			0m oo accessible cached change
			1m uo degraded cached change
			9h uo degraded cached
			9h oo accessible cached change`,
		"the primary denied, the secondary opens: told once, however long": `
			0m oo accessible cached change
			1m do degraded cached change alarm
			2m do degraded cached
			9h do degraded cached
			9h oo accessible cached change
			9h do degraded cached change alarm`,
		"then the secondary goes as well": `
			0m  oo   accessible cached change
			1m  do   degraded cached change alarm
			60m do   degraded cached
			61m du   degraded cached change alarm
			65m du   degraded cached alarm
			70m tick inaccessible change alarm
			71m do   degraded cached change`,
		"the second key is denied later than the first": `
			0m oo accessible cached change
			1m du degraded cached change alarm
			2m dm degraded cached alarm
			3m oo accessible cached change`,
		"flapping": `
			0m  o accessible cached change
			1m  d degraded cached change alarm
			2m  o accessible cached change
			3m  m degraded cached change alarm
			4m  u degraded cached
			5m  o accessible cached change
			6m  u degraded cached change
			7m  d degraded cached change alarm
			14m d degraded cached alarm
			15m d inaccessible change alarm
			16m o accessible cached change`,
		"a key is taken out of the config": `
			0m oo accessible cached change
			1m od degraded cached change alarm
			2m o  accessible cached change`,
		"a question withdrawn keeps the answer before": `
			0m oo accessible cached change
			1m od degraded cached change alarm
			2m oc degraded cached
			3m cc degraded cached`,
		"probes stop coming": `
			0m   o    accessible cached change
			14m  tick accessible cached
			15m  tick degraded cached change
			50m  tick degraded cached
			90m  tick degraded cached
			91m  o    accessible cached change
			130m tick degraded cached change
			170m tick degraded cached
			180m d    degraded cached change alarm`,
		"probes stop coming in an outage": `
			0m  o    accessible cached change
			1m  d    degraded cached change alarm
			20m tick inaccessible change alarm
			50m tick inaccessible alarm
			51m o    requires_revalidation change`,
		"the clock is set forward by a day": `
			0h  o    accessible cached change
			24h tick accessible cached
			24h o    accessible cached
			48h tick accessible cached
			48h u    inaccessible change
			48h o    accessible cached change`,
		"the clock is set forward by a day in a denial": `
			0m    o    accessible cached change
			1m    d    degraded cached change alarm
			1441m tick degraded cached
			1442m tick degraded cached
			1443m d    inaccessible change alarm
			1444m o    requires_revalidation change`,
		"the clock is set forward by a day and back in a denial": `
			0m    o    accessible cached change
			1m    d    degraded cached change alarm
			1441m tick degraded cached
			2m    tick degraded cached
			11m   tick inaccessible change alarm`,
		"the clock is set back by an hour in a denial": `
			120m o    accessible cached change
			121m d    degraded cached change alarm
			61m  d    degraded cached
			70m  d    inaccessible change alarm
			50m  d    inaccessible
			60m  d    inaccessible
			71m  o    requires_revalidation change`,
		"stopped in a denial, started an hour later": `
			0m  o accessible cached change
			1m  d degraded cached change alarm
			62m o requires_revalidation change`,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, story, func(h custody.Health) custody.Health { return h })
			play(t, story, func(h custody.Health) custody.Health { return restarted(t, h) })
		})
	}
}

// restarted is h as it is read back.
func restarted(t *testing.T, h custody.Health) custody.Health {
	t.Helper()
	raw, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var back custody.Health
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	return back
}
