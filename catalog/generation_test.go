package catalog_test

import (
	"fmt"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// TestNewGeneration: what is new is under another data key, what is old stays
// readable, and a chunk keeps its id.
func TestNewGeneration(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, k)
	it, p := backedUp(t, v, st, "etc", "some data")
	check(t, v.NewGeneration(t.Context(), "etc", now.AddDate(0, 1, 0)))
	if it.Generation() != 1 {
		t.Errorf("an item that is open changes to generation %d", it.Generation())
	}
	next, q := backedUp(t, v, st, "etc", "more data")
	if next.Generation() != 2 || !made(next).Equal(now.AddDate(0, 1, 0).Truncate(1e9)) {
		t.Errorf("generation %d of %v", next.Generation(), made(next))
	}
	a, err := it.Secret(t.Context(), 1)
	check(t, err)
	b, err := next.Secret(t.Context(), 2)
	check(t, err)
	na, err := a.Namer()
	check(t, err)
	nb, err := b.Namer()
	check(t, err)
	if string(a.Commitment()) == string(b.Commitment()) || na.ID([]byte("x")) != nb.ID([]byte("x")) {
		t.Error("the secrets are the same, or a chunk has two ids")
	}
	fresh := open(t, st, v.ID(), k)
	again, err := fresh.Item(t.Context(), "etc")
	check(t, err)
	l := newLocal()
	if done, err := again.Sync(t.Context(), l); err != nil || done.Indexes != 2 || len(l.packs) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	for _, name := range []catalog.PointName{p.Name, q.Name} {
		if _, err := again.Point(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	is(t, "of no item", v.NewGeneration(t.Context(), "vm1", now), catalog.ErrNoItem)

	// A key that is away takes nothing but its own generation with it.
	for name, need := range map[catalog.PointName][]uint32{p.Name: {1}, q.Name: {2}} {
		got, err := again.Generations(t.Context(), name, func(uint32) bool { return true })
		if err != nil || fmt.Sprint(got) != fmt.Sprint(need) {
			t.Errorf("point %s needs %v, %v; want %v", name, got, err, need)
		}
	}
	got, err := again.Generations(t.Context(), q.Name, func(uint32) bool { return false })
	if err != nil || fmt.Sprint(got) != "[1 2]" {
		t.Errorf("a point that does not open may need %v, %v", got, err)
	}
	_, err = again.Generations(t.Context(), "20200101t000000.000z"+p.Name[20:], func(uint32) bool { return true })
	is(t, "a point that is not there", err, catalog.ErrNoPoint)
}

// TestSyncWithoutAnOldKey: generations that no key opens are passed over, at the cost
// of one try each, and found when the key is back.
func TestSyncWithoutAnOldKey(t *testing.T) {
	old, fresh := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, old)
	for range 3 {
		it, _ := backedUp(t, v, st, "etc", "some data")
		it.Close()
	}
	v.UseRing(kek.NewRing(old).WrapWith(fresh))
	check(t, v.NewGeneration(t.Context(), "etc", now))
	v.UseRing(kek.NewRing(fresh, old))
	it, err := v.Item(t.Context(), "etc")
	check(t, err)
	addPack(t, st, it, "more data")
	gone := old
	gone.fault = kek.ErrUnreachable
	v.UseRing(kek.NewRing(fresh, gone))
	again, err := v.Item(t.Context(), "etc")
	check(t, err)
	v.Forget()
	before := old.unwraps.Load()
	l := newLocal()
	done, err := again.Sync(t.Context(), l)
	if err != nil || done.Indexes != 0 || done.Unopened != 6 || done.Recovered != 1 || len(done.Damaged) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if n := old.unwraps.Load() - before; n != 1 {
		t.Errorf("a key that is away was asked %d times", n)
	}
	v.UseRing(kek.NewRing(fresh, old))
	if done, err = again.Sync(t.Context(), l); err != nil || done.Indexes != 3 || len(l.packs) != 4 {
		t.Errorf("when it is back: %+v, %v; %d packs", done, err, len(l.packs))
	}
}

// TestStaleItemOpens: an item that was read before a rotation opens after it.
func TestStaleItemOpens(t *testing.T) {
	old, fresh := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	id := many(t, st, 2, catalog.CustomerManaged, old).ID()
	v := open(t, st, id, old, fresh)
	it, err := v.Item(t.Context(), "item000")
	check(t, err)
	_, err = v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(fresh)})
	check(t, err)
	v.UseRing(kek.NewRing(fresh))
	for generation := range uint32(2) {
		if _, err := it.Secret(t.Context(), generation+1); err != nil {
			t.Error(err)
		}
	}
}
