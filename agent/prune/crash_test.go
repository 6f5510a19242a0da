package prune_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/agent/policy"
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

func (d dying) DropSources(ctx context.Context, names []string) error {
	return d.crash.Write(func() error { return d.Index.DropSources(ctx, names) })
}

func (d dying) AddPoints(ctx context.Context, points []catalog.Summary) error {
	return d.crash.Write(func() error { return d.Index.AddPoints(ctx, points) })
}

func (d dying) DropPoints(ctx context.Context, names []catalog.PointName) error {
	return d.crash.Write(func() error { return d.Index.DropPoints(ctx, names) })
}

// TestCrash kills a prune that sweeps, repacks, gives a backup up and marks, at every
// write to the store and to the local index. Every point that is listed restores, those
// that the retention keeps are listed, and the next runs leave nothing but them.
func TestCrash(t *testing.T) {
	c := &clock{start}
	b := newBench(t, newStore(c), c)
	b.set.retention, b.set.below = &policy.Retention{Last: 2}, 60
	var points []catalog.PointName
	for i := range 4 {
		b.files.set(fmt.Sprint("state ", i), map[string][]byte{"all": noise(99, 400_000), fmt.Sprint("own ", i): noise(uint64(i), 600_000), fmt.Sprint("own ", i-1): nil})
		points = append(points, b.mustBackup(t))
	}
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error {
		_, err := it.Begin(t.Context(), c.now(), "dead")
		return err
	}))
	b.mustPrune(t)
	c.pass(abandon)
	b.files.set("state 4", map[string][]byte{"own 3": nil, "own 4": noise(4, 1000)})
	points = append(points, b.mustBackup(t)) // so that there is something to mark as well
	kept := points[3:]
	at := c.time

	storetest.AtEveryWrite(t, func(t *testing.T, crash *storetest.Crash) (func() error, func()) {
		c.time = at
		dead, after := b.on(t, crash)
		job := func() error {
			done, err := dead.prune(t.Context())
			if err == nil && !crash.Dead() && (done.RemovedPoints != 2 || done.RemovedPacks == 0 || done.RepackedPacks == 0 || done.MarkedPoints != 1 || done.MarkedPacks == 0) {
				t.Fatalf("the run does not do everything: %+v", done)
			}
			return err
		}
		return job, func() { afterCrash(t, after, kept) }
	})
}

// afterCrash goes on with a copy that a process has died on.
func afterCrash(t *testing.T, b *bench, kept []catalog.PointName) {
	t.Helper()
	left := b.points(t, *b.files.made)
	for _, name := range kept {
		if !slices.Contains(left, name) {
			t.Fatalf("point %s is lost; there are %v", name, left)
		}
	}
	b.files.set("state after", map[string][]byte{"own after": noise(77, 1000)})
	kept = append(slices.Clone(kept), b.mustBackup(t))[1:]
	for range 4 {
		b.mustPrune(t)
		b.clock.pass(abandon)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, kept) {
		t.Fatalf("the next runs leave points %v, not %v", left, kept)
	}
	objects := b.objects(t)
	if objects["marks"]+objects["witnesses"] != 0 || objects["sessions"] > 1 || objects["packs"] > 4 {
		t.Fatalf("the next runs leave %v", objects)
	}
}

// on returns the host on copies of everything, with a process that dies, and as it is
// afterwards.
func (b *bench) on(t *testing.T, crash *storetest.Crash) (dead, after *bench) {
	t.Helper()
	inner := b.store.(*mem.Store).Clone()
	dir := t.TempDir()
	check(t, os.CopyFS(dir, os.DirFS(b.dir)))
	dead = b.host(crash.Store(inner), dir, b.clock)
	dead.wrap = func(ix *sqlite.Index) index { return dying{ix, crash} }
	return dead, b.host(inner, dir, b.clock)
}
