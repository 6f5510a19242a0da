package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

// locking is a store that keeps what is put under some prefixes until a time, and
// says so.
type locking struct {
	*mem.Store
	until  time.Time
	prefix []string // that a key contains
}

func (l locking) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	for _, p := range l.prefix {
		if strings.Contains(string(key), p) {
			opts.Retention.Until = l.until
		}
	}
	return l.Store.Put(ctx, key, body, opts)
}

func (l locking) RetainedUntil(context.Context, store.Key) (time.Time, error) { return l.until, nil }

// gone tells what is left of an item, besides its tombstone.
func gone(t *testing.T, st store.Lister, id crypt.ItemID, tombstone int) []store.Key {
	t.Helper()
	var left []store.Key
	for _, key := range append(keys(t, st, "keys/"+store.Key(id.String())+"/"), keys(t, st, "items/"+store.Key(id.String())+"/")...) {
		if key != recordKey(id.String(), tombstone, 1) {
			left = append(left, key)
		}
	}
	return left
}

func TestErase(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, k)
	keep, kept := backedUp(t, v, st, "keep", "other data")
	it, p := backedUp(t, v, st, "etc", "some data")
	check(t, v.NewGeneration(t.Context(), "etc", now))
	_, err := v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(k, newToken("spare", kek.PKCS11))})
	check(t, err)
	put(t, st, "items/"+store.Key(it.ID().String())+"/notes.txt", []byte("not ours"))
	secret, err := it.Secret(t.Context(), 1)
	check(t, err)

	done, err := v.Erase(t.Context(), st, "etc", now.Add(time.Hour))
	check(t, err)
	if done != (catalog.Erased{Secrets: 2, Deleted: 4 + 4}) {
		t.Errorf("%+v", done)
	}
	if left := gone(t, st, it.ID(), 3); len(left) != 1 || left[0].Base() != "notes.txt" {
		t.Errorf("left: %v", left)
	}
	if _, err := secret.Polynomial(); !errors.Is(err, crypt.ErrClosed) {
		t.Errorf("the secret is still in memory: %v", err)
	}
	for _, v := range []*catalog.Vault{v, open(t, st, v.ID(), k)} {
		_, err = v.Item(t.Context(), "etc")
		is(t, "the item", err, catalog.ErrErased)
		is(t, "the item", err, catalog.ErrNoItem)
		is(t, "a new generation of it", v.NewGeneration(t.Context(), "etc", now), catalog.ErrErased)
		items, err := v.Items(t.Context())
		if err != nil || len(items) != 1 || items[0].Name() != "keep" {
			t.Errorf("%v, %v", items, err)
		}
		last := records(t, v)[1]
		if last.Item != "etc" || !last.Erased || last.Generation != 3 || len(last.Wrappings) != 0 || !last.Made.Equal(now.Add(time.Hour).Truncate(time.Second)) {
			t.Errorf("%+v", last)
		}
		for key, err := range v.CheckRecords(t.Context()) {
			if err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	if again, err := v.Erase(t.Context(), st, "etc", now); err != nil || again != (catalog.Erased{}) {
		t.Errorf("again: %+v, %v", again, err)
	}
	_, err = v.Erase(t.Context(), st, "vm1", now)
	is(t, "an item that never was", err, catalog.ErrNoItem)
	if _, err := v.Sweep(t.Context(), st, "keep"); err != nil {
		t.Error(err)
	}
	if _, err := keep.Point(t.Context(), kept.Name); err != nil {
		t.Errorf("the other item: %v", err)
	}
	if _, err := it.Point(t.Context(), p.Name); err == nil {
		t.Error("a point of an erased item opens")
	}
}

// TestErasedItemMadeAgain: it has nothing of what it was, though the store keeps all
// of that, and nothing of it is damage.
func TestErasedItemMadeAgain(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	clock := now
	until := now.AddDate(0, 1, 0)
	inner := mem.New(mem.Config{Now: func() time.Time { return clock }})
	st := locking{inner, until, []string{"items/", "/00000001-00000001"}}
	v := create(t, inner, catalog.CustomerManaged, k)
	v = open(t, st, v.ID(), k)
	old, oldPoint := backedUp(t, v, st, "etc", "some data")
	l := newLocal()
	_, err := old.Sync(t.Context(), l)
	check(t, err)

	done, err := v.Erase(t.Context(), st, "etc", now)
	check(t, err)
	if done != (catalog.Erased{Locked: 5, LockedKeys: 1, LockedUntil: until}) {
		t.Errorf("%+v", done)
	}
	if left := gone(t, st, old.ID(), 2); len(left) != 5 {
		t.Errorf("left: %v", left)
	}
	_, err = v.Item(t.Context(), "etc")
	is(t, "the item", err, catalog.ErrErased)

	again, err := v.CreateItem(t.Context(), "etc", now)
	check(t, err)
	if again.Generation() != 3 || again.ID() != old.ID() {
		t.Errorf("made again as generation %d", again.Generation())
	}
	for _, it := range []*catalog.Item{again, item(t, open(t, st, v.ID(), k), "etc")} {
		names, err := it.Points(t.Context())
		if err != nil || len(names) != 0 {
			t.Errorf("points %v, %v", names, err)
		}
		_, err = it.Point(t.Context(), oldPoint.Name)
		is(t, "a point of before", err, catalog.ErrNoPoint)
		for name, err := range it.Indexes(t.Context()) {
			t.Errorf("index %s, %v", name, err)
		}
		for id, err := range it.Packs(t.Context()) {
			t.Errorf("pack %s, %v", id, err)
		}
		for key, err := range it.Strays(t.Context()) {
			t.Errorf("stray %s, %v", key, err)
		}
		if done, err := it.Sync(t.Context(), l); err != nil || done.Indexes+done.Recovered+len(done.Damaged) != 0 || len(l.packs) != 0 {
			t.Errorf("%+v, %v; %d packs", done, err, len(l.packs))
		}
	}
	it, p := backedUp(t, v, st, "etc", "some data")
	fresh := newLocal()
	if done, err := it.Sync(t.Context(), fresh); err != nil || done.Indexes != 1 || len(done.Damaged) != 0 || len(fresh.packs) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if names, err := it.Points(t.Context()); err != nil || len(names) != 1 || names[0] != p.Name {
		t.Errorf("%v, %v", names, err)
	}
	for key, err := range v.CheckRecords(t.Context()) {
		if err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if all := records(t, v); len(all) != 2 || all[1].Generation != 3 || all[1].Erased {
		t.Errorf("%+v", all)
	}

	// Once the locks end, a sweep takes what was left, and nothing else.
	if done, err := v.Sweep(t.Context(), st, "etc"); err != nil || done.Deleted != 0 || done.Locked != 5 {
		t.Errorf("too early: %+v, %v", done, err)
	}
	clock = until
	if done, err := v.Sweep(t.Context(), st, "etc"); err != nil || done != (catalog.Erased{Secrets: 1, Deleted: 5}) {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := it.Point(t.Context(), p.Name); err != nil {
		t.Error(err)
	}
	for c := range fresh.packs {
		if _, err := inner.Stat(t.Context(), pack.Key(it.ID(), c)); err != nil {
			t.Error(err)
		}
	}
	if done, err := v.Erase(t.Context(), st, "etc", now); err != nil || done != (catalog.Erased{Secrets: 1, Deleted: 6}) {
		t.Errorf("erased again: %+v, %v", done, err)
	}
	if left := gone(t, st, it.ID(), 4); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestEraseSurvivesEveryCrash: the item is whole, or erased and erased in full by
// the next try.
func TestEraseSurvivesEveryCrash(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	good := newStore()
	v := create(t, good, catalog.CustomerManaged, k)
	id := item(t, v, "etc").ID()
	for i := range 3 {
		backedUp(t, v, good, "etc", fmt.Sprint("data ", i))
	}
	check(t, v.NewGeneration(t.Context(), "etc", now))
	backedUp(t, v, good, "keep", "data")
	erase := func(st store.Store) error {
		v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
		if err != nil {
			return err
		}
		defer v.Close()
		_, err = v.Erase(t.Context(), st, "etc", now)
		return err
	}
	count := storetest.NewCrash(0, storetest.Applied)
	check(t, erase(count.Store(good.Clone())))
	if count.Writes() != 1+2+12 {
		t.Errorf("%d writes", count.Writes())
	}
	for n := 1; n <= count.Writes(); n++ {
		for _, how := range []storetest.Outcome{storetest.NotApplied, storetest.Applied} {
			st := good.Clone()
			err := erase(storetest.NewCrash(n, how).Store(st))
			is(t, fmt.Sprintf("write %d %v", n, how), err, storetest.ErrCrashed)
			v := open(t, st, v.ID(), k)
			it, err := v.Item(t.Context(), "etc")
			if n == 1 && how == storetest.NotApplied {
				if names, perr := it.Points(t.Context()); err != nil || perr != nil || len(names) != 3 {
					t.Errorf("write %d %v: %v, %v, %v", n, how, names, err, perr)
				}
			} else {
				is(t, fmt.Sprintf("the item after write %d %v", n, how), err, catalog.ErrErased)
			}
			check(t, erase(st))
			if left := gone(t, st, id, 3); len(left) > 0 {
				t.Errorf("after write %d %v: %v is left", n, how, left)
			}
			items, err := v.Items(t.Context())
			if err != nil || len(items) != 1 || items[0].Name() != "keep" {
				t.Errorf("after write %d %v: %v, %v", n, how, items, err)
			}
			if n := item(t, v, "etc").Generation(); n != 4 {
				t.Errorf("made again as generation %d", n)
			}
		}
	}
}

// TestEraseDamaged: an item whose records are damaged can be erased all the same.
func TestEraseDamaged(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, k)
	it, _ := backedUp(t, v, st, "etc", "data")
	tamper(t, st, recordKey(it.ID().String(), 1, 1), func(b []byte) []byte { b[30] ^= 1; return b })
	put(t, st, recordKey(it.ID().String(), 7, 1), []byte("rubbish"))
	for info, err := range st.List(t.Context(), pack.Prefix(it.ID())) {
		check(t, err)
		tamper(t, st, info.Key, func(b []byte) []byte { b[30] ^= 1; return b })
	}
	done, err := v.Erase(t.Context(), st, "etc", now)
	if err != nil || done.Secrets != 2 || done.Deleted != 2+4 {
		t.Errorf("%+v, %v", done, err)
	}
	if left := gone(t, st, it.ID(), 8); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestErasuresAtOnce, while the item is also made again.
func TestErasuresAtOnce(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	for range 20 {
		st := newStore()
		v := create(t, st, catalog.CustomerManaged, k)
		it, _ := backedUp(t, v, st, "etc", "data")
		var wg sync.WaitGroup
		for range 3 {
			v := open(t, st, v.ID(), k)
			wg.Go(func() {
				if _, err := v.Erase(t.Context(), st, "etc", now); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		_, err := v.Item(t.Context(), "etc")
		is(t, "the item", err, catalog.ErrErased)
		if left := gone(t, st, it.ID(), 2); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		again, p := backedUp(t, v, st, "etc", "more")
		if _, err := v.Sweep(t.Context(), st, "etc"); err != nil {
			t.Error(err)
		}
		if _, err := again.Point(t.Context(), p.Name); err != nil {
			t.Error(err)
		}
	}
}

// TestEraseWhileOpen: an agent that has the item open finds out when it reads it
// again, and what it writes meanwhile is nobody's.
func TestEraseWhileOpen(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, k)
	it, _ := backedUp(t, v, st, "etc", "data")
	_, err := open(t, st, v.ID(), k).Erase(t.Context(), st, "etc", now)
	check(t, err)
	p := &catalog.Point{Item: "etc", Started: now.UnixNano()}
	check(t, commit(t.Context(), it, p))
	again := item(t, v, "etc")
	if names, err := again.Points(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
	if done, err := v.Sweep(t.Context(), st, "etc"); err != nil || done.Deleted != 2 {
		t.Errorf("%+v, %v", done, err)
	}
}
