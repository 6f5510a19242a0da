package catalog_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
)

func recordKey(owner string, generation, epoch int) store.Key {
	return store.Key(fmt.Sprintf("keys/%s/%08d-%08d", owner, generation, epoch))
}

// forgeItem makes a key record of an item's next epoch with a secret of its maker's
// own, which the KEK's public half is enough for, and a MAC under a key of his own.
func forgeItem(t *testing.T, genuine []byte, k kek.Wrapper, at store.Key, epoch int) []byte {
	t.Helper()
	own, vk := crypt.NewSecret(), crypt.NewVaultKey()
	body := make(map[int]any)
	check(t, cbor.Unmarshal(bodyOf(genuine), &body))
	w, err := own.Wrap([]kek.Wrapper{k})
	check(t, err)
	body[4], body[8] = epoch, own.Commitment()
	body[9] = []any{[]any{string(w[0].Provider), w[0].URI, w[0].Version, w[0].Fingerprint[:], int(w[0].Algorithm), w[0].Ciphertext}}
	enc, err := cbor.CoreDetEncOptions().EncMode()
	check(t, err)
	b, err := enc.Marshal(body)
	check(t, err)
	return record(vk, "cofferK1", at, b)
}

// TestForgedItemRecord: who may write to the store and knows the KEK's public half
// does not get anything written under a secret of his own.
func TestForgedItemRecord(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, k)
	it := item(t, v, "etc")
	owner := it.ID().String()
	genuine := read(t, st, recordKey(owner, 1, 1))
	for _, at := range []store.Key{recordKey(owner, 1, 1), recordKey(owner, 1, 2)} {
		st := st.Clone()
		check(t, st.Delete(t.Context(), at))
		epoch := 1
		if at == recordKey(owner, 1, 2) {
			epoch = 2
		}
		put(t, st, at, forgeItem(t, genuine, k, at, epoch))
		check(t, catalog.ScrubRecord(at, read(t, st, at))) // only the MAC tells
		v := open(t, st, v.ID(), k)
		before := k.unwraps.Load()
		_, err := v.Item(t.Context(), "etc")
		is(t, "a forged record", err, crypt.ErrDamaged)
		if errors.Is(err, catalog.ErrMisplaced) || errors.Is(err, catalog.ErrRolledBack) {
			t.Errorf("a forged record: %v", err)
		}
		_, err = v.CreateItem(t.Context(), "etc", now)
		is(t, "to make the item anew", err, crypt.ErrDamaged)
		is(t, "a new generation", v.NewGeneration(t.Context(), "etc", now), crypt.ErrDamaged)
		if k.unwraps.Load() != before {
			t.Error("the forged wrapping was opened")
		}
	}
}

// TestSwappedRecord: a genuine record in another place is told from a forged one.
func TestSwappedRecord(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	good, other := newStore(), newStore()
	v := create(t, good, catalog.CustomerManaged, k)
	etc, vm := item(t, v, "etc").ID().String(), item(t, v, "vm1").ID().String()
	check(t, v.NewGeneration(t.Context(), "etc", now))
	strange := create(t, other, catalog.CustomerManaged, k)
	theirs := item(t, strange, "etc").ID().String()
	for name, record := range map[string][]byte{
		"another item's":       read(t, good, recordKey(vm, 1, 1)),
		"another generation's": read(t, good, recordKey(etc, 1, 1)),
		"the vault key's":      read(t, good, recordKey("vault", 1, 1)),
		"another vault's":      read(t, other, recordKey(theirs, 1, 1)),
	} {
		for _, at := range []store.Key{recordKey(etc, 2, 1), recordKey(etc, 2, 2)} {
			st := good.Clone()
			check(t, st.Delete(t.Context(), at))
			put(t, st, at, record)
			_, err := open(t, st, v.ID(), k).Item(t.Context(), "etc")
			is(t, name, err, catalog.ErrMisplaced)
			is(t, name, err, crypt.ErrDamaged)
		}
	}
	st := good.Clone()
	put(t, st, recordKey(etc, 2, 2), read(t, st, recordKey(etc, 2, 1)))
	_, err := open(t, st, v.ID(), k).Item(t.Context(), "etc")
	is(t, "another epoch's", err, catalog.ErrMisplaced)

	// Those of the vault key are passed over, as everything is that may be rubbish.
	st = good.Clone()
	put(t, st, recordKey("vault", 1, 2), read(t, other, recordKey("vault", 1, 1)))
	put(t, st, recordKey("vault", 1, 3), read(t, st, recordKey(etc, 1, 1)))
	open(t, st, v.ID(), k)
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: strange.ID(), Ring: kek.NewRing(k)})
	is(t, "another vault's id", err, catalog.ErrOtherVault)
}

// rotated is a vault of two items whose keys were rotated, and the store as it was
// before that.
func rotated(t *testing.T, floors catalog.Floors) (before, after *mem.Store, id crypt.VaultID, old, fresh token) {
	t.Helper()
	old, fresh = newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, old)
	item(t, v, "etc").Close()
	item(t, v, "vm1").Close()
	before = st.Clone()
	v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(old, fresh), Floors: floors})
	check(t, err)
	_, err = v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(fresh)})
	check(t, err)
	return before, st, v.ID(), old, fresh
}

// TestRolledBackVaultKey: the newest record of the vault key is removed, so that an
// older one is the newest, or the whole folder is put back.
func TestRolledBackVaultKey(t *testing.T) {
	floors := newSeen()
	before, after, id, old, fresh := rotated(t, floors)
	removed := after.Clone()
	for _, key := range keys(t, removed, "keys/vault/")[1:] {
		check(t, removed.Delete(t.Context(), key))
	}
	for name, st := range map[string]*mem.Store{"the newer record removed": removed, "the whole store put back": before} {
		opts := catalog.OpenOptions{ID: id, Ring: kek.NewRing(old, fresh), Floors: floors}
		_, err := catalog.Open(t.Context(), st, opts)
		is(t, name, err, catalog.ErrRolledBack)
		opts.Floors = nil // who has never seen the vault cannot tell
		_, err = catalog.Open(t.Context(), st, opts)
		check(t, err)
	}
	v, err := catalog.Open(t.Context(), after, catalog.OpenOptions{ID: id, Ring: kek.NewRing(fresh), Floors: floors})
	check(t, err)
	// It is noticed in an open vault too, before anything is wrapped.
	for _, key := range keys(t, after, "keys/vault/")[1:] {
		check(t, after.Delete(t.Context(), key))
	}
	_, err = v.CreateItem(t.Context(), "db1", now)
	is(t, "in an open vault", err, catalog.ErrRolledBack)
	v.Close()
}

// TestOldRecordsOpenNothing: an earlier record of the vault key, which stays in the
// store, does not open the vault under a key that was taken out since.
func TestOldRecordsOpenNothing(t *testing.T) {
	_, st, id, old, fresh := rotated(t, nil)
	denied := fresh
	denied.fault = kek.ErrDenied
	for name, test := range map[string]struct {
		ring *kek.Ring
		want error
	}{
		"the old key alone":         {kek.NewRing(old), kek.ErrNoKey},
		"the new key is taken away": {kek.NewRing(denied, old), kek.ErrDenied},
	} {
		_, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: test.ring})
		is(t, name, err, test.want)
	}
}

// TestModeDoesNotGoDown when an older record is put back, or moved up.
func TestModeDoesNotGoDown(t *testing.T) {
	soft, hsm := newToken("soft", kek.Software), newToken("hsm", kek.PKCS11)
	st, floors := newStore(), newSeen()
	v := create(t, st, catalog.SoftwareKeys, soft)
	first := read(t, st, recordKey("vault", 1, 1))
	opts := catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(hsm, soft), Floors: floors}
	v, err := catalog.Open(t.Context(), st, opts)
	check(t, err)
	_, err = v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(hsm), Mode: catalog.CustomerManaged})
	check(t, err)
	put(t, st, recordKey("vault", 1, 9), first)
	v, err = catalog.Open(t.Context(), st, opts)
	check(t, err)
	if v.Mode() != catalog.CustomerManaged {
		t.Errorf("with an old record on top: %v", v.Mode())
	}
	for _, key := range keys(t, st, "keys/vault/") {
		check(t, st.Delete(t.Context(), key))
	}
	put(t, st, recordKey("vault", 1, 1), first)
	_, err = catalog.Open(t.Context(), st, opts)
	is(t, "with the old record alone", err, catalog.ErrRolledBack)
}

// TestRolledBackItem: older records of an item are put back in every way there is.
func TestRolledBackItem(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, k)
	owner := item(t, v, "etc").ID().String()
	for range 2 {
		check(t, v.NewGeneration(t.Context(), "etc", now))
	}
	spare := newToken("spare", kek.PKCS11)
	floors := newSeen()
	opts := catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k, spare), Floors: floors}
	seeing, err := catalog.Open(t.Context(), st, opts)
	check(t, err)
	_, err = seeing.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(k, spare)})
	check(t, err)
	for name, gone := range map[string][]store.Key{
		"the newer epoch of the newest": {recordKey(owner, 3, 2)},
		"the newer epoch of an old one": {recordKey(owner, 1, 2)},
		"the newest generation":         {recordKey(owner, 3, 1), recordKey(owner, 3, 2)},
		"a generation in the middle":    {recordKey(owner, 2, 1), recordKey(owner, 2, 2)},
		"the first generation":          {recordKey(owner, 1, 1), recordKey(owner, 1, 2)},
		"everything":                    keys(t, st, store.Key("keys/"+owner+"/")),
	} {
		st := st.Clone()
		for _, key := range gone {
			check(t, st.Delete(t.Context(), key))
		}
		v, err := catalog.Open(t.Context(), st, opts)
		check(t, err)
		_, err = v.Item(t.Context(), "etc")
		is(t, name+" is gone", err, catalog.ErrRolledBack)
		if errors.Is(err, catalog.ErrNoItem) {
			t.Errorf("%s is gone: it counts as no item, and would be made anew", name)
		}
		_, err = v.CreateItem(t.Context(), "etc", now)
		is(t, name+" is gone, to make it", err, catalog.ErrRolledBack)
		if _, err := v.Items(t.Context()); name != "everything" {
			is(t, name+" is gone, in a list", err, catalog.ErrRolledBack)
		}
		if name != "everything" {
			_, err = v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(k)})
			is(t, name+" is gone, at a rotation", err, catalog.ErrRolledBack)
		}
	}
	// Whoever did not see it cannot tell.
	st = st.Clone()
	check(t, st.Delete(t.Context(), recordKey(owner, 3, 2)))
	opts.Floors = newSeen()
	v, err = catalog.Open(t.Context(), st, opts)
	check(t, err)
	_, err = v.Item(t.Context(), "etc")
	check(t, err)
}

// TestErasureIsNotUndone by removing the tombstone.
func TestErasureIsNotUndone(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	id := create(t, st, catalog.CustomerManaged, k).ID()
	v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: kek.NewRing(k), Floors: newSeen()})
	check(t, err)
	owner := item(t, v, "etc").ID().String()
	copied := st.Clone()
	_, err = v.Erase(t.Context(), st, "etc", now)
	check(t, err)
	check(t, st.Delete(t.Context(), recordKey(owner, 2, 1)))
	put(t, st, recordKey(owner, 1, 1), read(t, copied, recordKey(owner, 1, 1)))
	_, err = v.Item(t.Context(), "etc")
	is(t, "an item whose tombstone was removed", err, catalog.ErrRolledBack)
}

// TestFloorsOfOneProcess: what this process writes while it reads is no rollback.
func TestFloorsOfOneProcess(t *testing.T) {
	a, b := newToken("a", kek.PKCS11), newToken("b", kek.PKCS11)
	st := newStore()
	id := many(t, st, 4, catalog.CustomerManaged, a).ID()
	v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: kek.NewRing(a, b), Floors: newSeen()})
	check(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 20 {
			if _, err := v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers([]kek.Key{a, b}[i%2]), Parallel: 4}); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 4 {
		wg.Go(func() {
			for n := range 20 {
				if _, err := v.Items(t.Context()); err != nil {
					t.Error(err)
				}
				it, err := v.CreateItem(t.Context(), fmt.Sprintf("new%d-%d", i, n), now)
				if err != nil {
					t.Error(err)
					continue
				}
				if err := v.NewGeneration(t.Context(), it.Name(), now); err != nil {
					t.Error(err)
				}
				it.Close()
			}
		})
	}
	wg.Wait()
	if n := len(records(t, v)); n != 1+5+4*20*2 {
		t.Errorf("%d secrets", n)
	}
}
