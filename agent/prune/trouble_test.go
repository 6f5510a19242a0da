package prune_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/storetest"
)

// TestSleeper: a backup that was given up in its sleep, and wakes, puts an index object
// that names packs which a prune has removed meanwhile. It does not commit, and nobody
// believes the index object: not a host that knows the vault, nor its own, nor a new one.
func TestSleeper(t *testing.T) {
	b, points := four(t)
	b.set.retention = nil
	sleeper := b.host(nil, t.TempDir(), b.clock)
	sleeper.files.set("lost", map[string][]byte{"own": noise(7, 200_000)})
	sleeper.store = storetest.NewFaulty(b.store, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.Put && isIn(op.Key, "index") { // it falls asleep
			b.clock.pass(abandon)
			if done := b.mustPrune(t); done.MarkedPacks != 1 {
				t.Errorf("while it sleeps: %+v", done)
			}
			b.clock.pass(grace)
			if done := b.mustPrune(t); done.RemovedPacks != 1 {
				t.Errorf("while it sleeps: %+v", done)
			}
		}
		return storetest.Fault{}
	})
	if _, err := sleeper.backup(t.Context()); !errors.Is(err, catalog.ErrVoided) && !errors.Is(err, store.ErrNotExist) {
		t.Fatalf("it wakes and ends with %v", err) // a directory in its pack, if it has to look at one
	}
	sleeper.store = b.store
	for _, host := range []*bench{b, sleeper, b.host(b.store, t.TempDir(), b.clock)} {
		host.files.set("found", map[string][]byte{"own": noise(7, 200_000)})
		points = append(points, host.mustBackup(t))
		if left := b.points(t, *b.files.made); !slices.Equal(left, points) {
			t.Errorf("points %v", left)
		}
	}
}

// TestAway: a host that was away from mark to sweep does not take what another has
// removed for somebody's deed.
func TestAway(t *testing.T) {
	b, points := four(t)
	away := b.host(b.store, t.TempDir(), b.clock)
	away.set = &settings{}
	away.mustPrune(t) // it knows everything
	b.mustPrune(t)
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPoints != 2 || done.RemovedPacks != 1 {
		t.Fatalf("%+v", done)
	}
	check(t, away.use(t.Context(), func(it *catalog.Item, ix index) error {
		synced, err := it.SyncPacks(t.Context(), ix)
		if err != nil || len(synced.Gone) > 0 {
			t.Errorf("gone: %v, %v", synced.Gone, err)
		}
		seen, err := it.SyncPoints(t.Context(), ix)
		if err != nil || seen.Err() != nil {
			t.Errorf("gone: %v, %v", seen.Err(), err)
		}
		return nil
	}))
	away.mustPrune(t)
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[2:]) {
		t.Errorf("points %v", left)
	}
}

// TestVault: key records that count no more go after the grace time, and so does what
// an erasure left.
func TestVault(t *testing.T) {
	b, _ := four(t)
	whole := func() (done prune.VaultResult, err error) {
		v, err := catalog.Open(t.Context(), b.store, catalog.OpenOptions{ID: b.id, Ring: testRing})
		check(t, err)
		defer v.Close()
		return prune.Vault(t.Context(), prune.VaultConfig{Vault: v, Store: b.store, Grace: grace, Clock: b.clock.now, Log: quiet})
	}
	v, err := catalog.Open(t.Context(), b.store, catalog.OpenOptions{ID: b.id, Ring: testRing})
	check(t, err)
	defer v.Close()
	uri := "file://" + filepath.Join(t.TempDir(), "other.pem")
	check(t, software.Create(t.Context(), uri, software.CreateOptions{Bits: 2048}))
	other, err := software.Open(t.Context(), "other", uri)
	check(t, err)
	both := kek.NewRing(append(testRing.Keys(), other)...)
	v.UseRing(both)
	_, err = v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: both.Wrappers(), Now: b.clock.now})
	check(t, err)
	if done, err := whole(); err != nil || done.Records != 0 {
		t.Errorf("within the grace time: %+v, %v", done, err)
	}
	b.clock.pass(grace)
	if done, err := whole(); err != nil || done.Records != 2 || done.Swept != 0 {
		t.Errorf("after it: %+v, %v", done, err)
	}
	if len(b.points(t, *b.files.made)) != 4 {
		t.Error("points are lost")
	}
	until := b.clock.now().Add(grace)
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error {
		return b.store.(store.Retainer).Retain(t.Context(), it.IndexKey(firstIndex(t, it)), store.Retention{Until: until})
	}))
	_, err = v.Erase(t.Context(), b.store, itemName, b.clock.now())
	check(t, err)
	if done, err := whole(); err != nil || done.Locked != 1 || !done.LockedUntil.Equal(until) || done.Swept != 0 {
		t.Errorf("while it is locked: %+v, %v", done, err)
	}
	b.clock.time = until
	if done, err := whole(); err != nil || done.Swept != 1 || len(b.objects(t)) != 0 {
		t.Errorf("afterwards: %+v, %v, %v", done, err, b.objects(t))
	}
}

func firstIndex(t *testing.T, it *catalog.Item) string {
	t.Helper()
	for name, err := range it.Indexes(t.Context()) {
		check(t, err)
		return name
	}
	t.Fatal("there is no index object")
	return ""
}

// TestFuture: what says that it is of the future, a session or a mark, stands in nobody's
// way for longer than others.
func TestFuture(t *testing.T) {
	b, points := four(t)
	ahead := b.host(b.store, t.TempDir(), &clock{start.AddDate(73, 0, 0)})
	check(t, ahead.use(t.Context(), func(it *catalog.Item, ix index) error {
		if _, err := it.Begin(t.Context(), ahead.clock.now(), "other"); err != nil {
			return err
		}
		cfg := ahead.config(it, ix)
		cfg.Host = "other"
		return prune.Forget(t.Context(), cfg, points[3:])
	}))
	b.set.retention = nil
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.Waiting != 1 || done.RemovedPoints != 0 || done.Foreign != 1 {
		t.Errorf("while the session may be alive: %+v", done)
	}
	b.clock.pass(abandon)
	if done := b.mustPrune(t); done.RemovedPoints != 1 || done.Foreign != 1 {
		t.Errorf("when it is too old: %+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[:3]) {
		t.Errorf("points %v", left)
	}
}

// TestLocked: what the store does not let go stays marked, and the rest goes.
func TestLocked(t *testing.T) {
	b, points := four(t)
	until := b.clock.now().Add(5 * time.Hour)
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error {
		return b.store.(store.Retainer).Retain(t.Context(), it.PointKey(points[1]), store.Retention{Until: until})
	}))
	b.mustPrune(t)
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPoints != 1 || done.RemovedPacks != 0 || done.Locked != 1 || !done.LockedUntil.Equal(until) || done.RescuedPacks != 0 {
		t.Errorf("while it is locked: %+v", done)
	}
	if left := b.points(t, *b.files.made); len(left) != 3 || b.objects(t)["marks"] != 1 {
		t.Errorf("points %v", left)
	}
	// Where everything is locked the store is asked first, and nothing is written down
	// as removed that stays.
	before := b.objects(t)["removed"]
	b.set.lock = store.Retention{Until: until}
	if done := b.mustPrune(t); done.Locked != 1 || !done.LockedUntil.Equal(until) || done.RemovedPoints != 0 || b.objects(t)["removed"] != before {
		t.Errorf("while it is locked, and all else: %+v, %v", done, b.objects(t))
	}
	b.clock.time = until
	if done := b.mustPrune(t); done.RemovedPoints != 1 || done.RemovedPacks != 1 || done.Locked != 0 || b.objects(t)["marks"] != 0 {
		t.Errorf("afterwards: %+v", done)
	}
}

// TestMayNotDelete: credentials that may not delete mark and remove nothing, and say so.
func TestMayNotDelete(t *testing.T) {
	b, _ := four(t)
	b.mustPrune(t)
	b.clock.pass(grace)
	poor := b.host(storetest.NewFaulty(b.store, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.Delete {
			return storetest.Fault{Err: store.ErrDenied}
		}
		return storetest.Fault{}
	}), t.TempDir(), b.clock)
	if _, err := poor.prune(t.Context()); !errors.Is(err, prune.ErrMayNotDelete) {
		t.Errorf("%v", err)
	}
	if n := len(b.points(t, *b.files.made)); n != 4 {
		t.Errorf("%d points", n)
	}
	if done := b.mustPrune(t); done.RemovedPoints != 2 {
		t.Errorf("from the host whose may: %+v", done)
	}
}

// TestLostPoint: a prune refuses to go by a listing that lacks a point.
func TestLostPoint(t *testing.T) {
	b, points := four(t)
	b.mustPrune(t)
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error { return b.store.Delete(t.Context(), it.PointKey(points[3])) }))
	b.clock.pass(grace)
	if _, err := b.prune(t.Context()); !errors.Is(err, catalog.ErrPointGone) || b.objects(t)["points"] != 3 {
		t.Errorf("%v", err)
	}
}

// TestUnreadablePoint: what a point needs that does not open is not known, so nothing
// that it may need goes, until somebody forgets it.
func TestUnreadablePoint(t *testing.T) {
	b, points := four(t)
	b.mustPrune(t)
	b.clock.pass(grace)
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error {
		return b.store.(interface {
			Tamper(store.Key, func([]byte) []byte) error
		}).Tamper(it.PointKey(points[2]), func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw })
	}))
	if _, err := b.prune(t.Context()); !errors.Is(err, crypt.ErrDamaged) || b.objects(t)["packs"] != 4 {
		t.Errorf("%v, %v", err, b.objects(t))
	}
	check(t, b.use(t.Context(), func(it *catalog.Item, ix index) error {
		return prune.Forget(t.Context(), b.config(it, ix), points[2:3])
	}))
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPacks == 0 {
		t.Errorf("after it was forgotten: %+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[3:]) {
		t.Errorf("points %v", left)
	}
}
