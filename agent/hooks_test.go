//go:build linux

package agent_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestCancelHooks: who cancels a backup ends its hooks, one cancel for each; a backup that
// was done before stays done.
func TestCancelHooks(t *testing.T) {
	b := furnished(t)
	b.configure(twoKeys + `policies:
  p:
    items: [docs]
    hooks:
      pre: {command: [/bin/sh, -c, 'test ! -e $DIR/slow || { touch $DIR/begun; exec sleep 300; }'], timeout: 24h}
      post: {command: [/bin/sh, -c, 'echo thawing; touch $DIR/after; exec sleep 300'], timeout: 24h}
`)
	_, err := b.ReloadConfig(t.Context())
	must(t, err)
	for name, want := range map[string]control.JobState{"": control.JobDone, "slow": control.JobCancelled} {
		if name != "" {
			b.touch(name)
		}
		jobs, err := b.RunPolicy(t.Context(), control.PolicyRun{Name: "p"})
		must(t, err)
		id := jobs[0].ID
		if name != "" {
			b.awaits("begun")
			must(t, b.Cancel(t.Context(), id))
		}
		b.awaits("after") // it runs, whatever became of the backup
		if j, err := b.Job(t.Context(), id); err != nil || j.State != control.JobRunning || j.Progress.Phase != "post hook" {
			t.Errorf("%+v, %v", j, err)
		}
		must(t, b.Cancel(t.Context(), id))
		j := b.follow(id)
		if j.State != want || !strings.Contains(j.Output, "post hook /bin/sh: cancelled by request\nthawing\n") || j.Progress.Phase == "post hook" {
			t.Errorf("%q: %s, %+v, %q", name, j.State, j.Progress, j.Output)
		}
		must(t, os.Remove(b.path("after")))
		if name != "" {
			must(t, os.Remove(b.path(name)))
		}
	}
}

// awaits returns when there is a file.
func (b *bench) awaits(name string) {
	b.Helper()
	late := time.After(time.Minute)
	for {
		if _, err := os.Stat(b.path(name)); !errors.Is(err, os.ErrNotExist) {
			return
		}
		select {
		case <-late:
			b.Fatalf("there never was %s", name)
		case <-time.After(time.Millisecond):
		}
	}
}
