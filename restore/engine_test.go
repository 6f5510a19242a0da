//go:build linux

package restore_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/restore"
	targetfiles "github.com/cofferbackup/coffer/restore/target/files"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
)

// engine is a vault with one item and what is needed to use it, as an agent has it.
type engine struct {
	t     *testing.T
	store store.Store
	ring  *kek.Ring
	id    crypt.VaultID
	index string // path of the local index

	// wrap puts something between the engine and its local index.
	wrap func(*sqlite.Index) backup.Index
}

const itemName = "etc"

// testRing is a ring with one software key, the same for all tests.
var testRing *kek.Ring

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "coffer-kek-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		uri := "file://" + filepath.Join(dir, "kek.pem")
		if err := software.Create(context.Background(), uri, software.CreateOptions{Bits: 2048}); err != nil {
			panic(err)
		}
		k, err := software.Open(context.Background(), "test", uri)
		if err != nil {
			panic(err)
		}
		testRing = kek.NewRing(k)
		return m.Run()
	}())
}

func newEngine(t *testing.T, st store.Store) *engine {
	t.Helper()
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: testRing, Now: time.Now()})
	check(t, err)
	return &engine{t: t, store: st, ring: testRing, id: v.ID(), index: filepath.Join(t.TempDir(), "index")}
}

// on returns the engine with the same objects in another store and a copy of its
// local index.
func (e *engine) on(t *testing.T, st store.Store) *engine {
	t.Helper()
	other := *e
	other.t, other.store, other.index = t, st, filepath.Join(t.TempDir(), "index")
	copyTree(t, filepath.Dir(e.index), filepath.Dir(other.index))
	return &other
}

// use opens vault, item and index, and closes them again.
func (e *engine) use(do func(it *catalog.Item, ix backup.Index) error) error {
	ctx := context.Background()
	v, err := catalog.Open(ctx, e.store, catalog.OpenOptions{ID: e.id, Ring: e.ring})
	if err != nil {
		return err
	}
	defer v.Close()
	it, err := v.CreateItem(ctx, itemName, time.Now())
	if err != nil {
		return err
	}
	defer it.Close()
	ix, err := sqlite.Open(ctx, sqlite.Config{Path: e.index, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer ix.Close()
	var index backup.Index = ix
	if e.wrap != nil {
		index = e.wrap(ix)
	}
	return do(it, index)
}

func (e *engine) backup(dir string) (p *catalog.Point, err error) {
	return p, e.use(func(it *catalog.Item, ix backup.Index) error {
		src, err := sourcefiles.New(sourcefiles.Config{Paths: []string{dir}})
		if err != nil {
			return err
		}
		p, err = backup.Run(context.Background(), backup.Config{Item: it, Packs: e.store, Index: ix, Source: src,
			Host: "test", Agent: "test", Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
		return err
	})
}

func (e *engine) mustBackup(dir string) *catalog.Point {
	e.t.Helper()
	p, err := e.backup(dir)
	check(e.t, err)
	return p
}

// restore restores a point into to, over a fresh view of the vault.
func (e *engine) restore(name catalog.PointName, to string, change func(*restore.Config)) (result restore.Result, done *restore.Progress, err error) {
	done = new(restore.Progress)
	err = e.use(func(it *catalog.Item, ix backup.Index) error {
		if _, err := it.Sync(context.Background(), ix); err != nil {
			return err
		}
		p, err := it.Point(context.Background(), name)
		if err != nil {
			return err
		}
		target, err := targetfiles.New(targetfiles.Config{Path: to})
		if err != nil {
			return err
		}
		cfg := restore.Config{Point: p, Reader: it.NewReader(ix), Target: target, Progress: done}
		if change != nil {
			change(&cfg)
		}
		result, err = restore.Run(context.Background(), cfg)
		return err
	})
	return result, done, err
}

func (e *engine) points() (names []catalog.PointName) {
	e.t.Helper()
	check(e.t, e.use(func(it *catalog.Item, _ backup.Index) (err error) {
		names, err = it.Points(context.Background())
		return err
	}))
	return names
}

func (e *engine) verify() (findings []restore.Finding, err error) {
	return findings, e.use(func(it *catalog.Item, ix backup.Index) error {
		if _, err := it.Sync(context.Background(), ix); err != nil {
			return err
		}
		report, err := restore.Verify(context.Background(), restore.VerifyConfig{Item: it, Objects: e.store, Reader: it.NewReader(ix)})
		findings = append(report.Findings, report.Spare...)
		return err
	})
}

// sample makes a tree with something of everything that matters to the engine.
func sample(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	rng := rand.NewChaCha8([32]byte{1})
	put := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, data, 0o640))
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		rng.Read(b)
		return b
	}
	for i := range 300 {
		put(fmt.Sprintf("small/%02d/file%03d", i%7, i), []byte(strings.Repeat(fmt.Sprintf("line %d\n", i), i)))
	}
	put("empty", nil)
	put("big", random(9<<20))
	put("bigger", append(random(5<<20), append(make([]byte, 1<<20), random(6<<20)...)...)) // zeros inside
	put("same/one", random(40_000))
	put("weird \xff\xfe name\n", []byte("not UTF-8"))
	check(t, os.MkdirAll(filepath.Join(dir, "nothing/in/here"), 0o700))
	check(t, os.Symlink("../etc/passwd", filepath.Join(dir, "small/link")))
	check(t, os.Link(filepath.Join(dir, "big"), filepath.Join(dir, "same/hard")))
	check(t, os.Link(filepath.Join(dir, "same/one"), filepath.Join(dir, "same/two")))
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	check(t, err)
	defer sparse.Close()
	check(t, sparse.Truncate(64<<20))
	_, err = sparse.WriteAt(random(100_000), 20<<20)
	check(t, err)
	return dir
}

// change makes the next state of a sample.
func change(t *testing.T, dir string) {
	t.Helper()
	check(t, os.RemoveAll(filepath.Join(dir, "small/03")))
	check(t, os.WriteFile(filepath.Join(dir, "small/04/file004"), []byte("changed"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o600))
	big, err := os.ReadFile(filepath.Join(dir, "big"))
	check(t, err)
	big = append(append(big[:4<<20:4<<20], "some inserted bytes"...), big[4<<20:]...)
	check(t, os.WriteFile(filepath.Join(dir, "big"), big, 0o640))
}

// manifest describes a tree: one line per entry with all that must come back.
func manifest(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%q %v %d:%d %d links=%d", strings.TrimPrefix(path, dir), info.Mode(), st.Uid, st.Gid, info.ModTime().UnixNano(), st.Nlink)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x", len(data), sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %q", to)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// mustRestore restores a point and compares it with what it must be.
func (e *engine) mustRestore(name catalog.PointName, dir, want string) {
	e.t.Helper()
	to := filepath.Join(e.t.TempDir(), "back")
	result, _, err := e.restore(name, to, nil)
	check(e.t, err)
	if len(result.Skipped) > 0 {
		e.t.Fatalf("restore skipped %+v", result.Skipped)
	}
	same(e.t, manifest(e.t, filepath.Join(to, dir)), want)
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("trees differ in line %d of %d and %d:\n%s\n%s", i+1, len(g), len(w), strings.Join(g[min(i, len(g)):min(i+1, len(g))], ""), strings.Join(w[min(i, len(w)):min(i+1, len(w))], ""))
		}
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	check(t, os.CopyFS(to, os.DirFS(from)))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	before := manifest(t, dir)
	first := e.mustBackup(dir)
	again := e.mustBackup(dir)
	if again.Stats.Changed > 3 || again.Stats.New > 64<<10 { // files as young as the first backup may be described anew
		t.Errorf("unchanged backup read %d files and found %d new bytes", again.Stats.Changed, again.Stats.New)
	}
	change(t, dir)
	after := manifest(t, dir)
	last := e.mustBackup(dir)
	if last.Stats.New == 0 || last.Stats.New > 8<<20 {
		t.Errorf("a few changes made %d new bytes", last.Stats.New)
	}
	e.mustRestore(first.Name, dir, before)
	e.mustRestore(again.Name, dir, before)
	e.mustRestore(last.Name, dir, after)

	// The local index is only a cache.
	check(t, os.RemoveAll(filepath.Dir(e.index)))
	check(t, os.MkdirAll(filepath.Dir(e.index), 0o700))
	e.mustRestore(first.Name, dir, before)
	if p := e.mustBackup(dir); p.Stats.New > 64<<10 { // the trees of files that were too young before
		t.Errorf("backup with a rebuilt index found %d new bytes", p.Stats.New)
	}
	findings, err := e.verify()
	check(t, err)
	if len(findings) > 0 {
		t.Errorf("verify finds %+v", findings)
	}
}
