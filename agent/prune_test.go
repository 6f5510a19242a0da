//go:build linux

package agent_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/store"
)

// TestPrune: what a policy lets go is marked and then removed, as explain says; what it
// keeps restores; and a dry run says the same and does nothing.
func TestPrune(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 4 {
		p.change()
	}
	before := p.objects()
	dry := p.prune(control.PruneRequest{Item: "docs", DryRun: true})
	if after := p.objects(); !slices.Equal(before, after) {
		t.Errorf("a dry run changed %d objects to %d", len(before), len(after))
	}
	marked := p.prune(control.PruneRequest{Item: "docs"})
	if !dry.DryRun || dry.MarkedPoints != 3 || dry.MarkedPoints != marked.MarkedPoints || dry.MarkedPacks != marked.MarkedPacks || dry.MarkedBytes != marked.MarkedBytes || marked.RemovedPoints != 0 {
		t.Errorf("said %+v, did %+v", dry, marked)
	}
	goes := p.clock.Now().Add(72 * time.Hour)
	if !marked.Goes.Equal(goes) || !dry.Goes.Equal(goes) {
		t.Errorf("goes %s and %s, want %s", dry.Goes, marked.Goes, goes)
	}
	e, err := p.Explain(t.Context(), "short")
	must(t, err)
	listed := p.points()
	for i, f := range e.Points {
		if going := i < 3; f.Keep == going || f.Goes.Equal(goes) != going || !f.Goes.Equal(listed[i].Goes) || f.Point != listed[i].ID {
			t.Errorf("point %d: %+v, listed with %s", i, f, listed[i].Goes)
		}
	}
	if again := p.prune(control.PruneRequest{Item: "docs"}); again.MarkedPoints+again.MarkedPacks+again.RemovedPoints+again.RemovedPacks != 0 {
		t.Errorf("a second time at once: %+v", again)
	}
	p.restorable() // also what is marked

	p.advance(73 * time.Hour)
	done := p.prune(control.PruneRequest{Item: "docs"})
	if done.RemovedPoints != 3 || done.RemovedPacks == 0 || done.FreedBytes == 0 || len(done.Items) != 1 || done.Items[0].Says == "" {
		t.Errorf("after the grace time: %+v", done)
	}
	left := p.points()
	if len(left) != 2 || left[0].ID != listed[3].ID || left[1].ID != listed[4].ID {
		t.Errorf("left: %+v", left)
	}
	p.restorable()
	removed := p.audited(audit.PointRemoved)
	slices.SortFunc(removed, func(x, y audit.Event) int { return strings.Compare(x.Point, y.Point) })
	for i, e := range removed {
		if i >= 3 || e.Point != listed[i].ID || e.Vault != "one" || e.Job == 0 || e.By == "" {
			t.Errorf("in the audit log: %+v", e)
		}
	}
	if len(removed) != 3 {
		t.Errorf("%d removals are in the audit log", len(removed))
	}
	// Nothing is told of as gone, and the next backup finds its way.
	p.change()
	if item, err := p.Item(t.Context(), "docs"); err != nil || item.Error != nil || item.Points != 3 {
		t.Errorf("%+v, %v", item, err)
	}
	p.restorable()
}

// TestPruneKeepsAll: an item that no policy limits keeps everything, and what nothing
// ever needed goes all the same.
func TestPruneKeepsAll(t *testing.T) {
	p := newPruned(t, "")
	p.change()
	stop := fmt.Errorf("%w: for now", store.ErrDenied)
	p.on(func(_ context.Context, what string, key store.Key) error {
		if what == "put" && strings.Contains(string(key), "/points/") {
			return stop
		}
		return nil
	})
	p.advance(time.Hour)
	p.edit()
	if j := p.wait(p.Backup(t.Context(), control.BackupRequest{Item: "docs"})); j.State != control.JobFailed {
		t.Fatalf("%+v", j)
	}
	p.on(nil)
	must(t, os.Remove(p.path("docs", "changing.txt")))
	p.advance(time.Hour)
	want := p.docs()
	p.content[p.done(p.Backup(t.Context(), control.BackupRequest{Item: "docs"})).Point] = want
	r := p.outlive()
	if r.RemovedPoints != 0 || r.RemovedPacks == 0 || len(p.points()) != 3 {
		t.Errorf("%+v, %d points", r, len(p.points()))
	}
	p.restorable()
}

// TestPruneNothingKept: a policy whose rules keep no point leaves the newest one, unless
// somebody says that this is not meant.
func TestPruneNothingKept(t *testing.T) {
	p := newPruned(t, "policies:\n  tagged: {items: [docs], retention: {tags: [release]}}\n")
	p.change()
	last := p.change()
	p.outlive()
	if left := p.points(); len(left) != 1 || left[0].ID != last {
		t.Fatalf("left: %+v", left)
	}
	p.restorable()
	p.prune(control.PruneRequest{Item: "docs", AllowEmpty: true})
	p.advance(73 * time.Hour)
	p.prune(control.PruneRequest{Item: "docs"}) // who does not say so does not mean it
	if left := p.points(); len(left) != 1 {
		t.Fatalf("left: %+v", left)
	}
	p.prune(control.PruneRequest{Item: "docs", AllowEmpty: true})
	p.advance(73 * time.Hour)
	p.prune(control.PruneRequest{Item: "docs", AllowEmpty: true})
	if left := p.points(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// TestPruneDenied: a host that may not delete says so, and what it marked another prune
// removes.
func TestPruneDenied(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 3 {
		p.change()
	}
	p.prune(control.PruneRequest{})
	p.advance(73 * time.Hour)
	p.on(func(_ context.Context, what string, key store.Key) error {
		if what == "delete" {
			return fmt.Errorf("delete %s: %w", key, store.ErrDenied)
		}
		return nil
	})
	j := p.wait(p.Prune(t.Context(), control.PruneRequest{Item: "docs"}))
	if j.State != control.JobFailed || j.Error.Code != control.CodeForbidden || !strings.Contains(j.Error.Message, "may not delete") || !strings.Contains(j.Error.Next, "prune from the host") {
		t.Errorf("%s: %+v", j.State, j.Error)
	}
	if n := len(p.points()); n != 4 {
		t.Errorf("%d points", n)
	}
	p.restorable()
	p.on(nil)
	if r := p.prune(control.PruneRequest{Item: "docs"}); r.RemovedPoints != 2 {
		t.Errorf("%+v", r)
	}
	p.restorable()
}

// TestPruneByVault: a vault is pruned by its schedule, and a key record that another took
// the place of goes with it.
func TestPruneByVault(t *testing.T) {
	p := newPruned(t, lastTwo)
	p.change()
	p.done(p.RotateKeys(t.Context(), control.KeyRotate{Vault: "one", NewGeneration: true}))
	for range 2 {
		p.change()
	}
	p.configure(strings.Replace(twoKeys+lastTwo, "{store: \"file://$DIR/one\", keys: [main]}",
		"{store: \"file://$DIR/one\", keys: [spare], restore_keys: [main], prune: {schedule: hourly}}", 1))
	_, err := p.ReloadConfig(t.Context())
	must(t, err)
	p.done(p.RotateKeys(t.Context(), control.KeyRotate{Vault: "one"}))
	records := len(objects(t, p.bench, "one/keys/*/*"))
	prunes := func() (all []control.Job) {
		jobs, err := p.Jobs(t.Context(), control.JobFilter{})
		must(t, err)
		for _, j := range jobs {
			if j.Kind == control.KindPrune {
				all = append(all, j)
			}
		}
		return all
	}
	p.pass(61)
	p.idle()
	first := prunes()
	if len(first) != 1 || first[0].Vault != "one" || first[0].By != "schedule of vault one" || first[0].State != control.JobDone || first[0].Result.Prune.MarkedPoints != 2 {
		t.Fatalf("%+v", first)
	}
	p.advance(75 * time.Hour)
	p.pass(61)
	p.idle()
	if left := p.points(); len(left) != 2 {
		t.Errorf("left: %+v", left)
	}
	if now := len(objects(t, p.bench, "one/keys/*/*")); now >= records {
		t.Errorf("%d key records of %d are left", now, records)
	}
	p.restorable()
}
