//go:build linux

package main_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestTerminated ends the agent in the middle of a backup, as a shutdown does. It
// ends well and soon, and the next backup uses what was stored.
func TestTerminated(t *testing.T) {
	h := newHost(t, plain)
	fill(t, h.path("docs"), 1, 48, 8<<20)
	id := h.ready()
	h.configure(pinned(id))
	job := h.detached("backup", "docs")
	until(t, "some packs are stored", func() bool { return packs(h.path("vault")) >= 2 })
	began := time.Now()
	h.stop()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the agent took %s to end", took)
	}
	h.start()
	if j := h.job(job); j.State != control.JobCancelled || j.Error == nil || j.Error.Next == "" {
		t.Fatalf("the job is %s (%+v)", j.State, j.Error)
	}
	if got := h.points("docs"); len(got) != 0 {
		t.Fatalf("points %q of a backup that was stopped", got)
	}
	p := h.backup("docs")
	if all := int64(48 * 8 << 20); p.Stats.SourceBytes != all || p.Stats.NewBytes >= all {
		t.Errorf("the second backup stored %d bytes of %d, so it did not go on where the first stopped", p.Stats.NewBytes, all)
	}
	h.coffer("verify", "docs").done()
	h.coffer("restore", "docs", h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
}

// TestKilled kills the agent again and again in the middle of backups. After each
// death all points that can be seen are whole, and the last one is what was kept.
func TestKilled(t *testing.T) {
	rounds, files := 15, 25
	if testing.Short() {
		rounds = 3
	}
	h := newHost(t, plain)
	h.ready()
	fill(t, h.path("docs"), 2000, 1, 1<<20)
	first := h.backup("docs").ID // from now on there is something to lose
	fill(t, h.path("docs"), 1000, files, 8<<20)
	died := 0
	for round := range rounds {
		fill(t, h.path("docs"), uint64(round), 1, 8<<20) // something new each time
		before := packs(h.path("vault"))
		job := h.detached("backup", "docs")
		h.stagger(round, before, job)
		h.kill()
		h.start()
		if h.job(job).State != control.JobDone {
			died++
		}
		if !slices.Contains(h.points("docs"), first) {
			t.Fatal("the first point is lost")
		}
		h.coffer("verify", "docs").done()
	}
	t.Logf("%d of %d backups died", died, rounds)
	if died == 0 {
		t.Error("no backup was killed before its end")
	}
	last := h.backup("docs")
	h.coffer("verify", "docs").done()
	h.coffer("restore", "docs@"+last.ID, h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
}

// stagger returns at another moment of a backup in each round: at once, when there
// is a new pack, half written or whole, and some random looks at the job later.
func (h *host) stagger(round, before int, job int64) {
	h.Helper()
	switch round % 3 {
	case 1:
		until(h, "an object is being written", func() bool {
			half, err := os.ReadDir(h.path("vault/.tmp"))
			return err == nil && len(half) > 0 || packs(h.path("vault")) > before
		})
	case 2:
		until(h, "a pack is stored", func() bool { return packs(h.path("vault")) > before })
	}
	for range rand.IntN(10) {
		h.job(job)
	}
}

// TestKilledRestore kills the agent while it restores. No file that has its name
// is half, and the next restore ends what this one began.
func TestKilledRestore(t *testing.T) {
	h := newHost(t, plain)
	fill(t, h.path("docs"), 1, 24, 8<<20)
	h.ready()
	h.backup("docs")
	h.detached("restore", "docs", h.path("back"))
	back := h.path("back", h.path("docs"))
	until(t, "a file is there", func() bool {
		found, err := filepath.Glob(filepath.Join(back, "1-*"))
		return err == nil && len(found) > 0
	})
	must(t, h.daemon.cmd.Process.Signal(syscall.SIGKILL))
	h.daemon.wait(t)
	h.daemon = nil
	wholeOrAbsent(t, h.path("docs"), back)
	h.start()
	h.coffer("restore", "docs", h.path("back"), "--delete").done()
	sameTree(t, h.path("docs"), back)
}
