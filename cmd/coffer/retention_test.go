package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/controltest"
)

// kept is an agent with policies, holds and something to prune.
func kept() *controltest.Backend {
	b := world()
	older, newest := b.PointList[0], b.PointList[1]
	older.Holds = []control.Hold{
		{ID: "h1", Owner: "legal", Reason: "case 4711", Since: now.AddDate(0, -2, 0)},
		{ID: "h2", Owner: "audit", Reason: "2026", Since: now.AddDate(0, -1, 0)},
	}
	going := newest
	going.ID, going.Time, going.Goes, going.Damaged = "2026-11-01T02:00:00Z-c3d4", now.AddDate(0, 0, -21), now.AddDate(0, 0, 2), true
	b.PointList = []control.Point{older, going, newest}
	b.PolicyList = []control.Policy{
		{
			Name: "nightly", Schedule: "0 2 * * *", Timezone: "Europe/Berlin", Retention: "last 3, daily 7",
			Next: []time.Time{now.Add(17 * time.Hour), now.Add(41 * time.Hour)},
			Items: []control.PolicyItem{
				{Item: "etc", Last: newest.Time, Next: now.Add(17 * time.Hour), Job: 117},
				{Item: "locked", Last: now.Add(-2 * time.Hour), Next: now.Add(time.Minute), Job: 118, Failures: 3,
					Error: &control.Error{Message: "a key that this needs does not answer"}},
			},
		},
		{Name: "manual", Items: []control.PolicyItem{{Item: "slow", Paused: "window until 18:00"}}, Retention: "everything"},
	}
	b.Explained = map[string]control.Explanation{"nightly": {Points: []control.PointFate{
		{Item: "etc", Point: older.ID, Time: older.Time, Keep: true, Pinned: true, Reasons: []string{"hold of legal"}},
		{Item: "etc", Point: "2026-10-01T02:00:00Z-e5f6", Time: now.AddDate(0, -1, -21), Reasons: []string{"no rule keeps it"}},
		{Item: "etc", Point: going.ID, Time: going.Time, Goes: going.Goes, Reasons: []string{"no rule keeps it"}},
		{Item: "etc", Point: "2026-11-21T02:00:00Z-a7b8", Time: now.AddDate(0, 0, -1), Keep: true, Expires: now.AddDate(0, 0, 7), Reasons: []string{"daily 2 of 7"}},
		{Item: "etc", Point: newest.ID, Time: newest.Time, Keep: true, Reasons: []string{"last 1 of 3", "daily 1 of 7"}},
	}}}
	b.Diagnosis = control.Diagnosis{Checks: []control.Check{
		{Subject: "state folder", What: "read and write", Outcome: control.CheckGood, Says: "/var/lib/coffer, 12 GiB free"},
		{Subject: "store of site", What: "read and write", Outcome: control.CheckGood},
		{Subject: "store of site", What: "object lock", Outcome: control.CheckWarning, Says: "the bucket has none", Next: "make a bucket with object lock"},
		{Subject: "key main", What: "unwrap", Outcome: control.CheckBad, Says: "token not present", Next: "put the token back"},
		{Subject: "vault site", What: "opens", Outcome: control.CheckSkipped},
	}}
	b.Reload = b.Config
	play := b.Script
	b.Script = func(kind, subject string) controltest.Play {
		switch {
		case kind == control.KindPrune && subject == "etc":
			return controltest.Play{End: control.Job{State: control.JobDone, Result: &control.JobResult{Prune: &control.PruneResult{
				DryRun: true, MarkedPoints: 2, MarkedPacks: 40, MarkedBytes: 640 << 20, Goes: now.AddDate(0, 0, 3),
				RemovedPoints: 1, RemovedPacks: 20, FreedBytes: 320 << 20, RescuedPacks: 1, RepackedPacks: 3, RepackedBytes: 20 << 20,
				Locked: 7, LockedUntil: now.AddDate(0, 1, 0), Waiting: 1, ReadBytes: 4 << 20, Seconds: 3.1,
				Items: []control.ItemPrune{{Item: "etc", Says: "12 of 15 points stay"}},
			}}}}
		case kind == control.KindPrune:
			return controltest.Play{End: control.Job{State: control.JobDone, Result: &control.JobResult{Prune: &control.PruneResult{
				Items: []control.ItemPrune{{Item: "etc", Error: &control.Error{Message: "a point is gone", Next: "coffer verify etc"}}},
			}}}}
		case kind == control.KindVerify && subject == "slow":
			return controltest.Play{End: control.Job{State: control.JobDone, Output: "hook: done\n", Result: &control.JobResult{Verify: &control.VerifyResult{
				Points: 1, Objects: 12, Files: 400, ReadBytes: 5 << 20, Repaired: []string{"index rebuilt"}, Seconds: 3,
			}}}}
		case kind == control.KindVerify && subject == "db":
			return controltest.Play{End: control.Job{State: control.JobDone, Point: "2026-11-22T02:00:03Z-k3f9",
				Result: &control.JobResult{Verify: &control.VerifyResult{Compared: 400, Seconds: 3}}}}
		}
		return play(kind, subject)
	}
	return b
}

// many is an agent with n items that are well, in two vaults and policies.
func many(n int) *controltest.Backend {
	b := world()
	b.VaultList = b.VaultList[:1]
	b.VaultList = append(b.VaultList, control.Vault{Name: "local", Store: "file:///srv/backup", State: control.StateAccessible, Checked: now.Add(-time.Minute)})
	b.ItemList = nil
	for i := range n {
		policy := "nightly"
		if i%4 == 0 {
			policy = "hourly"
		}
		b.ItemList = append(b.ItemList, control.Item{
			Name: fmt.Sprintf("host-%02d-var-lib", i), Vault: "site", Kind: "files", Points: 12, Policy: policy, LastPoint: "p",
			LastGood: now.Add(-time.Duration(i) * time.Hour), Next: now.Add(time.Duration(1+i%4) * time.Hour),
			SourceBytes: 1 << 30, StoredBytes: 1 << 28, Proof: control.Proof{Data: now.AddDate(0, 0, -i)},
		})
	}
	return b
}

// some is many, of which a few items are not well.
func some(n int) *controltest.Backend {
	b := many(n)
	for i := 3; i < n; i += 4 {
		b.ItemList[i].Points, b.ItemList[i].LastGood = 0, time.Time{}
		b.Problems = append(b.Problems, control.Problem{
			Subject: "item " + b.ItemList[i].Name, Message: "it has no point yet", Next: "make one: coffer backup " + b.ItemList[i].Name,
		})
	}
	b.ItemList[1].Overdue = true
	b.Problems = append(b.Problems, control.Problem{
		Subject: "item " + b.ItemList[1].Name, Message: "a backup was due, and no good point came of it since 2026-11-22T08:00:00Z", Next: "see why: coffer job list",
	})
	return b
}

// TestStatusFits: the golden status pages of twenty items fit on a screen.
func TestStatusFits(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "status_many.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	pages := strings.Split(string(text), "\n-- ")[1:]
	if len(pages) != 2 {
		t.Fatalf("there are %d pages", len(pages))
	}
	for _, page := range pages {
		lines := strings.Split(strings.TrimSuffix(page, "\n"), "\n")[1:]
		if len(lines) > 24 {
			t.Errorf("%d lines: %s", len(lines), page)
		}
		for i, l := range lines {
			table := i > 0 && !strings.Contains(l, ": ") // problems are told as they are
			if n := utf8.RuneCountInString(l); table && n > 80 {
				t.Errorf("%d columns: %s", n, l)
			}
		}
	}
}
