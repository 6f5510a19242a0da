package catalog_test

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// token is a key without RSA: it hides a secret by a pad of its own, so that tests of
// thousands of wrappings end. What it wraps is as long as RSA's.
type token struct {
	ref     kek.Ref
	unwraps *atomic.Int64
	fault   error              // of every Unwrap
	spoil   func(*kek.Wrapped) // what it wraps; nil: it is right
}

func newToken(name string, provider kek.Provider) token {
	return token{unwraps: new(atomic.Int64), ref: kek.Ref{Name: name, Provider: provider, URI: "pkcs11:object=" + name, Bits: 2048,
		Algorithm: kek.OAEPSHA256, Fingerprint: sha256.Sum256([]byte(name))}}
}

func (k token) Ref() kek.Ref                { return k.ref }
func (k token) Check(context.Context) error { return k.fault }
func (k token) Close() error                { return nil }

func (k token) Wrap(secret []byte) (kek.Wrapped, error) {
	c := make([]byte, 256)
	c[0] = byte(len(secret))
	copy(c[1:], secret)
	w := kek.Wrapped{Provider: k.ref.Provider, URI: k.ref.URI, Version: k.ref.Version, Fingerprint: k.ref.Fingerprint,
		Algorithm: k.ref.Algorithm, Ciphertext: k.pad(c)}
	if k.spoil != nil {
		k.spoil(&w)
	}
	return w, nil
}

func (k token) Unwrap(_ context.Context, w kek.Wrapped) ([]byte, error) {
	k.unwraps.Add(1)
	if k.fault != nil {
		return nil, k.fault
	}
	if err := kek.CheckWrapped(k.ref, w); err != nil {
		return nil, err
	}
	c := k.pad(w.Ciphertext)
	return c[1 : 1+c[0]], nil
}

func (k token) pad(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ k.ref.Fingerprint[i%32] ^ byte(i)
	}
	return out
}

// seen is floors in memory.
type seen struct {
	mu     sync.Mutex
	epochs map[string]map[uint32]uint32
}

func newSeen() *seen { return &seen{epochs: make(map[string]map[uint32]uint32)} }

func (s *seen) Floor(owner string, generation uint32) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epochs[owner][generation]
}

func (s *seen) Raise(owner string, generation, epoch uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epochs[owner] == nil {
		s.epochs[owner] = make(map[uint32]uint32)
	}
	s.epochs[owner][generation] = max(s.epochs[owner][generation], epoch)
}

// create makes a vault of these keys.
func create(t testing.TB, st catalog.Objects, mode catalog.Mode, keys ...kek.Key) *catalog.Vault {
	t.Helper()
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: mode, Ring: kek.NewRing(keys...), Now: now})
	check(t, err)
	return v
}

// open opens the vault with these keys.
func open(t testing.TB, st catalog.Objects, id crypt.VaultID, keys ...kek.Key) *catalog.Vault {
	t.Helper()
	v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: kek.NewRing(keys...)})
	check(t, err)
	return v
}

func wrappers(keys ...kek.Key) []kek.Wrapper { return kek.NewRing(keys...).Wrappers() }

func records(t testing.TB, v *catalog.Vault) []catalog.KeyRecord {
	t.Helper()
	var out []catalog.KeyRecord
	for r, err := range v.KeyRecords(t.Context()) {
		check(t, err)
		out = append(out, r)
	}
	return out
}

// wrappedBy tells whether a record has wrappings of exactly these keys.
func wrappedBy(r catalog.KeyRecord, keys ...token) bool {
	if len(r.Wrappings) != len(keys) {
		return false
	}
	for _, k := range keys {
		if !has1(r, k) {
			return false
		}
	}
	return true
}

func has1(r catalog.KeyRecord, k token) bool {
	for _, w := range r.Wrappings {
		if w.Fingerprint == k.ref.Fingerprint && w.Provider == k.ref.Provider {
			return true
		}
	}
	return false
}

// secretsOf opens every secret of the vault and returns what each commits to.
func secretsOf(t testing.TB, v *catalog.Vault) map[string]string {
	t.Helper()
	out := make(map[string]string)
	items, err := v.Items(t.Context())
	check(t, err)
	for _, it := range items {
		for _, r := range it.KeyRecords() {
			s, err := it.Secret(t.Context(), r.Generation)
			if err != nil {
				t.Fatalf("%s, generation %d: %v", it.Name(), r.Generation, err)
			}
			out[it.Name()+string(rune('0'+r.Generation))] = string(s.Commitment())
		}
		it.Close()
	}
	return out
}

// backedUp is an item with a pack, an index of it and a point.
func backedUp(t testing.TB, v *catalog.Vault, st store.Putter, name, data string) (*catalog.Item, *catalog.Point) {
	t.Helper()
	it := item(t, v, name)
	c := addPack(t, st, it, data)
	_, _, err := it.PutIndex(t.Context(), []pack.Contents{c}, store.PutOptions{})
	check(t, err)
	p := &catalog.Point{Item: name, Started: now.UnixNano(), Packs: []pack.ID{c.Pack}}
	check(t, commit(t.Context(), it, p))
	return it, p
}
