//go:build linux

package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestReloadRefused: the status says of a change that needs a restart what doing it takes,
// until another reload is taken.
func TestReloadRefused(t *testing.T) {
	b := furnished(t)
	reload := func(text string) []control.Problem {
		t.Helper()
		b.configure(text)
		_, err := b.ReloadConfig(t.Context())
		must(t, err)
		status, err := b.Status(t.Context())
		must(t, err)
		return slices.DeleteFunc(status.Problems, func(p control.Problem) bool { return p.Subject != "configuration" })
	}
	problems := reload(strings.Replace(twoKeys, "socket: $DIR/s}", "socket: $DIR/other}", 1))
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "agent.socket") || !strings.HasPrefix(problems[0].Next, "restart the agent") {
		t.Errorf("another socket: %+v", problems)
	}
	if problems := reload(twoKeys); len(problems) != 0 {
		t.Errorf("as it was: %+v", problems)
	}
}

// TestReloadNamesLostKey: a vault that was well until its key was named anew says neither
// that it has been inaccessible for long, nor that anybody asked the new key before.
func TestReloadNamesLostKey(t *testing.T) {
	b := furnished(t)
	b.pass(2)
	before, err := b.Vault(t.Context(), "one")
	must(t, err)
	if before.State != control.StateAccessible || before.Checked.IsZero() {
		t.Fatalf("before: %+v", before)
	}
	b.configure(strings.Replace(twoKeys, "main.pem", "gone.pem", 1))
	_, err = b.ReloadConfig(t.Context())
	must(t, err)
	now, err := b.Vault(t.Context(), "one")
	must(t, err)
	if now.State != control.StateInaccessible || !now.Since.IsZero() || !now.Checked.IsZero() {
		t.Errorf("%s since %s, checked %s", now.State, now.Since, now.Checked)
	}
	asked := b.clock.Now()
	b.pass(1)
	if now, err = b.Vault(t.Context(), "one"); err != nil || now.Checked.Before(asked) {
		t.Errorf("after a minute: %s, checked %s; %v", now.State, now.Checked, err)
	}
	b.pass(11)
	if now, err = b.Vault(t.Context(), "one"); err != nil || now.State != control.StateInaccessible || now.Since.Before(asked) || b.clock.Now().Sub(now.Since) > 11*time.Minute {
		t.Errorf("after the limit: %s since %s; %v", now.State, now.Since, err)
	}
}
