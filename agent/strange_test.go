//go:build linux

package agent_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/store"
)

// junk puts an object that nothing opens beside another of an item.
func junk(t *testing.T, p *pruned, kind, name string) (path string) {
	t.Helper()
	points := objects(t, p.bench, "one/items/*/points/*")
	path = filepath.Join(filepath.Dir(filepath.Dir(points[0])), kind, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(strings.Repeat("garbage ", 40)), 0o600))
	return path
}

// problemsOf are the problems of an item in the status.
func problemsOf(t *testing.T, b *bench, subject string) (says []string) {
	t.Helper()
	s, err := b.Status(t.Context())
	must(t, err)
	for _, pr := range s.Problems {
		if pr.Next == "" {
			t.Errorf("no next step: %+v", pr)
		}
		if pr.Subject == subject {
			says = append(says, pr.Message+"; "+pr.Next)
		}
	}
	return says
}

// TestStrange: what somebody has put among an item's records is in the status, and is
// no more when it is gone. A restore of the latest point passes over what does not open.
func TestStrange(t *testing.T) {
	p := newPruned(t, lastTwo)
	if got := problemsOf(t, p.bench, "item docs"); len(got) > 0 {
		t.Fatalf("at first: %q", got)
	}
	newest := p.points()[0].ID
	for kind, want := range map[string]string{"holds": "a hold does not open", "marks": "a mark of a prune", "repacks": "packs that were rewritten"} {
		name := filepath.Base(objects(t, p.bench, "one/items/*/index/*")[0])
		path := junk(t, p, kind, name)
		p.advance(2 * time.Minute)
		got := problemsOf(t, p.bench, "item docs")
		if len(got) != 1 || !strings.Contains(got[0], want) || !strings.Contains(got[0], "coffer verify docs") || !strings.Contains(got[0], name) {
			t.Errorf("%s: %q", kind, got)
		}
		if kind == "holds" {
			if j := p.wait(p.Prune(t.Context(), control.PruneRequest{Item: "docs"})); j.Error == nil || !strings.Contains(j.Error.Message, name) || !strings.Contains(j.Error.Next, "by hand") {
				t.Errorf("prune: %+v", j.Error)
			}
		}
		must(t, os.Remove(path))
		p.advance(2 * time.Minute)
		if got := problemsOf(t, p.bench, "item docs"); len(got) > 0 {
			t.Errorf("%s is gone: %q", kind, got)
		}
	}
	last := filepath.Base(slices.Max(objects(t, p.bench, "one/items/*/points/*")))
	junk(t, p, "points", "20990101t000000.000z"+last[strings.Index(last, "-"):])
	if got := problemsOf(t, p.bench, "item docs"); len(got) != 1 || !strings.Contains(got[0], "2099") {
		t.Errorf("a point of 2099: %q", got)
	}
	j := p.done(p.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: p.path("back")}))
	if j.Point != newest {
		t.Errorf("restored %s, want %s", j.Point, newest)
	}
	if got, want := p.tree(p.path("back")), p.content[newest]; !slices.Equal(slices.Sorted(maps.Values(got)), slices.Sorted(maps.Values(want))) {
		t.Errorf("restored %q, want %q", got, want)
	}
}

// TestStateLost: an agent that has lost its state says how it gets its vault back, and
// not that there is nothing.
func TestStateLost(t *testing.T) {
	b := furnished(t)
	b.stop()
	must(t, os.RemoveAll(b.path("state")))
	b.start()
	if got := problemsOf(t, b, "vault one"); len(got) != 1 || !strings.Contains(got[0], "vaults.one.id") || strings.Contains(got[0], "vault create") {
		t.Errorf("%q", got)
	}
	_, err := b.listed("")
	b.refused(err, control.CodeConflict)
}

// TestDoctorAfterPrune: a prune of everything says of a vault whether it can delete; a
// dry run does not.
func TestDoctorAfterPrune(t *testing.T) {
	p := newPruned(t, lastTwo)
	p.configure(strings.Replace(twoKeys+lastTwo, "{store: \"file://$DIR/one\", keys: [main]}",
		"{store: \"file://$DIR/one\", keys: [main], prune: {schedule: yearly}}", 1))
	_, err := p.ReloadConfig(t.Context())
	must(t, err)
	found := func() (found control.Check) {
		d, err := p.Diagnose(t.Context())
		must(t, err)
		for _, c := range d.Checks {
			if c.What == "delete" {
				found = c
			}
		}
		return found
	}
	p.done(p.Prune(t.Context(), control.PruneRequest{DryRun: true}))
	if got := found(); got.Outcome != control.CheckSkipped {
		t.Errorf("after a dry run: %+v", got)
	}
	p.on(func(context.Context, string, store.Key) error { return fmt.Errorf("%w: for now", store.ErrUnavailable) })
	p.wait(p.Prune(t.Context(), control.PruneRequest{}))
	p.on(nil)
	if got := found(); got.Outcome != control.CheckBad || !strings.HasSuffix(got.Next, "; then: coffer prune") {
		t.Errorf("after an outage: %+v", got)
	}
	p.done(p.Prune(t.Context(), control.PruneRequest{}))
	if got := found(); got.Outcome != control.CheckGood {
		t.Errorf("after a prune: %+v", got)
	}
}
