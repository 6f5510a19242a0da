//go:build linux

package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fill writes n files of size random bytes each below dir, the same for a seed.
func fill(t testing.TB, dir string, seed uint64, n, size int) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	for i := range n {
		b := make([]byte, size)
		_, err := io.ReadFull(random, b)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%04d", seed, i)), b, 0o644))
	}
}

// furnish makes a small tree with some of each kind.
func furnish(t testing.TB, dir string) {
	t.Helper()
	fill(t, filepath.Join(dir, "many"), 1, 40, 3000)
	fill(t, filepath.Join(dir, "large"), 2, 1, 5<<20)
	must(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("Dear vault,\n"), 0o640))
	must(t, os.WriteFile(filepath.Join(dir, "not\xffutf8"), []byte("bytes"), 0o644))
	must(t, os.Symlink("letter.txt", filepath.Join(dir, "link")))
	must(t, os.Link(filepath.Join(dir, "letter.txt"), filepath.Join(dir, "twin")))
	must(t, os.Mkdir(filepath.Join(dir, "closed"), 0o700))
	old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	must(t, os.Chtimes(filepath.Join(dir, "empty"), old, old))
}

// sameTree requires that got is want: names, types, modes, owners, times, sizes,
// links and content.
func sameTree(t testing.TB, want, got string) {
	t.Helper()
	w, g := describe(t, want), describe(t, got)
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			t.Fatalf("%s is not %s:\nwant %s\ngot  %s", got, want, w[i], g[i])
		}
	}
	if len(w) != len(g) {
		t.Fatalf("%s has %d entries, want %d", got, len(g), len(w))
	}
}

// describe returns a line for each entry below root, in the order of their names.
func describe(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%q %s %d:%d", strings.TrimPrefix(path, root), info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %s %d links %d bytes %x", info.ModTime().UTC(), st.Nlink, len(b), sha256.Sum256(b))
		case info.Mode().Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to " + to
		case path != root:
			line += " " + info.ModTime().UTC().String()
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// wholeOrAbsent requires that each file that has a name of want's in got has its
// content.
func wholeOrAbsent(t testing.TB, want, got string) {
	t.Helper()
	for _, path := range objects(t, want, "") {
		name := strings.TrimPrefix(path, want)
		b, err := os.ReadFile(filepath.Join(got, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(t, err)
		if whole, err := os.ReadFile(path); err != nil || !bytes.Equal(b, whole) {
			t.Errorf("%s%s has its name and not its content (%v)", got, name, err)
		}
	}
}

// objects returns the files of a store whose path has part in it.
func objects(t testing.TB, root, part string) []string {
	t.Helper()
	var found []string
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(path, part) {
			found = append(found, path)
		}
		return err
	}))
	return found
}

// packs counts the whole packs in a store.
func packs(root string) int {
	found, _ := filepath.Glob(filepath.Join(root, "items/*/packs/*/*"))
	return len(found)
}

// noneOf requires that no file below root has any of the words in it.
func noneOf(t testing.TB, root string, words map[string][]byte) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for what, word := range words {
			if len(word) > 0 && bytes.Contains(b, word) {
				t.Errorf("%s holds %s", path, what)
			}
		}
		return err
	}))
}

// small mounts a file system of its own at dir, of so many MiB.
func small(t testing.TB, dir string, mib int) {
	t.Helper()
	needRoot(t)
	must(t, os.MkdirAll(dir, 0o755))
	must(t, mount(dir, 0, mib))
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
}

// mount mounts a file system in memory at dir, or changes the one that is there.
func mount(dir string, flags uintptr, mib int) error {
	return syscall.Mount("coffer-test", dir, "tmpfs", flags, fmt.Sprintf("size=%dm", mib))
}

// without returns the entries of all that are not in some.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// inode is what a file is on its disk, whatever its name.
func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
