//go:build linux

package agent_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// packs are the files of a vault's packs.
func (b *bench) packs(vault string) (paths []string) {
	b.Helper()
	err := filepath.WalkDir(b.path(vault), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path, "/packs/") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) == 0 {
		b.Fatalf("packs of %s: %v, %v", vault, paths, err)
	}
	return paths
}

// spoil flips a bit in the middle of a file.
func (b *bench) spoil(path string) {
	b.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	raw = bytes.Clone(raw)
	raw[len(raw)/2] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o400); err != nil {
		b.Fatal(err)
	}
}

// proved is what is known of an item's points.
func (b *bench) proved(item string) control.Proof {
	b.Helper()
	it, err := b.Item(b.Context(), item)
	if err != nil {
		b.Fatal(err)
	}
	return it.Proof
}

// TestProofs: each kind of verification is remembered by itself, also across a restart.
func TestProofs(t *testing.T) {
	b := furnished(t)
	if p := b.proved("docs"); !p.Structure.IsZero() || !p.Data.IsZero() || !p.Restore.IsZero() {
		t.Errorf("before anything was looked at: %+v", p)
	}
	began := b.clock.Now().Truncate(time.Second)
	b.done(b.Verify(t.Context(), control.VerifyRequest{Item: "docs", Level: control.VerifyStructure}))
	if p := b.proved("docs"); p.Structure.Before(began) || !p.Data.IsZero() || p.Faults != 0 {
		t.Errorf("after the structure: %+v", p)
	}
	b.done(b.Verify(t.Context(), control.VerifyRequest{Item: "docs", Part: 100}))
	if p := b.proved("docs"); p.Data.Before(began) || !p.Restore.IsZero() {
		t.Errorf("after the data: %+v", p)
	}
	j := b.done(b.Verify(t.Context(), control.VerifyRequest{Item: "docs", Restore: true}))
	if j.Result.Verify.Compared != 3 {
		t.Errorf("%d files were compared", j.Result.Verify.Compared)
	}
	if left, err := os.ReadDir(b.path("state", "scratch")); err != nil || len(left) > 0 {
		t.Errorf("left in the scratch folder: %v, %v", left, err)
	}
	before := b.proved("docs")
	if before.Restore.Before(began) {
		t.Errorf("after the restore: %+v", before)
	}
	b.stop()
	if err := os.MkdirAll(b.path("state", "scratch", "somebody's"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.start()
	if after := b.proved("docs"); after != before {
		t.Errorf("after a restart: %+v, before: %+v", after, before)
	}
	if _, err := os.Stat(b.path("state", "scratch", "somebody's")); err != nil {
		t.Errorf("what was somebody's in the scratch folder: %v", err)
	}
}

// TestDamageIsRememberedUntilRepaired: what a verification finds is told by the item and
// its points until a repair has mended it, and the repaired point is as it was.
func TestDamageIsRememberedUntilRepaired(t *testing.T) {
	b := furnished(t)
	must(t, os.WriteFile(b.path("docs", "long"), bytes.Repeat([]byte("words and words and "), 100_000), 0o600))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	for _, path := range b.packs("one") {
		b.spoil(path)
	}
	for _, req := range []control.VerifyRequest{{Item: "docs"}, {Item: "docs", Part: 1}} { // what is damaged is looked at every time
		j := b.wait(b.Verify(t.Context(), req))
		if j.State != control.JobFailed || j.Error.Code != control.CodeDamaged || !strings.Contains(j.Error.Next, "--repair docs") || len(j.Result.Verify.Faults) == 0 {
			t.Fatalf("a damaged vault: %s, %+v", j.State, j.Error)
		}
	}
	b.wait(b.Verify(t.Context(), control.VerifyRequest{Item: "docs", Level: control.VerifyStructure})) // which does not look so deep
	if p := b.proved("docs"); p.Faults == 0 {
		t.Errorf("the item says nothing of its damage: %+v", p)
	}
	points, err := b.listed("docs")
	must(t, err)
	damaged := 0
	for _, p := range points {
		if p.Damaged {
			damaged++
		}
	}
	if damaged == 0 {
		t.Errorf("no point of %+v is damaged", points)
	}
	j := b.wait(b.Verify(t.Context(), control.VerifyRequest{Item: "docs", Repair: true}))
	if len(j.Result.Verify.Repaired) == 0 {
		t.Errorf("repaired is %+v", j.Result.Verify)
	}
	points, err = b.listed("docs")
	must(t, err)
	newest := points[len(points)-1]
	if len(points) != 3 || newest.Damaged {
		t.Errorf("after the repair there are %+v", points)
	}
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")}))
	for _, name := range []string{"long", "letter0.txt"} {
		want, err := os.ReadFile(b.path("docs", name))
		must(t, err)
		got, err := os.ReadFile(b.path("back", b.path("docs", name)))
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s came back otherwise", name)
		}
	}
	if j.State == control.JobDone {
		if p := b.proved("docs"); p.Faults != 0 {
			t.Errorf("after a repair that mended everything: %+v", p)
		}
	}
}

// TestVerifyRefuses what makes no sense together.
func TestVerifyRefuses(t *testing.T) {
	b := furnished(t)
	for name, req := range map[string]control.VerifyRequest{
		"a level":              {Item: "docs", Level: "deep"},
		"a part over all":      {Item: "docs", Part: 101},
		"a part below none":    {Item: "docs", Part: -1},
		"a part of a point":    {Item: "docs", Point: "latest", Part: 5},
		"a repair of all":      {Repair: true},
		"a repair of a point":  {Item: "docs", Point: "latest", Repair: true},
		"a structure restored": {Item: "docs", Restore: true, Level: control.VerifyStructure},
	} {
		_, err := b.Verify(t.Context(), req)
		if control.CodeOf(err) != control.CodeBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := b.Verify(t.Context(), control.VerifyRequest{Item: "nothing"})
	b.refused(err, control.CodeNotFound)
}

// TestVerifyBySchedule: a vault has its structure and data looked at and its items
// restored in turn, by itself.
func TestVerifyBySchedule(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.configure(strings.Replace(twoKeys, `one: {store: "file://$DIR/one", keys: [main]}`,
		`one: {store: "file://$DIR/one", keys: [main], verify: {structure: "every 6 hours", data: "daily at 10:00", every: 3d, restore: "daily at 11:00"}}`, 1))
	b.start()
	b.pass(4 * 60)
	b.idle()
	p := b.proved("docs")
	if p.Structure.IsZero() || p.Data.IsZero() || p.Restore.IsZero() || p.Faults != 0 {
		jobs, _ := b.Jobs(t.Context(), control.JobFilter{})
		t.Errorf("after four hours: %+v; %d jobs", p, len(jobs))
	}
	if p := b.proved("more"); !p.Structure.IsZero() {
		t.Errorf("an item of a vault without schedules: %+v", p)
	}
}

// TestRepairCountsOnce: what a repair looks at twice it counts once; one that has mended
// everything has passed nothing over, and another one finds nothing to do.
func TestRepairCountsOnce(t *testing.T) {
	b := furnished(t)
	b.spoil(objects(t, b, "one/items/*/packs/*/*")[0])
	j := b.done(b.Verify(t.Context(), control.VerifyRequest{Item: "docs", Repair: true}))
	if r := j.Result.Verify; r.Points != 2 || len(r.Repaired) == 0 || j.Progress.Skipped != 0 || j.Progress.Faults != 0 {
		t.Errorf("%+v, %+v", r, j.Progress)
	}
	for e, err := range b.Events(t.Context(), j.ID, 0) {
		must(t, err)
		if e.Note != nil && slices.Contains(j.Result.Verify.Repaired, e.Note.Message) {
			t.Errorf("told beside the result: %s", e.Note.Message)
		}
	}
	packs := len(b.packs("one"))
	j = b.done(b.Verify(t.Context(), control.VerifyRequest{Item: "docs", Repair: true}))
	if r := j.Result.Verify; r.Points != 2 || len(r.Repaired) != 0 || len(b.packs("one")) != packs {
		t.Errorf("once more: %+v, %d packs of %d", r, len(b.packs("one")), packs)
	}
	points, err := b.listed("docs")
	must(t, err)
	if len(points) != 2 {
		t.Errorf("there are %+v", points)
	}
}

// TestStreamOfFiles: a stream makes no point of an item of files.
func TestStreamOfFiles(t *testing.T) {
	b := furnished(t)
	_, err := b.Backup(t.Context(), control.BackupRequest{Item: "docs", Input: &control.BackupInput{Name: "junk"}})
	b.refused(err, control.CodeBadRequest)
	if wire := control.AsError(err); !strings.Contains(wire.Next, "stream:") {
		t.Errorf("next %s", wire.Next)
	}
}
