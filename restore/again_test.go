//go:build linux

package restore_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store/mem"
)

// inode identifies a file.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// descriptors counts the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(fds)
}

// TestAgain restores over a tree that is right already: nothing is written, and
// everything, hard links too, is counted as left.
func TestAgain(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	want := manifest(t, dir)
	p := e.mustBackup(dir)
	to := filepath.Join(t.TempDir(), "back")
	_, _, err := e.restore(p.Name, to, nil)
	check(t, err)
	link := inode(t, filepath.Join(to, dir, "same/hard"))

	for name, change := range map[string]func(*restore.Config){
		"if different": nil,
		"always":       func(c *restore.Config) { c.Overwrite = restore.Always },
		"dry run":      func(c *restore.Config) { c.DryRun = true },
	} {
		_, done, err := e.restore(p.Name, to, change)
		check(t, err)
		if files := done.Files.Load() + done.Others.Load(); done.Kept.Load() != files || done.Written.Load() != 0 {
			t.Errorf("%s: %d of %d entries were kept and %d bytes written", name, done.Kept.Load(), files, done.Written.Load())
		}
	}
	same(t, manifest(t, filepath.Join(to, dir)), want)
	if inode(t, filepath.Join(to, dir, "big")) != link || inode(t, filepath.Join(to, dir, "same/hard")) != link {
		t.Error("hard links were made anew")
	}

	// A name that is a copy, and not a link, becomes one.
	hard := filepath.Join(to, dir, "same/hard")
	data, err := os.ReadFile(hard)
	check(t, err)
	check(t, os.Remove(hard))
	check(t, os.WriteFile(hard, data, 0o600))
	_, done, err := e.restore(p.Name, to, nil)
	check(t, err)
	if files := done.Files.Load() + done.Others.Load(); done.Kept.Load() != files-1 {
		t.Errorf("%d of %d entries were kept beside a link that is gone", done.Kept.Load(), files)
	}
}

// TestOtherNames restores files of equal content over one file with several names,
// one of them outside the point. Each gets its own mode, and the one outside keeps
// what it had.
func TestOtherNames(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := filepath.Join(t.TempDir(), "data")
	check(t, os.MkdirAll(dir, 0o755))
	when := time.Unix(1_700_000_000, 0)
	for name, mode := range map[string]os.FileMode{"a": 0o600, "b": 0o640, "c": 0o600} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte("the same"), mode))
		check(t, os.Chtimes(filepath.Join(dir, name), when, when))
	}
	p := e.mustBackup(dir)

	top := t.TempDir()
	to, outside := filepath.Join(top, "back"), filepath.Join(top, "outside")
	into := filepath.Join(to, dir)
	check(t, os.MkdirAll(into, 0o755))
	check(t, os.WriteFile(outside, []byte("the same"), 0o604))
	check(t, os.Chmod(outside, 0o604))
	check(t, os.Chtimes(outside, when, when))
	for _, name := range []string{"a", "b", "c"} {
		check(t, os.Link(outside, filepath.Join(into, name)))
	}
	_, done, err := e.restore(p.Name, to, nil)
	check(t, err)
	if done.Written.Load() != 0 {
		t.Errorf("%d bytes that were there were read from the vault", done.Written.Load())
	}
	if info, err := os.Stat(outside); err != nil || info.Mode() != 0o604 {
		t.Errorf("the file outside the point has become %v, %v", info.Mode(), err)
	}
	for name, mode := range map[string]os.FileMode{"a": 0o600, "b": 0o640, "c": 0o600} {
		info, err := os.Stat(filepath.Join(into, name))
		check(t, err)
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
		}
	}
}

// TestNothingLeftOpen: what a restore opens to compare, it closes, also on a dry
// run and when it is ended by a fault.
func TestNothingLeftOpen(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	p := e.mustBackup(dir)
	to := filepath.Join(t.TempDir(), "back")
	_, _, err := e.restore(p.Name, to, nil)
	check(t, err)
	big := filepath.Join(to, dir, "bigger")
	before := 0
	for round := range 6 { // the first one settles what the runtime itself opens
		f, err := os.OpenFile(big, os.O_WRONLY, 0)
		check(t, err)
		_, err = f.WriteAt([]byte("changed"), int64(7<<20+round)) // what is before it is right
		check(t, err)
		check(t, f.Close())
		if round < 3 {
			_, done, err := e.restore(p.Name, to, func(c *restore.Config) { c.DryRun = true })
			check(t, err)
			if done.Written.Load() == 0 {
				t.Fatal("the dry run would write nothing")
			}
		} else {
			broken := *e
			broken.wrap = brokenAfter(200)
			if _, _, err := broken.restore(p.Name, to, func(c *restore.Config) { c.Overwrite = restore.Always }); err == nil {
				t.Fatal("a restore ended well with an index that fails")
			}
		}
		if round == 0 {
			before = descriptors(t)
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d files are open, and %d were", after, before)
	}
}

// TestDryRunSeesWhatDeleteMends: with --delete a file makes way for a directory and
// the other way round, on a dry run too.
func TestDryRunSeesWhatDeleteMends(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := filepath.Join(t.TempDir(), "data")
	check(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "d/file"), []byte("x"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "f"), []byte("y"), 0o600))
	want := manifest(t, dir)
	p := e.mustBackup(dir)
	to := filepath.Join(t.TempDir(), "back")
	into := filepath.Join(to, dir)
	check(t, os.MkdirAll(filepath.Join(into, "f/x"), 0o755))
	check(t, os.WriteFile(filepath.Join(into, "d"), nil, 0o600))
	check(t, os.WriteFile(filepath.Join(into, "more"), nil, 0o600))

	before := manifest(t, into)
	result, dry, err := e.restore(p.Name, to, func(c *restore.Config) { c.Delete, c.DryRun = true, true })
	check(t, err)
	if len(result.Skipped) > 0 {
		t.Errorf("dry run skips %s: %s", result.Skipped[0].Path, result.Skipped[0].Reason)
	}
	same(t, manifest(t, into), before)
	result, done, err := e.restore(p.Name, to, func(c *restore.Config) { c.Delete = true })
	check(t, err)
	if len(result.Skipped) > 0 || dry.Deleted.Load() != done.Deleted.Load() || done.Deleted.Load() != 3 {
		t.Errorf("skipped %v; dry run deletes %d, restore %d", result.Skipped, dry.Deleted.Load(), done.Deleted.Load())
	}
	same(t, manifest(t, into), want)
}

// TestPatternMakesNoOtherDirectories: a restore by pattern makes the directories of
// what matches, as they were, and no others.
func TestPatternMakesNoOtherDirectories(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	check(t, os.Chmod(filepath.Join(dir, "small/02"), 0o751))
	p := e.mustBackup(dir)
	to := filepath.Join(t.TempDir(), "back")
	_, _, err := e.restore(p.Name, to, func(c *restore.Config) { c.Select.Patterns = []string{"/**/file002", "/**/in"} })
	check(t, err)
	var got []string
	for line := range strings.Lines(manifest(t, filepath.Join(to, dir))) {
		got = append(got, strings.Join(strings.Fields(line)[:2], " "))
	}
	want := []string{`"" drwxr-xr-x`, `"/nothing" drwx------`, `"/nothing/in" drwx------`, `"/nothing/in/here" drwx------`,
		`"/small" drwxr-xr-x`, `"/small/02" drwxr-x--x`, `"/small/02/file002" -rw-r-----`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
