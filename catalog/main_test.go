package catalog_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

var now = time.Date(2026, 11, 22, 9, 0, 3, 500, time.UTC)

// key is an RSA key in memory that counts what it is asked.
type key struct {
	priv    *rsa.PrivateKey
	ref     kek.Ref
	unwraps *atomic.Int64
	fault   error // of every Unwrap
}

func newKey(t testing.TB, name string) key {
	t.Helper()
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	fingerprint, err := kek.FingerprintOf(&priv.PublicKey)
	check(t, err)
	return key{priv: priv, unwraps: new(atomic.Int64), ref: kek.Ref{Name: name, Provider: kek.PKCS11, URI: "pkcs11:object=" + name,
		Bits: 2048, Algorithm: kek.OAEPSHA256, Fingerprint: fingerprint}}
}

func (k key) Ref() kek.Ref { return k.ref }

// Wrap needs the public half alone, as it does for anybody who has it.
func (k key) Wrap(secret []byte) (kek.Wrapped, error) {
	c, err := kek.WrapRSA(&k.priv.PublicKey, k.ref.Algorithm, secret)
	return kek.Wrapped{Provider: k.ref.Provider, URI: k.ref.URI, Fingerprint: k.ref.Fingerprint, Algorithm: k.ref.Algorithm, Ciphertext: c}, err
}

func (k key) Unwrap(_ context.Context, w kek.Wrapped) ([]byte, error) {
	k.unwraps.Add(1)
	if k.fault != nil {
		return nil, k.fault
	}
	if err := kek.CheckWrapped(k.ref, w); err != nil {
		return nil, err
	}
	hash, err := w.Algorithm.Hash()
	if err != nil {
		return nil, err
	}
	secret, err := rsa.DecryptOAEP(hash.New(), nil, k.priv, w.Ciphertext, nil)
	if err != nil {
		return nil, kek.ErrWrongKey
	}
	return secret, nil
}

func (k key) Check(context.Context) error { return k.fault }
func (k key) Close() error                { return nil }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// vault makes a vault of one key.
func vault(t testing.TB, st store.Store, k kek.Key) *catalog.Vault {
	t.Helper()
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.CustomerManaged, Ring: kek.NewRing(k), Now: now})
	check(t, err)
	return v
}

func item(t testing.TB, v *catalog.Vault, name string) *catalog.Item {
	t.Helper()
	it, err := v.CreateItem(t.Context(), name, now)
	check(t, err)
	return it
}

// commit writes a point under the name of a session of its own.
func commit(ctx context.Context, it *catalog.Item, p *catalog.Point) error {
	s, err := it.Begin(ctx, time.Unix(0, p.Started), "host")
	if err != nil {
		return err
	}
	p.Name = s.Name
	return it.PutPoint(ctx, p, store.PutOptions{})
}

func keys(t testing.TB, st store.Lister, prefix store.Key) []store.Key {
	t.Helper()
	var keys []store.Key
	for info, err := range st.List(t.Context(), prefix) {
		check(t, err)
		keys = append(keys, info.Key)
	}
	return keys
}

func read(t testing.TB, st store.Getter, key store.Key) []byte {
	t.Helper()
	b, err := store.ReadAll(t.Context(), st, key, store.MaxObject)
	check(t, err)
	return b
}

func put(t testing.TB, st store.Putter, key store.Key, b []byte) {
	t.Helper()
	check(t, st.Put(t.Context(), key, store.Body{b}, store.PutOptions{}))
}

func tamper(t testing.TB, st *mem.Store, key store.Key, change func([]byte) []byte) {
	t.Helper()
	check(t, st.Tamper(key, change))
}

// record makes a record by docs/format.md, 3.
func record(vk *crypt.VaultKey, magic string, key store.Key, body []byte) []byte {
	b := append([]byte(magic), binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	mac, err := vk.MAC(string(key), body)
	if err != nil {
		panic(err) // a test closed the key it forges with
	}
	b = append(append(b, body...), mac...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// bodyOf returns the body of a record.
func bodyOf(b []byte) []byte { return b[12 : len(b)-36] }

// addPack puts a pack of one chunk and tells what it holds.
func addPack(t testing.TB, st store.Putter, it *catalog.Item, data string) pack.Contents {
	t.Helper()
	s, err := it.Secret(t.Context(), it.Generation())
	check(t, err)
	namer, err := s.Namer()
	check(t, err)
	b := pack.NewBuilder(s, it.ID(), it.Generation(), nil)
	slot, _ := b.Reserve(pack.Frame{Type: pack.Data, Raw: uint32(len(data)),
		Chunks: []pack.Chunk{{ID: namer.ID([]byte(data)), Length: uint32(len(data))}}}, len(data))
	_, _, err = slot.Seal([]byte(data), nil)
	check(t, err)
	b.Close()
	body, contents, err := b.Finish()
	check(t, err)
	check(t, st.Put(t.Context(), pack.Key(it.ID(), contents.Pack), body, store.PutOptions{}))
	return contents
}

// local is a local index in memory.
type local struct {
	mu      sync.Mutex
	sources map[string]struct{}
	packs   map[pack.ID]pack.Contents
	named   map[pack.ID]bool // an index object names it
	running bool
	resets  int
}

func newLocal() *local {
	return &local{sources: make(map[string]struct{}), packs: make(map[pack.ID]pack.Contents), named: make(map[pack.ID]bool)}
}

func (l *local) Sources(context.Context) (map[string]struct{}, error) {
	return maps.Clone(l.sources), nil
}

func (l *local) Add(_ context.Context, source string, contents []pack.Contents) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if source != "" {
		l.sources[source] = struct{}{}
	}
	for _, c := range contents {
		l.packs[c.Pack] = c
		l.named[c.Pack] = l.named[c.Pack] || source != ""
	}
	return nil
}

func (l *local) Unsourced(context.Context) ([]pack.Contents, error) {
	var out []pack.Contents
	for id, c := range l.packs {
		if !l.named[id] {
			out = append(out, c)
		}
	}
	return out, nil
}

func (l *local) Packs(context.Context) iter.Seq2[pack.ID, error] {
	return func(yield func(pack.ID, error) bool) {
		for id := range l.packs {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func (l *local) Forget(_ context.Context, packs []pack.ID) error {
	for _, id := range packs {
		delete(l.packs, id)
		delete(l.named, id)
	}
	return nil
}

func (l *local) Disown(context.Context) error {
	clear(l.sources)
	clear(l.named)
	l.resets++
	return nil
}

func (l *local) Begin(context.Context) (bool, error) {
	was := l.running
	l.running = true
	return was, nil
}

func (l *local) End(context.Context) error {
	l.running = false
	return nil
}

// Lookup finds a chunk as the index on disk would.
func (l *local) Lookup(_ context.Context, id chunk.ID) (pack.Location, bool, error) {
	for _, c := range l.packs {
		for at, loc := range c.Locations {
			if at == id {
				return loc, true, nil
			}
		}
	}
	return pack.Location{}, false, nil
}

func (l *local) ids() []string {
	var ids []string
	for id := range l.packs {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	return ids
}

func ids(contents ...pack.Contents) []string {
	var ids []string
	for _, c := range contents {
		ids = append(ids, c.Pack.String())
	}
	slices.Sort(ids)
	return ids
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func newStore() *mem.Store { return mem.New(mem.Config{}) }

func has(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

// made tells when the newest generation of an item was made.
func made(it *catalog.Item) time.Time {
	records := it.KeyRecords()
	return records[len(records)-1].Made
}
