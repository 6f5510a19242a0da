//go:build linux

package repair_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/repair"
	"github.com/cofferbackup/coffer/backup"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/restore"
	targetfiles "github.com/cofferbackup/coffer/restore/target/files"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

// engine is a vault with one item and what an agent has to use it.
type engine struct {
	*testing.T
	objects *mem.Store
	put     store.Store // what backups and repairs write to; nil: objects
	ring    *kek.Ring
	id      crypt.VaultID
	index   string
	dir     string // the source

	instead func(it *catalog.Item) error // what a repair does instead of a backup
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	// The folders above the source are part of each point: not the one in which all
	// tests of this machine make theirs.
	top, err := os.MkdirTemp("/var/tmp", "coffer-repair-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	e := &engine{T: t, objects: mem.New(mem.Config{}), ring: kek.NewRing(kektest.NewKey(t)), index: filepath.Join(t.TempDir(), "index"), dir: filepath.Join(top, "data")}
	v, err := catalog.Create(t.Context(), e.objects, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: e.ring, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	e.id = v.ID()
	v.Close()
	return e
}

// on returns the engine with copies of everything but the source.
func (e *engine) on(t *testing.T) *engine {
	t.Helper()
	other := *e
	other.T, other.objects, other.index = t, e.objects.Clone(), filepath.Join(t.TempDir(), "index")
	if err := os.CopyFS(filepath.Dir(other.index), os.DirFS(filepath.Dir(e.index))); err != nil {
		t.Fatal(err)
	}
	return &other
}

func (e *engine) store() store.Store {
	if e.put != nil {
		return e.put
	}
	return e.objects
}

// use opens vault, item and index, brings the index up, and closes them again.
func (e *engine) use(do func(it *catalog.Item, ix *sqlite.Index) error) error {
	ctx := context.Background()
	v, err := catalog.Open(ctx, e.store(), catalog.OpenOptions{ID: e.id, Ring: e.ring})
	if err != nil {
		return err
	}
	defer v.Close()
	it, err := v.CreateItem(ctx, "etc", time.Now())
	if err != nil {
		return err
	}
	defer it.Close()
	ix, err := sqlite.Open(ctx, sqlite.Config{Path: e.index, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer ix.Close()
	if _, err := it.Sync(ctx, ix); err != nil {
		return err
	}
	return do(it, ix)
}

func (e *engine) run(it *catalog.Item, ix *sqlite.Index, full bool) (*catalog.Point, error) {
	src, err := sourcefiles.New(sourcefiles.Config{Paths: []string{e.dir}, Clock: later})
	if err != nil {
		return nil, err
	}
	return backup.Run(context.Background(), backup.Config{Item: it, Packs: e.store(), Index: ix, Source: src, FullRead: full,
		Host: "test", Agent: "test", Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
}

// later is a clock for which no file is so young that it may still be changing unseen:
// a file that is unchanged is described alike by every backup.
func later() time.Time { return time.Now().Add(time.Hour) }

func (e *engine) backup() *catalog.Point {
	e.Helper()
	var p *catalog.Point
	e.check(e.use(func(it *catalog.Item, ix *sqlite.Index) (err error) {
		p, err = e.run(it, ix, false)
		return err
	}))
	return p
}

// verify verifies as an agent does: it notes what it finds.
func (e *engine) verify(ctx context.Context, it *catalog.Item, ix *sqlite.Index, read func(pack.ID) bool) (restore.Report, error) {
	readings := proof.NewReadings(ix, time.Now)
	report, err := restore.Verify(ctx, restore.VerifyConfig{Item: it, Objects: e.store(), Reader: it.NewReader(ix), Read: read,
		Checked: readings.Checked(ctx)})
	if err == nil {
		err = readings.Settle(ctx, report, proof.Data)
	}
	return report, err
}

func (e *engine) repair() (done repair.Result, err error) {
	return done, e.use(func(it *catalog.Item, ix *sqlite.Index) error {
		done, err = repair.Run(context.Background(), repair.Config{Item: it, Index: ix, Packs: e.store(), Host: "test", Clock: time.Now,
			Verify: func(ctx context.Context, read func(pack.ID) bool) (restore.Report, error) {
				return e.verify(ctx, it, ix, read)
			},
			Backup: func(context.Context) (string, error) {
				if e.instead != nil {
					return "", e.instead(it)
				}
				p, err := e.run(it, ix, true)
				if err != nil {
					return "", err
				}
				return string(p.Name), nil
			}})
		return err
	})
}

func (e *engine) points() (names []catalog.PointName) {
	e.Helper()
	e.check(e.use(func(it *catalog.Item, _ *sqlite.Index) (err error) {
		names, err = it.Points(context.Background())
		return err
	}))
	return names
}

// restore restores a point with a local index that knows only what the vault says, and
// returns the content of every file, and the paths that could not be restored.
func (e *engine) restore(name catalog.PointName) (files map[string]string, skipped map[string]string, err error) {
	fresh := *e
	fresh.index = filepath.Join(e.TempDir(), "index")
	to := filepath.Join(e.TempDir(), "back")
	skipped = make(map[string]string)
	err = fresh.use(func(it *catalog.Item, ix *sqlite.Index) error {
		p, err := it.Point(context.Background(), name)
		if err != nil {
			return err
		}
		into, err := targetfiles.New(targetfiles.Config{Path: to})
		if err != nil {
			return err
		}
		result, err := restore.Run(context.Background(), restore.Config{Point: p, Reader: it.NewReader(ix), Target: into})
		for _, s := range result.Skipped {
			skipped[string(s.Path)] = s.Reason
		}
		return err
	})
	return e.contents(filepath.Join(to, e.dir)), skipped, err
}

// contents is the content of every file below a folder, and of every link.
func (e *engine) contents(dir string) map[string]string {
	e.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		e.Fatal(err)
	}
	return out
}

func (e *engine) check(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *engine) write(name string, data []byte) {
	e.Helper()
	path := filepath.Join(e.dir, name)
	e.check(os.MkdirAll(filepath.Dir(path), 0o755))
	e.check(os.WriteFile(path, data, 0o600))
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// sample writes the first state of the source; change the next.
func (e *engine) sample() {
	for i := range 60 {
		e.write(fmt.Sprintf("small/%d/file%02d", i%4, i), []byte(strings.Repeat(fmt.Sprintf("line %d\n", i), 50+i)))
	}
	e.write("stays", random(1, 3<<20))
	e.write("goes", random(2, 2<<20))
	e.write("changes", random(3, 2<<20))
}

func (e *engine) change() {
	e.check(os.Remove(filepath.Join(e.dir, "goes")))
	e.write("changes", random(4, 2<<20))
	e.write("comes", random(5, 2<<20))
	e.write("small/1/file01", []byte("changed"))
}
