package prune_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/storetest"
)

// four makes four points: each with a file of its own and one that all have.
func four(t *testing.T) (*bench, []catalog.PointName) {
	t.Helper()
	c := &clock{start}
	b := newBench(t, newStore(c), c)
	var points []catalog.PointName
	for i := range 4 {
		b.files.set(fmt.Sprint("state ", i), map[string][]byte{"all": noise(99, 50_000), "own": noise(uint64(i), 100_000)})
		points = append(points, b.mustBackup(t))
	}
	return b, points
}

// TestPrune: what the retention lets go is marked, and goes after the grace time, with
// all that nobody else needs.
func TestPrune(t *testing.T) {
	b, points := four(t)
	b.set.dry = true
	would := b.mustPrune(t)
	b.set.dry = false
	before := b.objects(t)
	first := b.mustPrune(t)
	if first.MarkedPoints != 2 || first.MarkedPacks != 1 || first.RemovedPoints != 0 || first.Kept != 2 || !first.Goes.Equal(b.clock.now().Add(grace)) {
		t.Errorf("first run: %+v", first)
	}
	if would.MarkedPacks != first.MarkedPacks || would.MarkedBytes != first.MarkedBytes || would.MarkedPoints != first.MarkedPoints || before["marks"] != 0 {
		t.Errorf("dry run: %+v, %v", would, before)
	}
	b.clock.pass(grace - time.Second)
	if done := b.mustPrune(t); done.RemovedPoints != 0 || done.MarkedPoints != 0 || done.Pending != 1 {
		t.Errorf("within the grace time: %+v", done)
	}
	b.clock.pass(time.Second)
	b.set.dry = true
	if would := b.mustPrune(t); would.RemovedPoints != 2 || would.RemovedPacks != 1 || would.FreedBytes == 0 {
		t.Errorf("dry run: %+v", would)
	}
	b.set.dry = false
	done := b.mustPrune(t)
	if done.RemovedPoints != 2 || done.RemovedPacks != 1 || done.FreedBytes < 100_000 || done.Locked != 0 || done.Nothing {
		t.Errorf("after it: %+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[2:]) {
		t.Errorf("points %v", left)
	}
	after := b.objects(t)
	if after["points"] != 2 || after["packs"] != 3 || after["marks"] != 0 || after["witnesses"] != 0 || after["sessions"] != 0 || after["voids"] != 2 {
		t.Errorf("objects %v", after)
	}
	if again := b.mustPrune(t); again != (prune.Result{Kept: 2}) {
		t.Errorf("a run with nothing to do: %+v", again)
	}
	if b.mustBackup(t); len(b.points(t, *b.files.made)) != 3 {
		t.Error("a backup after a prune is not good")
	}
	b.clock.pass(366 * 24 * time.Hour)
	b.mustPrune(t)
	b.clock.pass(grace)
	if b.mustPrune(t); b.objects(t)["voids"] != 1 {
		t.Errorf("voids of a year ago: %v", b.objects(t))
	}
}

// TestGraceByBothClocks: a host whose clock is ahead sweeps nothing before its time by
// the store's clock.
func TestGraceByBothClocks(t *testing.T) {
	c := &clock{start}
	b, _ := four(t)
	b.mustPrune(t)
	c.time = b.clock.time.Add(30 * 24 * time.Hour)
	ahead := b.host(b.store, t.TempDir(), c)
	if done := ahead.mustPrune(t); done.RemovedPoints != 0 || done.Pending != 1 {
		t.Errorf("%+v", done)
	}
	c.time = start.Add(-24 * time.Hour)
	b.clock.pass(2 * grace)
	if done := ahead.mustPrune(t); done.RemovedPoints != 0 {
		t.Errorf("a host whose clock is behind: %+v", done)
	}
}

// TestNothingIsLetGo: without a retention all is kept, and one without a rule is
// refused unless somebody asks for it.
func TestNothingIsLetGo(t *testing.T) {
	b, _ := four(t)
	b.set.retention = nil
	if done := b.mustPrune(t); done.MarkedPoints != 0 || done.Kept != 4 {
		t.Errorf("%+v", done)
	}
	b.set.retention = &policy.Retention{}
	if _, err := b.prune(t.Context()); !errors.Is(err, policy.ErrKeepsNothing) {
		t.Errorf("a retention without a rule: %v", err)
	}
	b.set.allow.Empty = true
	if done := b.mustPrune(t); done.MarkedPoints != 4 || !done.Nothing {
		t.Errorf("%+v", done)
	}
	b.clock.pass(grace)
	b.mustPrune(t)
	if left := b.objects(t); left["points"]+left["packs"] != 0 {
		t.Errorf("%v", left)
	}
	if b.mustBackup(t); len(b.points(t, *b.files.made)) != 1 {
		t.Error("a backup after everything went is not good")
	}
}

// TestRescue: a point that is kept again when it is time stays, and so does a pack
// that a new point leans on.
func TestRescue(t *testing.T) {
	b, points := four(t)
	b.mustPrune(t)
	b.clock.pass(grace)
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error {
		return it.PutHold(t.Context(), &catalog.Hold{Point: points[0], Owner: "legal", Reason: "case 7", Since: b.clock.now()})
	}))
	if done := b.mustPrune(t); done.RemovedPoints != 1 || done.RescuedPacks != 0 {
		t.Errorf("with a hold: %+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, []catalog.PointName{points[0], points[2], points[3]}) {
		t.Errorf("points %v", left)
	}
	b.set.retention = &policy.Retention{Last: 1}
	b.mustPrune(t)
	b.set.retention = &policy.Retention{Last: 2}
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPoints != 0 || done.RescuedPacks != 1 || b.objects(t)["marks"] != 0 {
		t.Errorf("with another retention: %+v", done)
	}
	b.set.retention = &policy.Retention{Last: 1}
	b.mustPrune(t)
	b.clock.pass(grace)
	b.set.removing = func(_ context.Context, name catalog.PointName) error {
		return fmt.Errorf("somebody held %s just now: %w", name, prune.ErrHeld)
	}
	if done := b.mustPrune(t); done.RemovedPoints != 0 || b.objects(t)["marks"] != 1 {
		t.Errorf("with a late hold: %+v", done)
	}
	b.set.removing = nil
	if done := b.mustPrune(t); done.RemovedPoints != 1 {
		t.Errorf("afterwards: %+v", done)
	}
}

// TestForget: what somebody asks to go goes, whatever the retention says.
func TestForget(t *testing.T) {
	b, points := four(t)
	b.set.retention = nil
	forget := func(names ...catalog.PointName) error {
		return b.use(t.Context(), func(it *catalog.Item, ix index) error { return prune.Forget(t.Context(), b.config(it, ix), names) })
	}
	hold := &catalog.Hold{Point: points[1], Owner: "legal", Reason: "case 7", Since: b.clock.now()}
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error { return it.PutHold(t.Context(), hold) }))
	if err := forget(points[1]); !errors.Is(err, prune.ErrHeld) {
		t.Errorf("a held point: %v", err)
	}
	if err := forget(catalog.NewSession(start, "x").Name); !errors.Is(err, catalog.ErrNoPoint) {
		t.Errorf("no point: %v", err)
	}
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error { return it.Release(t.Context(), hold.ID, "legal", b.clock.now()) }))
	if err := forget(points...); !errors.Is(err, prune.ErrLeavesNone) {
		t.Errorf("all points: %v", err)
	}
	check(t, forget(points[0], points[3]))
	check(t, forget(points[3]))
	if n := b.objects(t)["marks"]; n != 1 {
		t.Errorf("%d marks", n)
	}
	if done := b.mustPrune(t); done.RemovedPoints != 0 || done.Kept != 2 {
		t.Errorf("before its time: %+v", done)
	}
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPoints != 2 || done.RemovedPacks != 1 {
		t.Errorf("%+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[1:3]) {
		t.Errorf("points %v", left)
	}
	b.set.allow.Empty = true
	check(t, forget(points[1:3]...))
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPoints != 2 || b.objects(t)["packs"] != 0 {
		t.Errorf("%+v", done)
	}
}

// TestForgetNewest: of what somebody asked to go no rule says that another may go.
func TestForgetNewest(t *testing.T) {
	b, points := four(t)
	b.set.retention = &policy.Retention{Last: 1}
	check(t, b.use(t.Context(), func(it *catalog.Item, ix index) error {
		return prune.Forget(t.Context(), b.config(it, ix), points[3:])
	}))
	for range 3 {
		if done := b.mustPrune(t); done.Kept != 1 || done.Nothing {
			t.Errorf("%+v", done)
		}
		b.clock.pass(grace)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[2:3]) {
		t.Errorf("points %v", left)
	}
}

// TestOpenBackup: while a backup is open, a mark whose time has come waits for it if it
// had begun before the mark, and it is given up when it is too old.
func TestOpenBackup(t *testing.T) {
	b, points := four(t)
	var session *catalog.Session
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) (err error) {
		session, err = it.Begin(t.Context(), b.clock.now(), "host")
		return err
	}))
	b.mustPrune(t)
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.Waiting != 1 || done.RemovedPoints != 0 {
		t.Errorf("while it is open: %+v", done)
	}
	b.clock.pass(abandon)
	if done := b.mustPrune(t); done.Waiting != 0 || done.RemovedPoints != 2 {
		t.Errorf("when it is too old: %+v", done)
	}
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error {
		err := it.PutPoint(t.Context(), &catalog.Point{Name: session.Name, Item: itemName, Started: session.Started.UnixNano()}, store.PutOptions{})
		if !errors.Is(err, catalog.ErrVoided) {
			t.Errorf("the backup commits: %v", err)
		}
		return nil
	}))
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[2:]) {
		t.Errorf("points %v", left)
	}
}

// TestOrphans: what an interrupted backup has put goes once nobody needs it, and not
// while it may be needed by a backup that is open.
func TestOrphans(t *testing.T) {
	b, points := four(t)
	b.set.retention = nil
	crash := storetest.NewCrash(0, storetest.NotApplied)
	dead := b.host(crash.Store(b.store), b.dir, b.clock)
	dead.files.set("lost", map[string][]byte{"own": noise(7, 200_000)})
	dead.store = storetest.NewFaulty(b.store, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.Put && isIn(op.Key, "index") {
			return storetest.Fault{Err: storetest.ErrCrashed}
		}
		return storetest.Fault{}
	})
	if _, err := dead.backup(t.Context()); !errors.Is(err, storetest.ErrCrashed) {
		t.Fatalf("the backup ends with %v", err)
	}
	if done := b.mustPrune(t); done.MarkedPacks != 0 {
		t.Errorf("while its session is open: %+v", done)
	}
	b.clock.pass(abandon)
	if done := b.mustPrune(t); done.MarkedPacks != 1 || done.MarkedBytes < 200_000 {
		t.Errorf("when it was given up: %+v", done)
	}
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPacks != 1 || b.objects(t)["packs"] != 4 {
		t.Errorf("after the grace time: %+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, points) {
		t.Errorf("points %v", left)
	}
}

// TestRepack: packs of which little is needed are rewritten, and every point that
// stays restores from what stands for them.
func TestRepack(t *testing.T) {
	c := &clock{start}
	b := newBench(t, newStore(c), c)
	b.set.retention, b.set.below = &policy.Retention{Last: 1}, 50
	big := map[string][]byte{}
	for i := range 8 {
		big[fmt.Sprint("big", i)] = noise(uint64(i), 1<<20)
	}
	b.files.set("much", big)
	b.mustBackup(t)
	for i := 1; i < 8; i++ {
		big[fmt.Sprint("big", i)] = nil
	}
	b.files.set("little", big)
	last := b.mustBackup(t)
	b.mustPrune(t)
	b.clock.pass(grace)
	done := b.mustPrune(t)
	if done.RemovedPoints != 1 || done.RepackedPacks != 1 || done.RepackedBytes < 1<<20 || done.RepackedBytes > 3<<20 || done.MarkedPacks != 1 {
		t.Errorf("%+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, []catalog.PointName{last}) {
		t.Errorf("points %v", left)
	}
	b.clock.pass(grace)
	done = b.mustPrune(t)
	if done.RemovedPacks != 1 || done.FreedBytes < 8<<20 || b.objects(t)["repacks"] != 1 {
		t.Errorf("%+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, []catalog.PointName{last}) {
		t.Errorf("points %v", left)
	}
	// The next backup leans on the new pack, and the record goes with the last point
	// that it is for.
	b.files.set("next", map[string][]byte{"more": noise(1, 1000)})
	p, err := b.backup(t.Context())
	check(t, err)
	if p.Stats.New > 100_000 {
		t.Errorf("%d bytes were stored again", p.Stats.New)
	}
	for range 2 {
		b.mustPrune(t)
		b.clock.pass(grace)
	}
	if left := b.points(t, *b.files.made); len(left) != 1 || b.objects(t)["repacks"] != 0 {
		t.Errorf("points %v, %v", left, b.objects(t))
	}
}
