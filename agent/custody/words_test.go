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

// TestWords: each answer has words and a next step of its own, and the alarms tell
// how long it has been.
func TestWords(t *testing.T) {
	for _, test := range []struct {
		answers   string
		says      []string
		next      []string
		notAsWell string
	}{
		{"uu", []string{"no key can be reached", "main version v3 does not answer: connection refused", "until 2026-11-22 21:00:00 UTC"},
			[]string{"port 443", "DNS", "token is plugged in", "coffer key check main"}, "revoked"},
		{"dd", []string{"no key opens the vault since 2026-11-22 09:00:00 UTC", "is denied", "permission revoked", "until 2026-11-22 09:10:00 UTC"},
			[]string{"permission and identity", "is enabled", "firewall", "PIN in pin-source"}, "plugged in"},
		{"mm", []string{"no key opens the vault since", "is gone"},
			[]string{"the whole vault", "token was pulled"}, "revoked"},
		{"od", []string{"1 of 2 keys open the vault: cloud version abc is denied: permission revoked"},
			[]string{"coffer key check cloud"}, "PIN"},
	} {
		var h custody.Health
		h.Observe(start(), custody.Settings{}, probes("oo"))
		notices := h.Observe(start().Add(2*time.Minute), custody.Settings{}, probes(test.answers))
		for _, n := range notices {
			for _, want := range test.next {
				if !strings.Contains(n.Next, want) {
					t.Errorf("%s: next step %q does not say %q", test.answers, n.Next, want)
				}
			}
			if strings.Contains(n.Next, test.notAsWell) {
				t.Errorf("%s: next step %q says %q", test.answers, n.Next, test.notAsWell)
			}
		}
		for _, want := range test.says {
			if !strings.Contains(h.Reason(), want) {
				t.Errorf("%s: reason %q does not say %q", test.answers, h.Reason(), want)
			}
		}
	}
	var h custody.Health
	h.Observe(start(), custody.Settings{}, probes("o"))
	var told []string
	for minute := 1; minute < 60; minute++ {
		for _, n := range h.Observe(start().Add(time.Duration(minute)*time.Minute), custody.Settings{}, probes("d")) {
			if n.Kind == custody.Alarm {
				told = append(told, fmt.Sprintf("%d %s", minute, strings.SplitN(n.Says, ":", 2)[0]))
			}
		}
	}
	want := "1 the keys have been taken away for 1m\n5 the keys have been taken away for 5m\n" +
		"10 the keys have been taken away for 10m\n25 the keys have been taken away for 25m"
	if got := strings.Join(told, "\n"); got != want {
		t.Errorf("alarms are\n%s\nwant\n%s", got, want)
	}
}

// TestPlainly: what a provider said is not said twice.
func TestPlainly(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w: unwrap with https://corp.vault.azure.net/keys/backup/abc: corp answers 403: enable it", kek.ErrDenied), "corp answers 403: enable it"},
		{fmt.Errorf("key cloud: %w: open https://corp.vault.azure.net/keys/backup: no: such thing", kek.ErrDenied), "no: such thing"},
		{fmt.Errorf("%w: %w", kek.ErrDenied, fmt.Errorf("%w: both", kek.ErrUnsuitable)), "both"},
		{kek.ErrDenied, kek.ErrDenied.Error()},
	} {
		var h custody.Health
		p := probes("oo")
		p[1].Err = test.err
		h.Observe(start(), custody.Settings{}, p)
		if want := "1 of 2 keys open the vault: cloud version abc is denied: " + test.want; h.Reason() != want {
			t.Errorf("reason is %q, want %q", h.Reason(), want)
		}
	}
}

// TestAge: an answer counts from when it was given, and one that is too old does not.
func TestAge(t *testing.T) {
	at := func(minute int) time.Time { return start().Add(time.Duration(minute) * time.Minute) }
	asked := func(letters string, minutes ...int) []custody.Probe {
		out := probes(letters)
		for i := range out {
			out[i].Asked = at(minutes[i])
		}
		return out
	}
	var h custody.Health
	h.Observe(at(0), custody.Settings{}, asked("oo", 0, 0))
	h.Observe(at(4), custody.Settings{}, asked("do", 4, 0))
	h.Observe(at(5), custody.Settings{}, asked("dd", 4, 5))
	if h.Tick(at(9), custody.Settings{}); h.State() != custody.Degraded {
		t.Errorf("9 minutes after the last good answer: %s", h.State())
	}
	if h.Tick(at(10), custody.Settings{}); h.State() != custody.Inaccessible {
		t.Errorf("10 minutes after the last good answer: %s", h.State())
	}

	h = custody.Health{}
	h.Observe(at(0), custody.Settings{}, asked("oo", 0, 0))
	h.Observe(at(16), custody.Settings{}, asked("oo", 16, 0))
	if h.State() != custody.Degraded || !strings.Contains(h.Reason(), "last asked 16m0s ago") {
		t.Errorf("with an old answer: %s: %s", h.State(), h.Reason())
	}
	h.Observe(at(40), custody.Settings{}, asked("oo", 16, 0))
	if h.State() != custody.Degraded || !strings.Contains(h.Reason(), "no key was asked since 2026-11-22 09:16:00") {
		t.Errorf("with old answers: %s: %s", h.State(), h.Reason())
	}
}

func TestAnswerOf(t *testing.T) {
	both := &kek.UnwrapError{Tried: []kek.Attempt{{Err: answer('u')}, {Err: answer('d')}}}
	for _, test := range []struct {
		err  error
		want custody.Answer
	}{
		{nil, custody.Opens},
		{answer('u'), custody.Unreachable},
		{answer('d'), custody.Denied},
		{answer('m'), custody.Missing},
		{answer('c'), custody.NoAnswer},
		{fmt.Errorf("%w: extractable", kek.ErrUnsuitable), custody.Denied},
		{fmt.Errorf("%w: another key", kek.ErrWrongKey), custody.Missing},
		{kek.ErrNoKey, custody.Missing},
		{both, custody.Denied},
		{fmt.Errorf("%w: %w", kek.ErrUnreachable, context.DeadlineExceeded), custody.Unreachable},
		{errors.New("something else"), custody.Unreachable},
	} {
		if got := custody.AnswerOf(test.err); got != test.want {
			t.Errorf("AnswerOf(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

// TestCopies: a copy and its original go their own ways.
func TestCopies(t *testing.T) {
	var h custody.Health
	h.Observe(start(), custody.Settings{}, probes("oo"))
	h.Observe(start().Add(time.Minute), custody.Settings{}, probes("uu"))
	copied := h
	copied.Observe(start().Add(2*time.Minute), custody.Settings{}, probes("dd"))
	if notices := h.Observe(start().Add(2*time.Minute), custody.Settings{}, probes("dd")); len(notices) != 2 {
		t.Errorf("after its copy was told, the original tells %v", notices)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	for _, text := range []string{
		`{"state":"accessible","cause":"denied"}`,
		`{"state":"fine","cause":"open"}`,
		`{"cause":"open"}`,
		`{"state":"degraded","cause":"denied","outage":-1}`,
		`{"state":"degraded","cause":"denied","keys":[{"answer":"perhaps"}]}`,
		`{"state":"degraded","cause":"denied","keys":[{"answer":"denied","age":-5}]}`,
		`[]`,
	} {
		var h custody.Health
		if err := json.Unmarshal([]byte(text), &h); err == nil || h.State() != custody.Unknown {
			t.Errorf("%s is read as %s, %v", text, h.State(), err)
		}
	}
}
