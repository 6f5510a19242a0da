package corpus_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/internal/bench/corpus"
)

// roots makes n small source files to build a tree from.
func roots(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		var b strings.Builder
		for line := range 60 + i {
			fmt.Fprintf(&b, "func f%d_%d() int { return %d }\n", i, line, i*line)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d.go", i)), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sums returns the digest of every file below dir by its path.
func sums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	got := make(map[string][32]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		got[strings.TrimPrefix(path, dir)] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTreeIsDistinctAndTheSameEachTime(t *testing.T) {
	o := corpus.TreeOptions{Roots: []string{roots(t, 40), "/nowhere"}, Files: 100, Bytes: 400_000, Seed: 7}
	first, second := t.TempDir(), t.TempDir()
	st, err := corpus.Tree(t.Context(), first, o)
	if err != nil {
		t.Fatal(err)
	}
	if st.Files != o.Files || st.Bytes < o.Bytes*9/10 || st.Bytes > o.Bytes*11/10 {
		t.Errorf("made %d files, %d bytes; want %d and about %d", st.Files, st.Bytes, o.Files, o.Bytes)
	}
	if _, err := corpus.Tree(t.Context(), second, o); err != nil {
		t.Fatal(err)
	}
	a, b := sums(t, first), sums(t, second)
	seen := make(map[[32]byte]string)
	for path, sum := range a {
		if b[path] != sum {
			t.Errorf("%s differs between two runs", path)
		}
		if other, ok := seen[sum]; ok {
			t.Errorf("%s and %s are equal", path, other)
		}
		seen[sum] = path
	}
	if len(a) != o.Files || len(b) != o.Files {
		t.Errorf("%d and %d files on disk, want %d", len(a), len(b), o.Files)
	}
}

func TestTreeWithoutSourcesSaysSo(t *testing.T) {
	_, err := corpus.Tree(t.Context(), t.TempDir(), corpus.TreeOptions{Roots: []string{t.TempDir()}, Files: 1, Bytes: 1})
	if err == nil || !strings.Contains(err.Error(), "no source files") {
		t.Errorf("got %v", err)
	}
}

func TestTinySizesAndSpread(t *testing.T) {
	dir := t.TempDir()
	st, err := corpus.Tiny(t.Context(), dir, 500, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := sums(t, dir)
	if len(got) != 500 || st.Files != 500 {
		t.Fatalf("%d files on disk, %d reported, want 500", len(got), st.Files)
	}
	seen := make(map[[32]byte]bool)
	for path, sum := range got {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < 20 || info.Size() > 900 {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
		if seen[sum] {
			t.Errorf("%s is there twice", path)
		}
		seen[sum] = true
	}
	dirs, err := os.ReadDir(dir)
	if err != nil || len(dirs) != 10 {
		t.Errorf("%d directories (%v), want 10", len(dirs), err)
	}
}

func TestRandomHasItsSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	const size = 3<<20 + 17
	if _, err := corpus.Random(t.Context(), path, size, 1); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != size {
		t.Errorf("got %v, %v; want %d bytes", info, err, size)
	}
}
