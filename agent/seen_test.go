//go:build linux

package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
)

// objects returns the paths of an item's objects in a folder of the vault.
func objects(t *testing.T, b *bench, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(b.path(pattern))
	must(t, err)
	return paths
}

// TestPointGone: a point that somebody deletes is in the status, across restarts, and once
// in the audit log; backups go on, and the points that are there are shown.
func TestPointGone(t *testing.T) {
	b := furnished(t)
	for range 3 {
		b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	}
	points, err := b.listed("docs")
	must(t, err)
	item, err := b.Item(t.Context(), "docs")
	must(t, err)
	newest := points[len(points)-1]
	if len(points) < 3 || item.Points != len(points) || item.LastPoint != newest.ID || item.Error != nil || item.SourceBytes != newest.Stats.SourceBytes {
		t.Fatalf("%+v with %d points, the newest %+v", item, len(points), newest)
	}
	var stored int64
	for _, p := range points {
		stored += p.Stats.StoredBytes
	}
	if item.StoredBytes != stored {
		t.Errorf("stored %d bytes, and the points say %d", item.StoredBytes, stored)
	}

	stealPoint(t, b, points[0].ID)
	for range 2 {
		item, err = b.Item(t.Context(), "docs")
		must(t, err)
		if item.Error == nil || item.Error.Code != control.CodeDamaged || !strings.Contains(item.Error.Message, points[0].ID) || item.Points != len(points)-1 || item.LastPoint != newest.ID {
			t.Errorf("%+v: %v", item, item.Error)
		}
		status, err := b.Status(t.Context())
		must(t, err)
		if !slices.ContainsFunc(status.Problems, func(p control.Problem) bool { return p.Subject == "item docs" && p.Next != "" }) {
			t.Errorf("problems %+v", status.Problems)
		}
		b.stop()
		b.start()
	}
	left, err := b.listed("docs")
	must(t, err)
	if len(left) != len(points)-1 || left[0].ID != points[1].ID {
		t.Errorf("%d points left, the first %s", len(left), left[0].ID)
	}
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	b.stop()
	told := 0
	for _, path := range objects(t, b, "state/audit/*") {
		raw, err := os.ReadFile(path)
		must(t, err)
		told += strings.Count(string(raw), string(audit.ObjectsGone))
	}
	if told != 1 {
		t.Errorf("the audit log tells of it %d times", told)
	}
}

// stealPoint deletes the object of a point.
func stealPoint(t *testing.T, b *bench, id string) {
	t.Helper()
	for _, path := range objects(t, b, "*/items/*/points/*") {
		name := filepath.Base(path)
		if _, random, ok := strings.Cut(name, "-"); ok && strings.HasPrefix(random, id[len(id)-4:]) {
			must(t, os.Remove(path))
			return
		}
	}
	t.Fatalf("no object of point %s", id)
}

// TestVerifyMissesPoint: a point that somebody deletes right after its backup fails each
// verification of its item, until somebody takes note of it.
func TestVerifyMissesPoint(t *testing.T) {
	b := furnished(t)
	made := b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	stealPoint(t, b, made.Point)
	b.stop() // nobody has looked since
	b.start()
	for name, req := range map[string]control.VerifyRequest{
		"data": {Item: "docs"}, "structure": {Level: control.VerifyStructure}, "repair": {Item: "docs", Repair: true},
	} {
		j := b.wait(b.Verify(t.Context(), req))
		if j.State != control.JobFailed || j.Error.Code != control.CodeDamaged || !strings.Contains(j.Error.Message, made.Point) {
			t.Fatalf("%s: %s, %+v", name, j.State, j.Error)
		}
		if !strings.Contains(j.Error.Next, "coffer point forget docs@"+made.Point) || strings.Contains(j.Error.Next, "--repair") {
			t.Errorf("%s: next %s", name, j.Error.Next)
		}
		if len(j.Result.Verify.Faults) != 1 {
			t.Errorf("%s: faults %q", name, j.Result.Verify.Faults)
		}
	}
	_, err := b.ForgetPoints(t.Context(), control.PointForget{Item: "docs", Points: []string{made.Point}})
	must(t, err)
	b.done(b.Verify(t.Context(), control.VerifyRequest{Item: "docs"}))
}
