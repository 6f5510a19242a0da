package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/storetest"
)

// many makes a vault of n items, the first of which has two generations.
func many(t testing.TB, st *mem.Store, n int, mode catalog.Mode, keys ...kek.Key) *catalog.Vault {
	t.Helper()
	v := create(t, st, mode, keys...)
	for i := range n {
		item(t, v, fmt.Sprintf("item%03d", i)).Close()
	}
	check(t, v.NewGeneration(t.Context(), "item000", now))
	return v
}

// TestRewrapSurvivesEveryCrash: whatever write a rotation dies at, old and new keys
// open the vault, one or the other opens every item, and the next rotation ends it.
func TestRewrapSurvivesEveryCrash(t *testing.T) {
	old, spare, fresh := newToken("old", kek.PKCS11), newToken("spare", kek.PKCS11), newToken("fresh", kek.KeyVault)
	good := newStore()
	v := many(t, good, 100, catalog.CustomerManaged, old, spare)
	want := secretsOf(t, open(t, good, v.ID(), old))
	opts := catalog.RewrapOptions{Wrappers: wrappers(fresh, spare)}
	rewrap := func(objects catalog.Objects) (catalog.Rewrapped, error) {
		v, err := catalog.Open(t.Context(), objects, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(fresh, old)})
		if err != nil {
			return catalog.Rewrapped{}, err
		}
		defer v.Close()
		return v.Rewrap(t.Context(), opts)
	}
	count := storetest.NewCrash(0, storetest.Applied)
	done, err := rewrap(count.Store(good.Clone()))
	check(t, err)
	if done.Secrets != 102 || done.Done != 102 || done.Skipped != 0 || done.Unwraps != 102 || done.Made != 0 || count.Writes() != 103 {
		t.Errorf("%+v with %d writes", done, count.Writes())
	}
	dies := func(t *testing.T, n int, how storetest.Outcome) {
		st := good.Clone()
		if _, err := rewrap(storetest.NewCrash(n, how).Store(st)); !errors.Is(err, storetest.ErrCrashed) {
			t.Fatalf("write %d %v: %v", n, how, err)
		}
		last := n == count.Writes() && how == storetest.Applied
		if n > 1 && !last {
			open(t, st, v.ID(), fresh)
			open(t, st, v.ID(), old)
		}
		if got := secretsOf(t, open(t, st, v.ID(), fresh, old)); !maps.Equal(got, want) {
			t.Fatalf("write %d %v: secrets are lost", n, how)
		}
		before := len(keys(t, st, "keys/"))
		again, err := rewrap(st)
		if err != nil || again.Done+again.Skipped != 102 || len(keys(t, st, "keys/"))-before > 103-n+1 {
			t.Fatalf("after write %d %v: %+v, %v", n, how, again, err)
		}
		left := []token{fresh, spare}[n%2]
		if got := secretsOf(t, open(t, st, v.ID(), left)); !maps.Equal(got, want) {
			t.Fatalf("after write %d %v: secrets are lost to key %s", n, how, left.ref.Name)
		}
		for _, r := range records(t, open(t, st, v.ID(), left)) {
			if !wrappedBy(r, fresh, spare) {
				t.Fatalf("after write %d %v: %s is wrapped by %v", n, how, r.Item, r.Wrappings)
			}
		}
		_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(old)})
		is(t, "the old key", err, kek.ErrNoKey)
	}
	for _, how := range []storetest.Outcome{storetest.NotApplied, storetest.Applied} {
		t.Run(how.String(), func(t *testing.T) {
			t.Parallel()
			for n := 1; n <= count.Writes(); n++ {
				dies(t, n, how)
			}
			t.Logf("%d crash points", count.Writes())
		})
	}
}

// TestRewrapsAtOnce: two agents that rotate at the same time.
func TestRewrapsAtOnce(t *testing.T) {
	old, b, c := newToken("old", kek.PKCS11), newToken("b", kek.PKCS11), newToken("c", kek.PKCS11)
	for name, targets := range map[string][2]token{"to one key": {b, b}, "to two keys": {b, c}} {
		st := newStore()
		v := many(t, st, 60, catalog.CustomerManaged, old)
		want := secretsOf(t, v)
		var wg sync.WaitGroup
		for _, k := range targets {
			agent, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(old, b, c), Floors: newSeen()})
			check(t, err)
			wg.Go(func() {
				if done, err := agent.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(k), Parallel: 4}); err != nil || done.Done+done.Skipped != 62 {
					t.Errorf("%s: %+v, %v", name, done, err)
				}
			})
		}
		wg.Wait()
		if got := secretsOf(t, open(t, st, v.ID(), b, c)); !maps.Equal(got, want) {
			t.Errorf("%s: secrets are lost", name)
		}
		for _, r := range records(t, open(t, st, v.ID(), b, c)) {
			if targets[0].ref.Name == targets[1].ref.Name && !wrappedBy(r, b) || has1(r, old) {
				t.Errorf("%s: %q is wrapped by %v", name, r.Item, r.Wrappings)
			}
		}
	}
}

// TestRewrapTouchesOnlyKeyRecords, and none that is as it should be.
func TestRewrapTouchesOnlyKeyRecords(t *testing.T) {
	old, fresh := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, old)
	it, p := backedUp(t, v, st, "etc", "some data")
	it.Close()
	before := make(map[store.Key]string)
	for _, key := range keys(t, st, "") {
		before[key] = string(read(t, st, key))
	}
	var told catalog.Rewrapped
	opts := catalog.RewrapOptions{Wrappers: wrappers(fresh, fresh), Progress: func(r catalog.Rewrapped) { told = r }}
	v = open(t, st, v.ID(), old, fresh)
	done, err := v.Rewrap(t.Context(), opts)
	check(t, err)
	if done != told || done.Done != 2 {
		t.Errorf("%+v, and the last that was told is %+v", done, told)
	}
	var bytes int64
	for _, key := range keys(t, st, "") {
		if was, ok := before[key]; ok && was != string(read(t, st, key)) {
			t.Errorf("%s was changed", key)
		} else if !ok {
			bytes += int64(len(read(t, st, key)))
			if !strings.HasPrefix(string(key), "keys/") {
				t.Errorf("%s was made", key)
			}
		}
	}
	if bytes != done.Bytes {
		t.Errorf("%d bytes were written, %d are told of", bytes, done.Bytes)
	}
	count := storetest.NewCrash(0, storetest.Applied)
	done, err = open(t, count.Store(st), v.ID(), fresh).Rewrap(t.Context(), opts)
	check(t, err)
	if done != (catalog.Rewrapped{Secrets: 2, Skipped: 2}) || count.Writes() != 0 {
		t.Errorf("again: %+v, with %d writes", done, count.Writes())
	}
	again, err := open(t, st, v.ID(), fresh).Item(t.Context(), "etc")
	check(t, err)
	if _, err := again.Point(t.Context(), p.Name); err != nil {
		t.Error(err)
	}
	if !made(again).Equal(made(it)) {
		t.Errorf("the generation was made %v, and now %v", made(it), made(again))
	}
}

// TestRewrapKeeps what belongs to a key that does not answer, and nothing else.
func TestRewrapKeeps(t *testing.T) {
	silent, other, fresh := newToken("silent", kek.PKCS11), newToken("other", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	v := many(t, st, 3, catalog.CustomerManaged, silent, other)
	down := silent
	down.fault = kek.ErrUnreachable
	opts := catalog.RewrapOptions{Wrappers: wrappers(fresh), Keep: func(w kek.Wrapped) bool { return w.Fingerprint == silent.ref.Fingerprint }}
	for want := range 2 { // the second time there is nothing to do
		done, err := open(t, st, v.ID(), down, other, fresh).Rewrap(t.Context(), opts)
		if err != nil || want == 1 && done.Done != 0 {
			t.Errorf("%+v, %v", done, err)
		}
		for _, r := range records(t, v) {
			if !wrappedBy(r, silent, fresh) {
				t.Errorf("%q: %v", r.Item, r.Wrappings)
			}
		}
	}
}

// TestRewrapUsesOpenSecrets: what is open already is not unwrapped once more.
func TestRewrapUsesOpenSecrets(t *testing.T) {
	old, fresh := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	id := many(t, st, 3, catalog.CustomerManaged, old).ID()
	v := open(t, st, id, old, fresh)
	it, err := v.Item(t.Context(), "item001")
	check(t, err)
	s, err := it.Secret(t.Context(), 1)
	check(t, err)
	before := old.unwraps.Load()
	done, err := v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(fresh)})
	check(t, err)
	if n := old.unwraps.Load() - before; n != 3 || done.Unwraps != 4 { // and one by the new key, to prove it
		t.Errorf("%d unwraps by the old key, want 3; told of %d", n, done.Unwraps)
	}
	if _, err := s.Polynomial(); err != nil {
		t.Errorf("the secret that was in use is closed: %v", err)
	}
}

// TestRewrapRefuses what would lose a secret, and writes nothing then.
func TestRewrapRefuses(t *testing.T) {
	old, fresh, soft := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11), newToken("soft", kek.Software)
	escrow := newToken("escrow", kek.Escrow)
	spoiled := func(spoil func(*kek.Wrapped)) token {
		k := fresh
		k.spoil = spoil
		return k
	}
	denied := fresh
	denied.fault = kek.ErrDenied
	for name, test := range map[string]struct {
		keys []kek.Key
		opts catalog.RewrapOptions
		want error
	}{
		"no key":                  {nil, catalog.RewrapOptions{}, kek.ErrNoKey},
		"escrow alone":            {nil, catalog.RewrapOptions{Wrappers: wrappers(escrow)}, kek.ErrNoKey},
		"a software key":          {[]kek.Key{soft}, catalog.RewrapOptions{Wrappers: wrappers(fresh, soft)}, catalog.ErrMode},
		"a lower mode":            {[]kek.Key{soft}, catalog.RewrapOptions{Wrappers: wrappers(soft), Mode: catalog.SoftwareKeys}, catalog.ErrMode},
		"no mode at all":          {nil, catalog.RewrapOptions{Wrappers: wrappers(old), Mode: 3}, catalog.ErrMode},
		"a key that is denied":    {[]kek.Key{denied}, catalog.RewrapOptions{Wrappers: wrappers(denied)}, kek.ErrDenied},
		"another's fingerprint":   {nil, catalog.RewrapOptions{Wrappers: wrappers(spoiled(func(w *kek.Wrapped) { w.Fingerprint[0] ^= 1 }))}, kek.ErrWrongKey},
		"half a wrapping":         {nil, catalog.RewrapOptions{Wrappers: wrappers(spoiled(func(w *kek.Wrapped) { w.Ciphertext = w.Ciphertext[:128] }))}, kek.ErrWrongKey},
		"another secret":          {[]kek.Key{fresh}, catalog.RewrapOptions{Wrappers: wrappers(spoiled(func(w *kek.Wrapped) { w.Ciphertext[5] ^= 1 }))}, crypt.ErrDamaged},
		"a secret without length": {[]kek.Key{fresh}, catalog.RewrapOptions{Wrappers: wrappers(spoiled(func(w *kek.Wrapped) { w.Ciphertext[0] ^= 1 }))}, crypt.ErrDamaged},
	} {
		st := newStore()
		id := many(t, st, 2, catalog.CustomerManaged, old).ID()
		count := storetest.NewCrash(0, storetest.Applied)
		_, err := open(t, count.Store(st), id, append(test.keys, old)...).Rewrap(t.Context(), test.opts)
		is(t, name, err, test.want)
		if count.Writes() != 0 {
			t.Errorf("%s: %d writes", name, count.Writes())
		}
		secretsOf(t, open(t, st, id, old))
	}
}

// TestRewrapGoesOnWithoutDamagedItems: the others are wrapped, the error tells of
// it, the old key stays on the vault key, and the mode as it is.
func TestRewrapGoesOnWithoutDamagedItems(t *testing.T) {
	soft, hsm := newToken("soft", kek.Software), newToken("hsm", kek.PKCS11)
	st := newStore()
	v := many(t, st, 4, catalog.SoftwareKeys, soft)
	id, err := v.ItemID("item002")
	check(t, err)
	bad := store.Key("keys/" + id.String() + "/00000001-00000001")
	good := read(t, st, bad)
	tamper(t, st, bad, func(b []byte) []byte { b[40] ^= 1; return b })
	opts := catalog.RewrapOptions{Wrappers: wrappers(hsm), Mode: catalog.CustomerManaged}
	_, err = open(t, st, v.ID(), hsm, soft).Rewrap(t.Context(), opts)
	is(t, "with a damaged item", err, crypt.ErrDamaged)
	if v := open(t, st, v.ID(), soft); v.Mode() != catalog.SoftwareKeys {
		t.Errorf("the vault is %v", v.Mode())
	}
	for r, err := range v.KeyRecords(t.Context()) {
		if err == nil && r.Item != "" && !wrappedBy(r, hsm) {
			t.Errorf("%s: %v", r.Item, r.Wrappings)
		}
	}
	tamper(t, st, bad, func([]byte) []byte { return good })
	_, err = open(t, st, v.ID(), hsm, soft).Rewrap(t.Context(), opts)
	check(t, err)
	if v := open(t, st, v.ID(), hsm); v.Mode() != catalog.CustomerManaged {
		t.Errorf("the vault is %v", v.Mode())
	}
}

// TestRewrapStopsWhenAKeyIsAway: a key that does not answer is not asked for each
// of a thousand items.
func TestRewrapStopsWhenAKeyIsAway(t *testing.T) {
	old, fresh := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	id := many(t, st, 50, catalog.CustomerManaged, old).ID()
	v := open(t, st, id, old, fresh)
	gone := old
	gone.fault = kek.ErrUnreachable
	v.UseRing(kek.NewRing(gone, fresh))
	before := old.unwraps.Load()
	_, err := v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(fresh), Parallel: 2})
	is(t, "a key that is away", err, kek.ErrUnreachable)
	if n := old.unwraps.Load() - before; n > 8 {
		t.Errorf("it was asked %d times", n)
	}
	open(t, st, id, old)
	open(t, st, id, fresh)
}

// TestRewrapPassesRubbish: what somebody put in the place of the vault key's next
// record stands in nobody's way.
func TestRewrapPassesRubbish(t *testing.T) {
	old, fresh := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	id := many(t, st, 1, catalog.CustomerManaged, old).ID()
	for _, epoch := range []string{"2", "3", "5"} {
		put(t, st, store.Key("keys/vault/00000001-0000000"+epoch), []byte("rubbish"))
	}
	_, err := open(t, st, id, old, fresh).Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(fresh)})
	check(t, err)
	secretsOf(t, open(t, st, id, fresh))
	_, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: kek.NewRing(old)})
	is(t, "the old key", err, kek.ErrNoKey)
}

// TestRewrapIsCancelled between two secrets.
func TestRewrapIsCancelled(t *testing.T) {
	old, fresh := newToken("old", kek.PKCS11), newToken("fresh", kek.PKCS11)
	st := newStore()
	id := many(t, st, 20, catalog.CustomerManaged, old).ID()
	ctx, cancel := context.WithCancel(t.Context())
	done, err := open(t, st, id, old, fresh).Rewrap(ctx, catalog.RewrapOptions{Wrappers: wrappers(fresh), Progress: func(r catalog.Rewrapped) {
		if r.Done == 5 {
			cancel()
		}
	}})
	is(t, "a rotation that is cancelled", err, context.Canceled)
	if done.Done > 6 {
		t.Errorf("%+v", done)
	}
	secretsOf(t, open(t, st, id, old, fresh))
}
