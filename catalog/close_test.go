package catalog_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

// TestClosedVaultDoesNothing, and nor do its items and a pack that is being made.
func TestClosedVaultDoesNothing(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	id := create(t, st, catalog.CustomerManaged, k).ID()
	count := storetest.NewCrash(0, storetest.Applied)
	v := open(t, count.Store(st), id, k)
	it, p := backedUp(t, v, st, "etc", "some data")
	l := newLocal()
	_, err := it.Sync(t.Context(), l)
	check(t, err)
	r := it.NewReader(l)
	var chunks []pack.Chunk
	for _, c := range l.packs {
		chunks = c.Frames[0].Chunks
	}
	_, err = r.Chunk(t.Context(), chunks[0].ID, pack.Data) // now it is in memory
	check(t, err)
	secret, err := it.Secret(t.Context(), 1)
	check(t, err)
	b := pack.NewBuilder(secret, it.ID(), 1, nil)
	slot, _ := b.Reserve(pack.Frame{Type: pack.Data, Raw: 4, Chunks: []pack.Chunk{{Length: 4}}}, 4)
	before, unwraps := count.Writes(), k.unwraps.Load()

	v.Close()
	v.Close()
	sealed := func() error { _, _, err := slot.Seal([]byte("data"), nil); return err }
	for name, do := range map[string]func() error{
		"secret":         func() error { _, err := it.Secret(t.Context(), 1); return err },
		"seal":           sealed,
		"point":          func() error { _, err := it.Point(t.Context(), p.Name); return err },
		"put point":      func() error { return commit(t.Context(), it, &catalog.Point{Item: "etc"}) },
		"put index":      func() error { _, _, err := it.PutIndex(t.Context(), nil, store.PutOptions{}); return err },
		"chunk":          func() error { _, err := r.Chunk(t.Context(), chunks[0].ID, pack.Data); return err },
		"sync":           func() error { _, err := it.Sync(t.Context(), newLocal()); return err },
		"item":           func() error { _, err := v.Item(t.Context(), "etc"); return err },
		"items":          func() error { _, err := v.Items(t.Context()); return err },
		"item id":        func() error { _, err := v.ItemID("etc"); return err },
		"create item":    func() error { _, err := v.CreateItem(t.Context(), "vm1", now); return err },
		"new generation": func() error { return v.NewGeneration(t.Context(), "etc", now) },
		"rewrap": func() error {
			_, err := v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(k)})
			return err
		},
		"erase": func() error { _, err := v.Erase(t.Context(), st, "etc", now); return err },
		"sweep": func() error { _, err := v.Sweep(t.Context(), st, "etc"); return err },
		"key records": func() error {
			for _, err := range v.KeyRecords(t.Context()) {
				return err
			}
			return nil
		},
		"check records": func() error {
			for _, err := range v.CheckRecords(t.Context()) {
				return err
			}
			return nil
		},
	} {
		if err := do(); !errors.Is(err, crypt.ErrClosed) || errors.Is(err, crypt.ErrDamaged) {
			t.Errorf("%s of a closed vault: %v, want %v", name, err, crypt.ErrClosed)
		}
	}
	it.Close()
	if count.Writes() != before || k.unwraps.Load() != unwraps {
		t.Errorf("a closed vault wrote %d times, and asked its key %d times", count.Writes()-before, k.unwraps.Load()-unwraps)
	}
}

// TestCloseAtAnyTime: whatever is under way ends with an error or with what it was to
// do, and what was written authenticates.
func TestCloseAtAnyTime(t *testing.T) {
	k, spare := newToken("main", kek.PKCS11), newToken("spare", kek.PKCS11)
	for i := range 60 {
		st := newStore()
		id := many(t, st, 5, catalog.CustomerManaged, k).ID()
		v := open(t, st, id, k, spare)
		it, err := v.Item(t.Context(), "item000")
		check(t, err)
		var wg sync.WaitGroup
		reached := make(chan struct{}, 100)
		job := func(do func() error) {
			wg.Go(func() {
				for range 10 {
					if err := do(); err != nil && !errors.Is(err, crypt.ErrClosed) {
						t.Error(err)
					}
					select {
					case reached <- struct{}{}:
					default:
					}
				}
			})
		}
		n := 0
		job(func() error { n++; _, err := v.CreateItem(t.Context(), fmt.Sprint("new", n), now); return err })
		job(func() error { return v.NewGeneration(t.Context(), "item001", now) })
		job(func() error { return commit(t.Context(), it, &catalog.Point{Item: "item000"}) })
		job(func() error {
			_, err := v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(k, spare)[:1+i%2], Parallel: 3})
			return err
		})
		job(func() error { _, err := v.Items(t.Context()); return err })
		for range i % 20 {
			<-reached
		}
		v.Close()
		wg.Wait()
		it.Close()
		after := open(t, st, id, k, spare)
		for key, err := range after.CheckRecords(t.Context()) {
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
		}
		secretsOf(t, after)
		again, err := after.Item(t.Context(), "item000")
		check(t, err)
		names, err := again.Points(t.Context())
		check(t, err)
		for _, name := range names {
			if _, err := again.Point(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestForget: secrets are unwrapped anew, and who uses one goes on.
func TestForget(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, k)
	it := item(t, v, "etc")
	s, err := it.Secret(t.Context(), 1)
	check(t, err)
	v.Forget()
	gone := k
	gone.fault = kek.ErrUnreachable
	v.UseRing(kek.NewRing(gone))
	_, err = it.Secret(t.Context(), 1)
	is(t, "a secret whose key is away", err, kek.ErrUnreachable)
	if _, err := s.Polynomial(); err != nil {
		t.Errorf("a secret in use: %v", err)
	}
	v.UseRing(kek.NewRing(k))
	again, err := it.Secret(t.Context(), 1)
	if err != nil || again == s || string(again.Commitment()) != string(s.Commitment()) {
		t.Errorf("%v, %v", again, err)
	}
	it.Close()
	for _, s := range []*crypt.Secret{s, again} {
		if _, err := s.Polynomial(); !errors.Is(err, crypt.ErrClosed) {
			t.Errorf("after Close of the item: %v", err)
		}
	}
}

// TestSecretsOutliveTheirKeys: an item that was open before opens while its key is
// away, until the vault is told to forget or closed.
func TestSecretsOutliveTheirKeys(t *testing.T) {
	k := newToken("main", kek.PKCS11)
	v := create(t, newStore(), catalog.CustomerManaged, k)
	it := item(t, v, "etc")
	_, err := it.Secret(t.Context(), 1)
	check(t, err)
	it.Close()
	gone := k
	gone.fault = kek.ErrUnreachable
	v.UseRing(kek.NewRing(gone))
	again, err := v.Item(t.Context(), "etc")
	check(t, err)
	_, err = again.Secret(t.Context(), 1)
	check(t, err)
	again.Close()
	v.Forget()
	again, err = v.Item(t.Context(), "etc")
	check(t, err)
	defer again.Close()
	_, err = again.Secret(t.Context(), 1)
	is(t, "after Forget", err, kek.ErrUnreachable)
}
