//go:build linux

package restore_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/backup/source"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

// backupWith is backup with a configuration changed.
func (e *engine) backupWith(dir string, change func(*catalog.Item, *backup.Config)) (p *catalog.Point, err error) {
	return p, e.use(func(it *catalog.Item, ix backup.Index) error {
		src, err := sourcefiles.New(sourcefiles.Config{Paths: []string{dir}})
		if err != nil {
			return err
		}
		cfg := backup.Config{Item: it, Packs: e.store, Index: ix, Source: src,
			Host: "test", Agent: "test", Clock: time.Now, Log: slog.New(slog.DiscardHandler)}
		change(it, &cfg)
		p, err = backup.Run(context.Background(), cfg)
		return err
	})
}

// on the item of the engine.
func (e *engine) item(do func(it *catalog.Item, ix backup.Index) error) {
	e.t.Helper()
	check(e.t, e.use(do))
}

// settled makes a sample and backs it up until nothing of it is too young.
func settled(t *testing.T, e *engine) (dir, want string, p *catalog.Point) {
	t.Helper()
	dir = sample(t)
	e.mustBackup(dir)
	return dir, manifest(t, dir), e.mustBackup(dir)
}

// remove deletes packs, and the index objects with them, as a prune that has ended.
func (e *engine) remove(packs []pack.ID) {
	e.t.Helper()
	e.item(func(it *catalog.Item, _ backup.Index) error {
		ctx := e.t.Context()
		for name, err := range it.Indexes(ctx) {
			if err != nil {
				return err
			}
			contents, err := it.Index(ctx, name)
			if err != nil {
				return err
			}
			left := slices.DeleteFunc(contents, func(c pack.Contents) bool { return slices.Contains(packs, c.Pack) })
			if len(left) > 0 {
				if _, _, err := it.PutIndex(ctx, left, store.PutOptions{}); err != nil {
					return err
				}
			}
			if err := e.store.Delete(ctx, it.IndexKey(name)); err != nil {
				return err
			}
		}
		for _, id := range packs {
			if err := e.store.Delete(ctx, pack.Key(it.ID(), id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestBackupLeansOnNothingMarked: what is in a marked pack is stored again, whatever the
// last point says, and the new point restores when the marked packs are gone.
func TestBackupLeansOnNothingMarked(t *testing.T) {
	for _, tt := range []struct {
		name string
		mark func(e *engine, it *catalog.Item, ix backup.Index, packs []pack.ID) error
	}{
		{"marked", func(e *engine, it *catalog.Item, _ backup.Index, packs []pack.ID) error {
			return it.PutMark(e.t.Context(), &catalog.Mark{Created: time.Now(), Packs: packs})
		}},
		{"known to be damaged", func(e *engine, _ *catalog.Item, ix backup.Index, packs []pack.ID) error {
			notes := make(map[pack.ID]int64)
			for _, id := range packs {
				notes[id] = 1
			}
			return ix.SetNotes(e.t.Context(), catalog.NoteDamaged, notes)
		}},
		{"in a mark that does not open", func(e *engine, it *catalog.Item, _ backup.Index, packs []pack.ID) error {
			m := catalog.Mark{Created: time.Now(), Packs: packs}
			return errors.Join(it.PutMark(e.t.Context(), &m), e.store.(*mem.Store).Tamper(it.MarkKey(m.ID), func(b []byte) []byte {
				b[len(b)/2] ^= 1
				return b
			}))
		}},
	} {
		for _, which := range []string{"all packs", "one pack"} {
			t.Run(which+" "+tt.name, func(t *testing.T) {
				e := newEngine(t, mem.New(mem.Config{}))
				dir, want, last := settled(t, e)
				packs := slices.Clone(last.Packs)
				if which == "one pack" {
					loc, _ := e.locate(last.Name, dir+"/big")
					packs = []pack.ID{loc.Pack}
				}
				e.item(func(it *catalog.Item, ix backup.Index) error { return tt.mark(e, it, ix, slices.Clone(packs)) })
				p := e.mustBackup(dir)
				for _, id := range p.Packs {
					if slices.Contains(packs, id) {
						t.Errorf("the new point leans on %s", id)
					}
				}
				if p.Stats.New == 0 || p.Parent != string(last.Name) {
					t.Errorf("%d new bytes, compared with %q", p.Stats.New, p.Parent)
				}
				e.remove(packs)
				e.mustRestore(p.Name, dir, want)
				again := e.mustBackup(dir)
				e.mustRestore(again.Name, dir, want)
			})
		}
	}
}

// TestWaryBackupReadsLittle: if one pack is to be removed, only the files that were in it
// are read again, and the point's list of packs is exact.
func TestWaryBackupReadsLittle(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir, want, last := settled(t, e)
	loc, _ := e.locate(last.Name, dir+"/same/one") // a small one, with all that is small
	e.item(func(it *catalog.Item, _ backup.Index) error {
		return it.PutMark(t.Context(), &catalog.Mark{Created: time.Now(), Packs: []pack.ID{loc.Pack}})
	})
	p := e.mustBackup(dir)
	if p.Stats.Read >= p.Stats.Bytes/2 && len(last.Packs) > 1 {
		t.Errorf("%d of %d bytes were read again", p.Stats.Read, p.Stats.Bytes)
	}
	e.mustRestore(p.Name, dir, want)
	if findings, err := e.verify(); err != nil || len(findings) > 0 {
		t.Errorf("verify: %v %v", findings, err)
	}
}

// TestBackupOrder: the session is announced before the marks are looked at, these before
// the index, and the point is the last that is put. No prune is safe without.
func TestBackupOrder(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	e.mustBackup(dir)
	change(t, dir)
	var steps []string
	seen := *e
	seen.store = storetest.NewFaulty(e.store, func(op storetest.Op) storetest.Fault {
		for _, folder := range []string{"sessions", "marks", "index", "packs", "points"} {
			if step := op.Kind.String() + " " + folder; strings.Contains(string(op.Key), "/"+folder+"/") && (op.Kind == storetest.Put || op.Kind == storetest.List) {
				steps = append(steps, step)
			}
		}
		return storetest.Fault{}
	})
	_, err := seen.backupWith(dir, func(*catalog.Item, *backup.Config) {})
	check(t, err)
	order := []string{"put sessions", "list marks", "list index", "put packs", "put index", "put points"}
	at := -1
	for _, step := range order {
		i := slices.Index(steps, step)
		if i <= at {
			t.Fatalf("%q is not after what must be before it: %v", step, steps)
		}
		at = i
	}
	if steps[0] != order[0] || steps[len(steps)-1] != order[len(order)-1] {
		t.Errorf("%v", steps)
	}
}

// voiding is a source during whose walk a prune gives the backup up.
type voiding struct {
	source.Source
	void func() error
}

func (v voiding) Open(ctx context.Context, report func(source.Skip)) (source.Session, error) {
	if err := v.void(); err != nil {
		return nil, err
	}
	return v.Source.Open(ctx, report)
}

// TestVoidedBackup: a backup that a prune gave up makes no point and says so; the next
// one stores next to nothing.
func TestVoidedBackup(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	_, err := e.backupWith(dir, func(it *catalog.Item, cfg *backup.Config) {
		cfg.Source = voiding{cfg.Source, func() error {
			names, err := it.Sessions(t.Context())
			if err != nil || len(names) != 1 {
				t.Errorf("sessions %v, %v", names, err)
			}
			_, err = it.Void(t.Context(), names[0])
			return err
		}}
	})
	if !errors.Is(err, catalog.ErrVoided) || len(e.points()) != 0 {
		t.Fatalf("%v; points %v", err, e.points())
	}
	p := e.mustBackup(dir)
	if p.Stats.New > 64<<10 {
		t.Errorf("%d bytes were stored again", p.Stats.New)
	}
	e.mustRestore(p.Name, dir, manifest(t, dir))
}

// TestOwnSessionIsGivenUp: a backup that did not end holds no prune up for longer than
// until the next one of its host; a backup that committed and could not say so stays.
func TestOwnSessionIsGivenUp(t *testing.T) {
	for committed, applied := range []bool{false, true} {
		e := newEngine(t, mem.New(mem.Config{}))
		dir := sample(t)
		failing := *e
		failing.store = storetest.NewFaulty(e.store, func(op storetest.Op) storetest.Fault {
			if op.Kind == storetest.Put && strings.Contains(string(op.Key), "/points/") {
				return storetest.Fault{Err: store.ErrUnavailable, Applied: applied}
			}
			return storetest.Fault{}
		})
		if _, err := failing.backup(dir); !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		if points := e.points(); len(points) != committed {
			t.Fatalf("points %v", points)
		}
		p := e.mustBackup(dir)
		if points := e.points(); len(points) != committed+1 || points[committed] != p.Name {
			t.Errorf("points %v", points)
		}
		e.item(func(it *catalog.Item, ix backup.Index) error {
			sessions, err := it.Sessions(t.Context())
			if err != nil || len(sessions) != 2 {
				t.Errorf("sessions %v, %v", sessions, err)
			}
			for _, name := range sessions {
				if _, err := it.Committed(t.Context(), name); err != nil {
					t.Errorf("session %s is not decided: %v", name, err)
				}
			}
			if own, err := ix.OwnSessions(t.Context()); err != nil || len(own) != 0 {
				t.Errorf("own sessions %v, %v", own, err)
			}
			return nil
		})
		for _, name := range e.points() {
			e.mustRestore(name, dir, manifest(t, dir))
		}
	}
}

// TestRetain: before a point is put that asks for retention, the store is asked to keep
// every pack and index object that it leans on and that is older.
func TestRetain(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir, _, last := settled(t, e)
	change(t, dir)
	refuse := errors.New("refused")
	var packs []pack.ID
	var indexes []string
	run := func(answer error, until time.Time) (*catalog.Point, error) {
		packs, indexes = nil, nil
		return e.backupWith(dir, func(_ *catalog.Item, cfg *backup.Config) {
			cfg.Retention.Until = until
			cfg.Retain = func(_ context.Context, p []pack.ID, i []string) error {
				packs, indexes = p, i
				return answer
			}
		})
	}
	until := time.Now().Add(time.Hour)
	points := e.points()
	if _, err := run(refuse, until); !errors.Is(err, refuse) || !slices.Equal(e.points(), points) {
		t.Errorf("%v; points %v", err, e.points())
	}
	var before []string
	e.item(func(it *catalog.Item, _ backup.Index) error {
		for name := range maps.All(names(t, it)) {
			before = append(before, name)
		}
		return nil
	})
	p, err := run(nil, until)
	check(t, err)
	slices.Sort(before)
	slices.Sort(indexes)
	if !slices.Equal(indexes, before) {
		t.Errorf("index objects %v, want %v", indexes, before)
	}
	for _, id := range p.Packs {
		if slices.Contains(last.Packs, id) && !slices.Contains(packs, id) {
			t.Errorf("pack %s is not kept", id)
		}
	}
	if len(packs) == 0 {
		t.Error("no pack is kept")
	}
	if _, err = run(refuse, time.Time{}); err != nil || packs != nil {
		t.Errorf("without retention: %v, %v", packs, err)
	}
}

func names(t *testing.T, it *catalog.Item) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	for name, err := range it.Indexes(t.Context()) {
		check(t, err)
		all[name] = true
	}
	return all
}

// TestMarkedPacksStayUnnamed: packs of an interrupted backup that a prune removes are not
// put into an index again.
func TestMarkedPacksStayUnnamed(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	first := e.mustBackup(dir)
	e.loseLastIndex()
	e.item(func(it *catalog.Item, _ backup.Index) error {
		return it.PutMark(t.Context(), &catalog.Mark{Created: time.Now(), Packs: slices.Clone(first.Packs)})
	})
	check(t, os.WriteFile(filepath.Join(dir, "more"), []byte("more"), 0o600))
	e.mustBackup(dir)
	e.item(func(it *catalog.Item, _ backup.Index) error {
		for name := range names(t, it) {
			contents, err := it.Index(t.Context(), name)
			check(t, err)
			for _, c := range contents {
				if slices.Contains(first.Packs, c.Pack) {
					t.Errorf("index %s names %s, which is to be removed", name, c.Pack)
				}
			}
		}
		return nil
	})
}

// TestUnnamedPacksAreNotTrusted: packs of an interrupted backup that the local index knows
// and a prune has removed since, mark and all, are not leaned on.
func TestUnnamedPacksAreNotTrusted(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	e.mustBackup(dir)
	change(t, dir)
	e.mustBackup(dir)
	e.loseLastIndex() // of two
	points := e.points()
	e.item(func(it *catalog.Item, ix backup.Index) error {
		ctx := t.Context()
		_, err := it.Sync(ctx, ix) // as a restore does
		check(t, err)
		unnamed, err := ix.Unsourced(ctx)
		if err != nil || len(unnamed) == 0 {
			t.Fatalf("%d packs that no index names, %v", len(unnamed), err)
		}
		for _, c := range unnamed {
			check(t, e.store.Delete(ctx, pack.Key(it.ID(), c.Pack)))
		}
		for _, name := range points {
			check(t, e.store.Delete(ctx, it.PointKey(name)))
		}
		return nil
	})
	p := e.mustBackup(dir)
	e.mustRestore(p.Name, dir, manifest(t, dir))
}
