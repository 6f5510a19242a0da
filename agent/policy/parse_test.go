package policy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cofferbackup/coffer/agent/policy"
)

// TestRefused reads testdata/refused.txt: a line with what is parsed and its text, one
// with a mark below the place that is wrong, one with the message and what to do.
func TestRefused(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "refused.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	cases := 0
	for line := range strings.Lines(string(text)) {
		what, arg, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "| ")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, " ") {
			if strings.HasPrefix(line, "#") || line == "\n" {
				got.WriteString(line)
			}
			continue
		}
		cases++
		if strings.TrimSpace(what) == "window" {
			_, err = policy.ParseWindow(arg)
		} else {
			_, err = policy.ParseSchedule(arg, policy.Options{})
		}
		var fault *policy.ParseError
		if !errors.As(err, &fault) {
			t.Errorf("%s %q: %v", what, arg, err)
			continue
		}
		got.WriteString(line + strings.Repeat(" ", 9+fault.Column) + "^\n  " + fault.Message + "; " + fault.Next + "\n")
	}
	if cases == 0 {
		t.Error("no case was found")
	}
	golden(t, filepath.Join("testdata", "refused.txt"), got.String())
}

// golden compares, or with UPDATE=1 in the environment writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Errorf("%s:%d:\n got %s\nwant %s", name, i+1, g, w)
			return
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, text := range []string{
		"0 2 * * *", "*/5 1-3,7 31 feb mon-fri/2", "@daily", "every 4 hours at :30", "monthly on the first sunday and last day at 02:00, 3:00",
		"yearly on feb 29", "weekdays", "mon-", "0 0 1 1 7-2", "täglich um 2", "TZ=UTC 0 2 * * *", "* * * * fri-mon",
	} {
		f.Add(text, int64(1_795_000_000))
	}
	berlin := zone(f, "Europe/Berlin")
	not := []policy.Window{window(f, "08:00-18:00 mon-fri")}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := policy.ParseSchedule(text, policy.Options{Zone: berlin, Not: not, Jitter: time.Hour, Seed: "x"})
		if err != nil {
			wellSaid(t, text, err)
			return
		}
		after := time.Unix(unix%(1<<36), 0)
		run := s.Next(after)
		if !run.After(after) || !s.Open(run).Equal(run) {
			t.Errorf("%q: after %s comes %s", text, after, run)
		}
	})
}

func FuzzParseWindow(f *testing.F) {
	for _, text := range []string{"08:00-18:00 mon-fri", "22:00-06:00 fri, sat", "sun", "00:00-24:00", "8-18", "12:00-12:00", "- -", "on"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := policy.ParseWindow(text)
		if err != nil {
			wellSaid(t, text, err)
			return
		}
		s, err := policy.ParseSchedule("every minute", policy.Options{Not: []policy.Window{w}})
		if errors.Is(err, policy.ErrNever) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1_795_000_000, 0)
		if open := s.Open(now); open.Before(now) || open.Sub(now) >= 7*24*time.Hour {
			t.Errorf("%q: %s opens at %s", text, now, open)
		}
	})
}

// wellSaid: an error has a place in the text, and says what to do.
func wellSaid(t *testing.T, text string, err error) {
	t.Helper()
	var fault *policy.ParseError
	if !errors.As(err, &fault) {
		t.Fatalf("%q: %v", text, err)
	}
	if fault.Column < 1 || fault.Column > utf8.RuneCountInString(text)+1 || fault.Message == "" || fault.Next == "" {
		t.Errorf("%q: column %d: %s; %s", text, fault.Column, fault.Message, fault.Next)
	}
}
