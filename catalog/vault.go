// Package catalog is what a vault consists of: its descriptor, key records, items
// and points, as objects in a store, and the access to them under the vault key.
//
//	vault                                     descriptor, never rewritten
//	keys/<vault or item>/<generation>-<epoch> key records
//	items/<item>/points/<time>-<random>       points, sealed; the write of one is the commit of a backup
//	items/<item>/index/<random>               what packs hold, sealed
//	items/<item>/packs/<xx>/<random>          packs (package pack)
//
// Invariants:
//   - Objects are written once. A later state is a further object.
//   - Nothing that is not authenticated is acted on: a vault opens only under the
//     id that the caller pins, and records only with their MAC.
//   - Packs are written before the index that names them, and that before the
//     point that needs them. A crash between leaves packs that Sync finds again.
//
// docs/format.md is normative for the bytes.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// Errors of this package.
var (
	// ErrNoVault: the store holds no vault.
	ErrNoVault = errors.New("store holds no vault")
	// ErrOtherVault: the store holds a vault with another id than the one pinned.
	ErrOtherVault = errors.New("store holds another vault")
	// ErrVaultExists: a vault cannot be made where one is.
	ErrVaultExists = errors.New("store holds a vault already")
	// ErrNoItem: the vault has no item of that name.
	ErrNoItem = errors.New("no such item in the vault")
	// ErrNoPoint: the item has no such point.
	ErrNoPoint = errors.New("no such point")
)

// Mode says who holds the keys of a vault. It may be raised and never lowered.
type Mode uint8

// The modes.
const (
	SoftwareKeys    Mode = 1
	CustomerManaged Mode = 2
)

func (m Mode) String() string {
	switch m {
	case SoftwareKeys:
		return "software"
	case CustomerManaged:
		return "customer-managed"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// Objects is what the catalog needs of a store: it never deletes.
type Objects interface {
	store.Getter
	store.Putter
	store.Lister
}

const descriptorKey store.Key = "vault"

// suite names the algorithms of format version 1.
const suite = "AES-256-GCM, HKDF-SHA256, HMAC-SHA256, RSA-OAEP"

// descriptor is the body of the object "vault".
type descriptor struct {
	Vault   crypt.VaultID `cbor:"1,keyasint"`
	Suite   string        `cbor:"2,keyasint"`
	Created int64         `cbor:"3,keyasint"` // unix seconds
}

// keyRecord is the body of a key record, of the vault or of an item.
type keyRecord struct {
	Vault      crypt.VaultID `cbor:"1,keyasint"`
	Item       []byte        `cbor:"2,keyasint,omitempty"` // item id; none for the vault key
	Generation uint32        `cbor:"3,keyasint"`
	Epoch      uint32        `cbor:"4,keyasint"`
	Created    int64         `cbor:"5,keyasint"` // unix seconds
	Mode       Mode          `cbor:"6,keyasint,omitempty"`
	Name       []byte        `cbor:"7,keyasint,omitempty"` // item: its name, sealed
	Commitment []byte        `cbor:"8,keyasint,omitempty"` // item: to the secret
	Wrappings  []wrapping    `cbor:"9,keyasint"`
}

type wrapping struct {
	_           struct{} `cbor:",toarray"`
	Provider    string
	URI         string
	Version     string
	Fingerprint kek.Fingerprint
	Algorithm   kek.Algorithm
	Ciphertext  []byte
}

func (r *keyRecord) wrapped() []kek.Wrapped {
	out := make([]kek.Wrapped, len(r.Wrappings))
	for i, w := range r.Wrappings {
		out[i] = kek.Wrapped{Provider: kek.Provider(w.Provider), URI: w.URI, Version: w.Version,
			Fingerprint: w.Fingerprint, Algorithm: w.Algorithm, Ciphertext: w.Ciphertext}
	}
	return out
}

func wrappings(in []kek.Wrapped) []wrapping {
	out := make([]wrapping, len(in))
	for i, w := range in {
		out[i] = wrapping{Provider: validText(string(w.Provider)), URI: validText(w.URI), Version: validText(w.Version),
			Fingerprint: w.Fingerprint, Algorithm: w.Algorithm, Ciphertext: w.Ciphertext}
	}
	return out
}

func keyRecordKey(of string, generation, epoch uint32) store.Key {
	return store.Key(fmt.Sprintf("keys/%s/%08d-%08d", of, generation, epoch))
}

// Vault is an open vault. It is safe for concurrent use until Close.
type Vault struct {
	objects Objects
	id      crypt.VaultID
	key     *crypt.VaultKey
	mode    Mode
	created time.Time
	opened  kek.Ref

	ringMu sync.Mutex
	ring   *kek.Ring
}

// CreateOptions of a vault.
type CreateOptions struct {
	Mode Mode
	Ring *kek.Ring // its keys wrap the vault key; at least one
	Now  time.Time
}

// Create makes a vault in an empty store. The descriptor is written last and is
// the commit: after a crash before it, Create may simply be called again.
func Create(ctx context.Context, objects Objects, opts CreateOptions) (*Vault, error) {
	if _, err := objects.Stat(ctx, descriptorKey); err == nil {
		return nil, fmt.Errorf("create vault: %w", ErrVaultExists)
	} else if !errors.Is(err, store.ErrNotExist) {
		return nil, fmt.Errorf("create vault: %w", err)
	}
	key := crypt.NewVaultKey()
	wrapped, err := key.Wrap(opts.Ring.Wrappers())
	if err != nil {
		return nil, fmt.Errorf("create vault: %w", err)
	}
	if len(wrapped) == 0 {
		return nil, fmt.Errorf("create vault: %w", kek.ErrNoKey)
	}
	v := &Vault{objects: objects, id: key.ID(), key: key, ring: opts.Ring, mode: opts.Mode, created: opts.Now.UTC().Truncate(time.Second)}
	body := keyRecord{Vault: v.id, Generation: 1, Epoch: 1, Created: opts.Now.Unix(), Mode: opts.Mode, Wrappings: wrappings(wrapped)}
	for {
		err = v.putRecord(ctx, keyRecordMagic, keyRecordKey("vault", body.Generation, body.Epoch), body)
		if !errors.Is(err, store.ErrExist) {
			break
		}
		body.Epoch++ // left by a creation that did not reach its commit
	}
	if err == nil {
		// A crash here leaves a key record without a descriptor: no vault yet.
		err = v.putRecord(ctx, descriptorMagic, descriptorKey, descriptor{Vault: v.id, Suite: suite, Created: body.Created})
	}
	if errors.Is(err, store.ErrExist) {
		err = ErrVaultExists
	}
	if err != nil {
		v.Close()
		return nil, fmt.Errorf("create vault: %w", err)
	}
	return v, nil
}

func (v *Vault) putRecord(ctx context.Context, magic string, key store.Key, body any) error {
	b, err := sealRecord(v.key, magic, key, body)
	if err != nil {
		return err
	}
	return v.objects.Put(ctx, key, store.Body{b}, store.PutOptions{})
}

// Open opens the vault called id. It asks the ring's keys to unwrap the vault key,
// and believes nothing that the id does not vouch for.
func Open(ctx context.Context, objects Objects, id crypt.VaultID, ring *kek.Ring) (*Vault, error) {
	wrap := func(err error) (*Vault, error) { return nil, fmt.Errorf("open vault %s: %w", id, err) }
	raw, err := store.ReadAll(ctx, objects, descriptorKey, maxRecord)
	if errors.Is(err, store.ErrNotExist) {
		err = ErrNoVault
	}
	if err != nil {
		return wrap(err)
	}
	var d descriptor
	drec, err := parseRecord(descriptorMagic, descriptorKey, raw, &d)
	if err != nil {
		return wrap(err)
	}
	if d.Vault != id {
		return wrap(fmt.Errorf("its id is %s: %w", d.Vault, ErrOtherVault))
	}
	records, err := listKeyRecords(ctx, objects, "keys/vault/")
	if err != nil {
		return wrap(err)
	}
	var failures []error
	for _, key := range slices.Backward(records) { // newest first
		v, err := openWith(ctx, objects, key, id, ring)
		if errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return wrap(err) // it may be the one that counts
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if err := drec.verify(v.key); err != nil {
			v.Close()
			return wrap(err)
		}
		v.created = time.Unix(d.Created, 0).UTC()
		return v, nil
	}
	if len(failures) == 0 {
		return wrap(fmt.Errorf("it has no key record: %w", crypt.ErrDamaged))
	}
	return wrap(errors.Join(failures...))
}

// openWith opens the vault with one of its key records.
func openWith(ctx context.Context, objects Objects, key store.Key, id crypt.VaultID, ring *kek.Ring) (*Vault, error) {
	raw, err := store.ReadAll(ctx, objects, key, maxRecord)
	if err != nil {
		return nil, err
	}
	var body keyRecord
	rec, err := parseRecord(keyRecordMagic, key, raw, &body)
	if err != nil {
		return nil, err
	}
	if body.Vault != id || len(body.Item) != 0 {
		return nil, fmt.Errorf("read %s: it is the record of vault %s: %w", key, body.Vault, ErrOtherVault)
	}
	vk, ref, err := crypt.OpenVaultKey(ctx, ring, body.wrapped(), id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if err := rec.verify(vk); err != nil {
		vk.Close()
		return nil, err
	}
	return &Vault{objects: objects, id: id, key: vk, ring: ring, mode: body.Mode, opened: ref}, nil
}

// listKeyRecords returns the keys of key records under prefix in ascending order:
// by owner, then generation, then epoch.
func listKeyRecords(ctx context.Context, l store.Lister, prefix store.Key) ([]store.Key, error) {
	var keys []store.Key
	for info, err := range l.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		keys = append(keys, info.Key)
	}
	slices.Sort(keys)
	return keys, nil
}

// ID returns the vault's id.
func (v *Vault) ID() crypt.VaultID { return v.id }

// Mode returns who holds the keys.
func (v *Vault) Mode() Mode { return v.mode }

// Created returns when the vault was made, by the clock of the agent that made it.
func (v *Vault) Created() time.Time { return v.created }

// OpenedWith returns the key that opened the vault; zero if it was just made.
func (v *Vault) OpenedWith() kek.Ref { return v.opened }

// Close zeroes the vault key.
func (v *Vault) Close() { v.key.Close() }

// UseRing gives the vault other keys, for what is opened and wrapped from now on.
func (v *Vault) UseRing(ring *kek.Ring) {
	v.ringMu.Lock()
	defer v.ringMu.Unlock()
	v.ring = ring
}

func (v *Vault) keys() *kek.Ring {
	v.ringMu.Lock()
	defer v.ringMu.Unlock()
	return v.ring
}

// CheckRecords reads the descriptor and every key record of the vault again, also
// those of earlier epochs, and yields each with what is wrong with it, or nil. An
// error without a key says that it could not go on. Records that a creation left
// that did not reach its commit are of no vault, and passed over.
func (v *Vault) CheckRecords(ctx context.Context) iter.Seq2[store.Key, error] {
	return func(yield func(store.Key, error) bool) {
		keys, err := listKeyRecords(ctx, v.objects, "keys/")
		if err != nil {
			yield("", err)
			return
		}
		for _, key := range append(keys, descriptorKey) {
			err := v.checkRecord(ctx, key)
			if errors.Is(err, ErrOtherVault) {
				continue
			}
			if errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
				yield("", err)
				return
			}
			if !yield(key, err) {
				return
			}
		}
	}
}

func (v *Vault) checkRecord(ctx context.Context, key store.Key) error {
	raw, err := store.ReadAll(ctx, v.objects, key, maxRecord)
	if err != nil {
		return err
	}
	if key == descriptorKey {
		var body descriptor
		rec, err := parseRecord(descriptorMagic, key, raw, &body)
		if err != nil {
			return err
		}
		return rec.verify(v.key)
	}
	var body keyRecord
	rec, err := parseRecord(keyRecordMagic, key, raw, &body)
	if err != nil {
		return err
	}
	if body.Vault != v.id && strings.HasPrefix(string(key), "keys/vault/") {
		return fmt.Errorf("read %s: it is the record of vault %s: %w", key, body.Vault, ErrOtherVault)
	}
	return rec.verify(v.key)
}
