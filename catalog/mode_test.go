package catalog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/storetest"
)

// TestRaiseSurvivesEveryCrash: the mode never says customer-managed while a current
// record has a software key, and in the end every item has one new generation.
func TestRaiseSurvivesEveryCrash(t *testing.T) {
	soft, hsm, escrow := newToken("soft", kek.Software), newToken("hsm", kek.PKCS11), newToken("escrow", kek.Escrow)
	good := newStore()
	v := many(t, good, 5, catalog.SoftwareKeys, soft)
	want := secretsOf(t, v)
	rewrap := func(objects catalog.Objects) (catalog.Rewrapped, error) {
		v, err := catalog.Open(t.Context(), objects, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(hsm, soft)})
		if err != nil {
			return catalog.Rewrapped{}, err
		}
		defer v.Close()
		return v.Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: append(wrappers(hsm), escrow), Mode: catalog.CustomerManaged,
			Keep: func(kek.Wrapped) bool { return true }}) // which does not hold for software keys
	}
	honest := func(what string, st *mem.Store) []catalog.KeyRecord {
		t.Helper()
		v := open(t, st, v.ID(), hsm, soft)
		all := records(t, v)
		for _, r := range all {
			if v.Mode() == catalog.CustomerManaged && has1(r, soft) {
				t.Fatalf("%s: the vault says that it is %v, and %q generation %d has a software key", what, v.Mode(), r.Item, r.Generation)
			}
		}
		return all
	}
	count := storetest.NewCrash(0, storetest.Applied)
	done, err := rewrap(count.Store(good.Clone()))
	check(t, err)
	if done.Made != 5 || done.Secrets != 12 || done.Done != 12 || done.Skipped != 0 {
		t.Errorf("%+v", done)
	}
	for n := 1; n <= count.Writes(); n++ {
		for _, how := range []storetest.Outcome{storetest.NotApplied, storetest.Applied} {
			what := fmt.Sprintf("write %d %v", n, how)
			st := good.Clone()
			if _, err := rewrap(storetest.NewCrash(n, how).Store(st)); !errors.Is(err, storetest.ErrCrashed) {
				t.Fatalf("%s: %v", what, err)
			}
			honest(what, st)
			_, err := rewrap(st)
			check(t, err)
			all := honest("after "+what, st)
			if len(all) != 12 { // 5 items of 1 generation and 1 of 2 more, and the vault key
				t.Fatalf("after %s: %d secrets, want 12", what, len(all))
			}
			for _, k := range []token{hsm, escrow} {
				got := secretsOf(t, open(t, st, v.ID(), k))
				for name, c := range want {
					if got[name] != c {
						t.Fatalf("after %s: the secret of %s is lost to %s", what, name, k.ref.Name)
					}
				}
			}
			if v := open(t, st, v.ID(), hsm); v.Mode() != catalog.CustomerManaged {
				t.Fatalf("after %s: %v", what, v.Mode())
			}
		}
	}
}

// TestRaiseSeesWhatOthersMake: an item that another agent makes under a software key
// while the mode is being raised does not stay under it.
func TestRaiseSeesWhatOthersMake(t *testing.T) {
	soft, hsm := newToken("soft", kek.Software), newToken("hsm", kek.PKCS11)
	st := newStore()
	v := create(t, st, catalog.SoftwareKeys, soft)
	item(t, v, "etc").Close()
	other := open(t, st, v.ID(), soft)
	var once sync.Once
	hooked := storetest.NewFaulty(st, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.Put && !strings.HasPrefix(string(op.Key), "keys/vault/") {
			once.Do(func() { item(t, other, "late").Close() })
		}
		return storetest.Fault{}
	})
	_, err := open(t, hooked, v.ID(), hsm, soft).Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: wrappers(hsm), Mode: catalog.CustomerManaged})
	check(t, err)
	all := records(t, open(t, st, v.ID(), hsm))
	if len(all) != 5 {
		t.Errorf("%d secrets, want 5: two generations of each item", len(all))
	}
	for _, r := range all {
		if !wrappedBy(r, hsm) {
			t.Errorf("%q generation %d: %v", r.Item, r.Generation, r.Wrappings)
		}
	}
	// The other agent opened the vault before, and finds out all the same.
	_, err = other.CreateItem(t.Context(), "later", now)
	is(t, "an item under a software key", err, catalog.ErrMode)
	if other.Mode() != catalog.CustomerManaged {
		t.Errorf("the other agent still believes in %v", other.Mode())
	}
}

// TestModeForbidsSoftwareKeys wherever something is wrapped.
func TestModeForbidsSoftwareKeys(t *testing.T) {
	hsm, soft := newToken("hsm", kek.PKCS11), newToken("soft", kek.Software)
	_, err := catalog.Create(t.Context(), newStore(), catalog.CreateOptions{Mode: catalog.CustomerManaged, Ring: kek.NewRing(hsm, soft), Now: now})
	is(t, "create", err, catalog.ErrMode)
	st := newStore()
	v := create(t, st, catalog.CustomerManaged, hsm)
	item(t, v, "etc").Close()
	v.UseRing(kek.NewRing(hsm, soft))
	_, err = v.CreateItem(t.Context(), "vm1", now)
	is(t, "an item", err, catalog.ErrMode)
	is(t, "a generation", v.NewGeneration(t.Context(), "etc", now), catalog.ErrMode)
	if n := len(keys(t, st, "keys/")); n != 2 {
		t.Errorf("%d key records, want 2", n)
	}
	v.UseRing(kek.NewRing(hsm, soft).WrapWith(hsm)) // it may open
	item(t, v, "vm1").Close()
}
