package files_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// makeTree makes files with their own path as content; a path that ends in "/" is a
// directory.
func makeTree(t *testing.T, paths ...string) string {
	t.Helper()
	top := t.TempDir()
	for _, p := range paths {
		full := filepath.Join(top, p)
		if strings.HasSuffix(p, "/") {
			mkdir(t, full)
			continue
		}
		mkdir(t, filepath.Dir(full))
		write(t, full, p)
	}
	return top
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func TestRoots(t *testing.T) {
	top := makeTree(t, "a/x", "a/b/y", "a/b/c/z", "d/one", "d/two", "e/")
	j := func(p string) string { return filepath.Join(top, p) }
	f := walk(t, files.Config{Paths: []string{j("a/b"), j("a"), j("d/two"), j("e"), j("missing")}}, nil)
	f.noErrors(t)
	f.expect(t, top, "a", "a/x", "a/b", "a/b/y", "a/b/c", "a/b/c/z", "d", "d/two", "e")
	f.partial(t, top, "d")
	for p := filepath.Dir(top); p != "/"; p = filepath.Dir(p) {
		if e := f.entries[p]; e == nil || e.Type != tree.Dir || e.Mode == 0 || !e.Partial {
			t.Errorf("parent %s is not kept as a directory with its metadata", p)
		}
	}
	if e := f.entries[j("d/two")]; e != nil {
		equal(t, "d/two", e.content, []byte("d/two"))
	}
	if s := f.skips[j("missing")]; !s.Fault || s.Reason == "" {
		t.Errorf("missing path: skip %+v, want a fault", s)
	}
	if len(f.skips) != 1 {
		t.Errorf("skips %v, want one", f.skips)
	}
}

func TestAllRootsMissing(t *testing.T) {
	top := t.TempDir()
	skips, err := errorsOf(t.Context(), files.Config{Paths: []string{top + "/a", top + "/b"}})
	if err == nil || !strings.Contains(err.Error(), top+"/b") {
		t.Errorf("error %v, want one that names a path", err)
	}
	if len(skips) != 2 {
		t.Errorf("%d skips, want 2", len(skips))
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]files.Config{
		"no paths":              {},
		"relative path":         {Paths: []string{"etc"}},
		"relative exclude file": {Paths: []string{"/etc"}, ExcludeFiles: []string{"x"}},
	} {
		if _, err := files.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := errorsOf(t.Context(), files.Config{Paths: []string{"/"}, ExcludeFiles: []string{"/nonexistent"}}); err == nil {
		t.Error("an exclude file that is not there is accepted")
	}
}

func TestExclude(t *testing.T) {
	top := makeTree(t, "r1/a.tmp", "r1/keep.tmp", "r1/build/x", "r1/sub/build/y", "r1/top", "r1/sub/top", "r1/sub/b", "r1/cache/c",
		"r2/top", "r2/a.tmp", "list")
	write(t, filepath.Join(top, "list"), "# list\n*.tmp\r\n/cache/\n")
	f := walk(t, files.Config{
		Paths:        []string{filepath.Join(top, "r1"), filepath.Join(top, "r2"), filepath.Join(top, "r1/sub/build")},
		Exclude:      []string{"!keep.tmp", "/top", "build/"},
		ExcludeFiles: []string{filepath.Join(top, "list")},
	}, nil)
	f.noErrors(t)
	// The path that is configured is kept although a pattern excludes it in r1.
	f.expect(t, top, "r1", "r1/keep.tmp", "r1/sub", "r1/sub/top", "r1/sub/b", "r1/sub/build", "r1/sub/build/y", "r2")
	f.partial(t, top, "r1", "r2")
}

// A configured path below an excluded directory is kept, and nothing else of it.
func TestRootBelowExcluded(t *testing.T) {
	top := makeTree(t, "r/out/a", "r/out/in/b", "r/c")
	f := walk(t, files.Config{Paths: []string{top + "/r", top + "/r/out/in"}, Exclude: []string{"out/"}}, nil)
	f.noErrors(t)
	f.expect(t, top, "r", "r/c", "r/out", "r/out/in", "r/out/in/b")
	f.partial(t, top, "r/out")
}

func TestCacheDirs(t *testing.T) {
	const signature = "Signature: 8a477f597d28d172789f06886806bc55"
	top := makeTree(t, "r/real/x", "r/real/sub/y", "r/fake/x", "r/named/x", "r/named/sub/z")
	write(t, top+"/r/real/CACHEDIR.TAG", signature+"\n# a cache\n")
	write(t, top+"/r/fake/CACHEDIR.TAG", "Signature: something else that is quite long")
	write(t, top+"/r/named/CACHEDIR.TAG", signature)
	mkdir(t, top+"/r/odd/CACHEDIR.TAG")
	f := walk(t, files.Config{Paths: []string{top + "/r", top + "/r/named/sub"}, SkipCacheDirs: true}, nil)
	f.noErrors(t)
	f.expect(t, top, "r", "r/real", "r/real/CACHEDIR.TAG", "r/fake", "r/fake/CACHEDIR.TAG", "r/fake/x",
		"r/named", "r/named/CACHEDIR.TAG", "r/named/sub", "r/named/sub/z", "r/odd", "r/odd/CACHEDIR.TAG")
	f.partial(t, top, "r/real", "r/named")
	if s, ok := f.skips[top+"/r/real"]; !ok || s.Fault {
		t.Errorf("cache directory: skip %+v, %v; want a note", s, ok)
	}
	f = walk(t, files.Config{Paths: []string{top + "/r/real"}, SkipCacheDirs: true}, nil)
	f.expect(t, top+"/r", "real", "real/CACHEDIR.TAG", "real/x", "real/sub", "real/sub/y")
}

func TestMaxFileSize(t *testing.T) {
	top := makeTree(t, "small")
	write(t, top+"/large", strings.Repeat("x", 101))
	write(t, top+"/exact", strings.Repeat("x", 100))
	f := walk(t, files.Config{Paths: []string{top}, MaxFileSize: 100}, nil)
	f.noErrors(t)
	f.expect(t, top, "small", "exact")
	f.partial(t, filepath.Dir(top), filepath.Base(top))
	if s, ok := f.skips[top+"/large"]; !ok || s.Fault || !strings.Contains(s.Reason, "101") {
		t.Errorf("large file: skip %+v, %v; want a note with its size", s, ok)
	}
}

func TestSymlinkedRoots(t *testing.T) {
	top := makeTree(t, "real/x", "real/sub/y")
	symlink(t, "real", top+"/link")
	// The path itself is a symlink: kept as one, with a note.
	f := walk(t, files.Config{Paths: []string{top + "/link"}}, nil)
	f.expect(t, top, "link")
	if e := f.entries[top+"/link"]; e == nil || e.Type != tree.Symlink || e.Target != "real" {
		t.Errorf("link is %+v", e)
	}
	if s, ok := f.skips[top+"/link"]; !ok || s.Fault {
		t.Errorf("symlink to a directory: skip %+v, %v; want a note", s, ok)
	}
	// On the way to the path it is followed.
	f = walk(t, files.Config{Paths: []string{top + "/link/sub"}}, nil)
	f.noErrors(t)
	f.expect(t, top, "link", "link/sub", "link/sub/y")
	// It cannot be both.
	f = walk(t, files.Config{Paths: []string{top, top + "/link/sub"}}, nil)
	f.expect(t, top, "real", "real/x", "real/sub", "real/sub/y", "link")
	if s := f.skips[top+"/link/sub"]; !s.Fault {
		t.Errorf("path behind a symlink that is kept: skip %+v, want a fault", s)
	}
}

func TestUnchanged(t *testing.T) {
	top := makeTree(t, "same", "touched", "rewritten", "replaced", "d/same")
	symlink(t, "same", top+"/link")
	first := walk(t, files.Config{Paths: []string{top}}, nil)
	write(t, top+"/rewritten", "another")
	write(t, top+"/new", "replaced")
	if err := os.Rename(top+"/new", top+"/replaced"); err != nil {
		t.Fatal(err)
	}
	touch(t, top+"/touched")
	second := walk(t, files.Config{Paths: []string{top}}, first)
	second.noErrors(t)
	for p, e := range second.under(top) {
		want := p == "same" || p == "d/same" || p == "link"
		if e.same != want {
			t.Errorf("%s: same %v, want %v", p, e.same, want)
		}
		if e.same && e.Node != first.entries[top+"/"+p].Node {
			t.Errorf("%s: same, but not the node of the last point", p)
		}
	}
	equal(t, "rewritten", second.entries[top+"/rewritten"].content, []byte("another"))
}

// touch moves the mtime by a second.
func touch(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	at := info.ModTime().Add(-1e9)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// A file that was written within a tick of the session is never believed to be
// unchanged, nor is one that did not hold still.
func TestRacilyUnchanged(t *testing.T) {
	top := makeTree(t, "f", "g")
	info, err := os.Stat(top + "/f")
	if err != nil {
		t.Fatal(err)
	}
	first := walk(t, files.Config{Paths: []string{top}, Clock: info.ModTime}, nil)
	first.entries[top+"/g"].Changing = true
	if got := first.entries[top+"/f"].CTime; got != (tree.Time{}) {
		t.Errorf("ctime %v of a file that is being written, want none", got)
	}
	second := walk(t, files.Config{Paths: []string{top}}, first)
	for p, e := range second.under(top) {
		if e.same {
			t.Errorf("%s is believed to be unchanged", p)
		}
	}
	settled := walk(t, files.Config{Paths: []string{top}}, second)
	for p, e := range settled.under(top) {
		if !e.same {
			t.Errorf("%s is not recognised once it is old", p)
		}
	}
}
