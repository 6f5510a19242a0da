//go:build linux

package restore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

// dying is a local index whose writes die with the process.
type dying struct {
	*sqlite.Index
	crash *storetest.Crash
}

func (d dying) Add(ctx context.Context, source string, contents []pack.Contents) error {
	return d.crash.Write(func() error { return d.Index.Add(ctx, source, contents) })
}

func (d dying) Forget(ctx context.Context, packs []pack.ID) error {
	return d.crash.Write(func() error { return d.Index.Forget(ctx, packs) })
}

func (d dying) Disown(ctx context.Context) error {
	return d.crash.Write(func() error { return d.Index.Disown(ctx) })
}

func (d dying) Begin(ctx context.Context) (unclean bool, err error) {
	return unclean, d.crash.Write(func() (err error) {
		unclean, err = d.Index.Begin(ctx)
		return err
	})
}

func (d dying) End(ctx context.Context) error {
	return d.crash.Write(func() error { return d.Index.End(ctx) })
}

func (d dying) OwnSession(ctx context.Context, name catalog.PointName) error {
	return d.crash.Write(func() error { return d.Index.OwnSession(ctx, name) })
}

func (d dying) DropSession(ctx context.Context, name catalog.PointName) error {
	return d.crash.Write(func() error { return d.Index.DropSession(ctx, name) })
}

func (d dying) SetNotes(ctx context.Context, kind catalog.Note, notes map[pack.ID]int64) error {
	return d.crash.Write(func() error { return d.Index.SetNotes(ctx, kind, notes) })
}

// doomed returns the engine on copies of everything, with a process that dies.
func (e *engine) doomed(t *testing.T, crash *storetest.Crash) (dead, after *engine) {
	t.Helper()
	objects := e.store.(*mem.Store).Clone()
	after = e.on(t, objects)
	d := *after
	d.store = crash.Store(objects)
	d.wrap = func(ix *sqlite.Index) backup.Index { return dying{ix, crash} }
	return &d, after
}

// everyCrash tries job with a crash at each of its writes, on fresh copies of e. After
// each death it calls check.
func (e *engine) everyCrash(t *testing.T, job func(*engine) error, check func(t *testing.T, after *engine)) {
	t.Helper()
	storetest.AtEveryWrite(t, func(t *testing.T, crash *storetest.Crash) (func() error, func()) {
		dead, after := e.doomed(t, crash)
		return func() error { return job(dead) }, func() { check(t, after) }
	})
}

// TestCrashBackup kills a backup at every write to the store and to the local
// index. Whatever is visible after it is whole, and the next backup is good.
func TestCrashBackup(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	before := manifest(t, dir)
	first := e.mustBackup(dir)
	change(t, dir)
	check(t, os.WriteFile(filepath.Join(dir, "huge"), randomBytes(40<<20), 0o600)) // more than two packs
	after := manifest(t, dir)

	e.everyCrash(t, func(e *engine) error {
		_, err := e.backup(dir)
		return err
	}, func(t *testing.T, e *engine) {
		names := e.points()
		if len(names) == 0 || names[0] != first.Name || len(names) > 2 {
			t.Fatalf("points after the crash: %v", names)
		}
		e.mustRestore(first.Name, dir, before)
		if len(names) == 2 {
			e.mustRestore(names[1], dir, after)
		}
		p := e.mustBackup(dir)
		e.mustRestore(p.Name, dir, after)
		if findings, err := e.verify(); err != nil || len(findings) > 0 {
			t.Fatalf("verify after the crash: %v %v", findings, err)
		}
	})
}

// TestCrashRebuild kills the making of a lost local index at every write. The next
// attempt makes it.
func TestCrashRebuild(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	before := manifest(t, dir)
	first := e.mustBackup(dir)
	change(t, dir)
	after := manifest(t, dir)
	last := e.mustBackup(dir)
	e.loseLastIndex()
	check(t, os.RemoveAll(e.index))
	for _, suffix := range []string{"-wal", "-shm"} {
		check(t, os.RemoveAll(e.index+suffix))
	}

	e.everyCrash(t, func(e *engine) error {
		return e.use(func(it *catalog.Item, ix backup.Index) error {
			_, err := it.Sync(context.Background(), ix)
			return err
		})
	}, func(t *testing.T, e *engine) {
		e.mustRestore(first.Name, dir, before)
		e.mustRestore(last.Name, dir, after)
		p := e.mustBackup(dir)
		e.mustRestore(p.Name, dir, after)
	})
}

// loseLastIndex removes the newest index object, as if the agent had died before
// it wrote it, so that packs are there which no index names.
func (e *engine) loseLastIndex() {
	e.t.Helper()
	check(e.t, e.use(func(it *catalog.Item, ix backup.Index) error {
		sources, err := ix.Sources(context.Background())
		if err != nil {
			return err
		}
		for name := range sources {
			return e.store.Delete(context.Background(), it.IndexKey(name))
		}
		return errors.New("there is no index object")
	}))
}
