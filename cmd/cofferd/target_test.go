//go:build linux

package main_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestTargetFull restores into too little room. No file is there half, and with
// more room the restore goes on.
func TestTargetFull(t *testing.T) {
	h := newHost(t, plain)
	fill(t, h.path("docs"), 1, 30, 1<<20)
	h.ready()
	h.backup("docs")
	small(t, h.path("back"), 12)
	h.coffer("restore", "docs", h.path("back")).fails(control.ExitFailed, "full", "make room")
	wholeOrAbsent(t, h.path("docs"), h.path("back", h.path("docs")))
	must(t, mount(h.path("back"), syscall.MS_REMOUNT, 64))
	j := fromJSON[control.Job](h.coffer("restore", "docs", h.path("back"), "--json").done())
	if j.Result.Restore.Unchanged == 0 {
		t.Error("the second restore wrote again what the first had written")
	}
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
}

// TestTargetReadOnly restores to where nothing can be written.
func TestTargetReadOnly(t *testing.T) {
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	h.ready()
	h.backup("docs")
	small(t, h.path("back"), 16)
	must(t, mount(h.path("back"), syscall.MS_REMOUNT|syscall.MS_RDONLY, 16))
	h.coffer("restore", "docs", h.path("back")).fails(control.ExitFailed, "read-only", "choose a target")
	h.coffer("restore", "docs", h.path("coffer.yaml")).says(control.ExitFailed, "coffer.yaml") // a file
	h.coffer("restore", "docs", h.path("back2")).done()
}

// TestOverwrite restores over a tree that has changed, under each policy.
func TestOverwrite(t *testing.T) {
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	h.ready()
	h.backup("docs")
	back := h.path("back", h.path("docs"))
	letter, extra := filepath.Join(back, "letter.txt"), filepath.Join(back, "many", "extra")
	restore := func(args ...string) control.RestoreResult {
		t.Helper()
		args = append([]string{"restore", "docs", h.path("back"), "--json"}, args...)
		return *fromJSON[control.Job](h.coffer(args...).done()).Result.Restore
	}

	if r := restore("--dry-run"); !r.DryRun || r.Files == 0 {
		t.Errorf("a dry run says %+v", r)
	}
	if _, err := os.Stat(h.path("back")); err == nil {
		t.Fatal("a dry run made the target")
	}
	if r := restore(); r.WrittenBytes == 0 {
		t.Errorf("a first restore says %+v", r)
	}
	sameTree(t, h.path("docs"), back)
	if r := restore(); r.WrittenBytes != 0 || r.Unchanged == 0 {
		t.Errorf("a restore over an equal tree says %+v", r)
	}
	disguise(t, letter, []byte("Dear forger\n"))
	if r := restore("--overwrite", "always"); r.WrittenBytes == 0 {
		t.Errorf("a restore that trusts no time says %+v", r)
	}
	sameTree(t, h.path("docs"), back)

	must(t, os.WriteFile(letter, []byte("changed"), 0o600))
	must(t, os.WriteFile(extra, []byte("mine"), 0o600))
	changed := describe(t, back)
	restore("--dry-run", "--delete", "--overwrite", "always")
	if now := describe(t, back); len(without(now, changed)) != 0 || len(now) != len(changed) {
		t.Error("a dry run changed the target")
	}
	if r := restore("--overwrite", "never"); r.Kept == 0 || r.WrittenBytes != 0 {
		t.Errorf("a restore that never overwrites says %+v", r)
	}
	if b, err := os.ReadFile(letter); err != nil || string(b) != "changed" {
		t.Errorf("it overwrote a file: %q, %v", b, err)
	}
	restore()
	if _, err := os.Stat(extra); err != nil {
		t.Errorf("a restore without --delete removed something: %v", err)
	}
	if r := restore("--delete"); r.Deleted != 1 {
		t.Errorf("a restore that removes says %+v", r)
	}
	sameTree(t, h.path("docs"), back)
}

// disguise changes the content of a file and nothing that shows it.
func disguise(t testing.TB, path string, content []byte) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.WriteFile(path, content, 0o600))
	must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
}
