//go:build linux

package agent_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
)

// TestPruneBesideBackup: a prune sweeps while a backup of the same item runs in the same
// agent. Neither waits for the other, and the new point is whole.
func TestPruneBesideBackup(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 3 {
		p.change()
	}
	p.prune(control.PruneRequest{})
	p.advance(73 * time.Hour)
	// What only the points that go have comes back just now.
	first := p.content[p.points()[1].ID]["changing.txt"]
	must(t, os.WriteFile(p.path("docs", "changing.txt"), []byte(first), 0o600))
	want := p.docs()
	var j control.Job
	goOn := p.stopAt(func() {
		var err error
		j, err = p.Backup(t.Context(), control.BackupRequest{Item: "docs"})
		must(t, err)
	})
	r := p.prune(control.PruneRequest{})
	if r.RemovedPoints != 2 || r.RemovedPacks == 0 {
		t.Errorf("%+v", r)
	}
	goOn()
	p.content[p.done(j, nil).Point] = want
	p.restorable()
	if n := len(p.points()); n != 3 {
		t.Errorf("%d points", n)
	}
	p.change()
	p.restorable()
}

// TestPruneWaitsForBackup: a backup that began before the mark may lean on what is in
// it, so nothing of it goes until the backup has ended; and then what it needs stays.
func TestPruneWaitsForBackup(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 2 {
		p.change()
	}
	old := p.content[p.points()[1].ID]
	p.change()
	must(t, os.WriteFile(p.path("docs", "changing.txt"), []byte(old["changing.txt"]), 0o600))
	want := p.docs()
	var j control.Job
	goOn := p.stopAt(func() {
		var err error
		j, err = p.Backup(t.Context(), control.BackupRequest{Item: "docs"})
		must(t, err)
	})
	p.prune(control.PruneRequest{})
	p.advance(73 * time.Hour)
	r := p.prune(control.PruneRequest{})
	if r.Waiting != 1 || r.RemovedPoints != 0 || r.RemovedPacks != 0 {
		t.Errorf("while the backup runs: %+v", r)
	}
	goOn()
	p.content[p.done(j, nil).Point] = want
	r = p.prune(control.PruneRequest{})
	if r.Waiting != 0 || r.RemovedPoints != 2 || r.RescuedPacks == 0 {
		t.Errorf("after it: %+v", r)
	}
	p.restorable()
}

// TestPruneGivesUp: a backup that runs for so long that it must be dead is given up, and
// told so; run again, it is cheap.
func TestPruneGivesUp(t *testing.T) {
	p := newPruned(t, lastTwo)
	p.change()
	p.edit()
	want := p.docs()
	var j control.Job
	goOn := p.stopAt(func() {
		var err error
		j, err = p.Backup(t.Context(), control.BackupRequest{Item: "docs"})
		must(t, err)
	})
	p.advance(15 * 24 * time.Hour)
	p.prune(control.PruneRequest{})
	goOn()
	if j = p.wait(j, nil); j.State != control.JobFailed || !strings.Contains(j.Error.Message, "given up by a prune") {
		t.Errorf("%s: %+v", j.State, j.Error)
	}
	j = p.done(p.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	p.content[j.Point] = want
	p.restorable()
}

// TestPruneByTwo: two agents of one identity, the clock of one of them a day behind, back
// up and prune one item at the same time, again and again.
func TestPruneByTwo(t *testing.T) {
	p := newPruned(t, lastTwo)
	q := p.twin(lastTwo, 25*time.Hour)
	both := []*pruned{p, q}
	made, removed := 0, int64(0)
	for range 8 {
		var jobs [2][]control.Job
		var want [2]map[string]string
		for i, x := range both {
			x.advance(29 * time.Hour)
			x.edit()
			want[i] = x.docs()
		}
		for i, x := range both {
			for _, start := range []func() (control.Job, error){
				func() (control.Job, error) { return x.Prune(t.Context(), control.PruneRequest{Item: "docs"}) },
				func() (control.Job, error) { return x.Backup(t.Context(), control.BackupRequest{Item: "docs"}) },
			} {
				j, err := start()
				must(t, err)
				jobs[i] = append(jobs[i], j)
			}
		}
		for i, x := range both {
			removed += x.done(jobs[i][0], nil).Result.Prune.RemovedPoints
			p.content[x.done(jobs[i][1], nil).Point] = want[i]
			made++
		}
		p.restorable()
	}
	q.restorable()
	there := p.points()
	if removed == 0 || len(there)+int(removed) < made+1 {
		t.Errorf("%d points made, %d removed, %d are there", made+1, removed, len(there))
	}
	for range 2 {
		q.outlive()
		p.outlive()
	}
	if there = p.points(); len(there) != 2 {
		t.Errorf("in the end there are %+v", there)
	}
	q.restorable()
	for _, x := range both {
		if item, err := x.Item(t.Context(), "docs"); err != nil || item.Error != nil || item.Points != 2 {
			t.Errorf("%+v, %v", item, err)
		}
		if gone := x.audited(audit.ObjectsGone); len(gone) > 0 { // nobody but they did
			t.Errorf("a false alarm: %+v", gone)
		}
	}
	t.Logf("%d points made, %d removed", made+1, removed)
}
