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
//   - Of key records the newest counts, and nothing older in its place (open.go,
//     floors.go). A secret is wrapped anew by a record of the next epoch (rewrap.go),
//     and an item ends with a tombstone (erase.go).
//   - Packs are written before the index that names them, and that before the
//     point that needs them. A crash between leaves packs that Sync finds again.
//
// docs/format.md is normative for the bytes.
package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
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
	// ErrErased: the item was erased, with all that it had. It is ErrNoItem too.
	ErrErased = errors.New("item was erased")
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

// Descriptor is the object of a vault that never changes.
const Descriptor store.Key = "vault"

// suite names the algorithms of format version 1.
const suite = "AES-256-GCM, HKDF-SHA256, HMAC-SHA256, RSA-OAEP"

// descriptor is the body of the Descriptor.
type descriptor struct {
	Vault   crypt.VaultID `cbor:"1,keyasint"`
	Suite   string        `cbor:"2,keyasint"`
	Created int64         `cbor:"3,keyasint"` // unix seconds
}

// Vault is an open vault. It is safe for concurrent use, Close included.
type Vault struct {
	objects Objects
	id      crypt.VaultID
	key     *crypt.VaultKey
	created time.Time
	floors  Floors

	mu      sync.Mutex
	ring    *kek.Ring
	mode    Mode
	epoch   uint32                             // of the vault key's current record
	openers []kek.Fingerprint                  // that record's keys
	secrets map[secretID]map[*crypt.Secret]era // that items hold open
	idle    map[secretID]*crypt.Secret         // that items held open in this era: the next need ask no key
	era     era
	closed  bool
}

// era counts how often the vault was told to forget what is open.
type era int

// secretID names the secret of an item.
type secretID struct {
	item       crypt.ItemID
	generation uint32
}

// CreateOptions of a vault.
type CreateOptions struct {
	Mode   Mode
	Ring   *kek.Ring // its keys wrap the vault key; at least one
	Now    time.Time
	Floors Floors // nil: none
}

// Create makes a vault in an empty store. The descriptor is written last and is
// the commit: after a crash before it, Create may simply be called again.
func Create(ctx context.Context, objects Objects, opts CreateOptions) (*Vault, error) {
	if _, err := objects.Stat(ctx, Descriptor); err == nil {
		return nil, fmt.Errorf("create vault: %w", ErrVaultExists)
	} else if !errors.Is(err, store.ErrNotExist) {
		return nil, fmt.Errorf("create vault: %w", err)
	}
	key := crypt.NewVaultKey()
	v := newVault(objects, key, opts.Ring, opts.Floors)
	v.mode, v.created = opts.Mode, opts.Now.UTC().Truncate(time.Second)
	wrapped, err := wrapUnder(opts.Mode, opts.Ring.Wrappers(), key)
	if err != nil {
		v.Close()
		return nil, fmt.Errorf("create vault: %w", err)
	}
	body := keyRecord{Vault: v.id, Generation: vaultGeneration, Epoch: 1, Created: opts.Now.Unix(), Mode: opts.Mode, Wrappings: wrappings(wrapped)}
	for {
		_, err = v.putKeyRecord(ctx, body)
		if !errors.Is(err, store.ErrExist) {
			break
		}
		body.Epoch++ // left by a creation that did not reach its commit
	}
	v.epoch, v.openers = body.Epoch, body.fingerprints()
	if err == nil {
		// A crash here leaves a key record without a descriptor: no vault yet.
		err = v.putDescriptor(ctx, descriptor{Vault: v.id, Suite: suite, Created: body.Created})
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

func newVault(objects Objects, key *crypt.VaultKey, ring *kek.Ring, floors Floors) *Vault {
	if floors == nil {
		floors = noFloors{}
	}
	return &Vault{objects: objects, id: key.ID(), key: key, ring: ring, floors: floors,
		secrets: make(map[secretID]map[*crypt.Secret]era), idle: make(map[secretID]*crypt.Secret)}
}

func (v *Vault) putDescriptor(ctx context.Context, d descriptor) error {
	b, err := sealRecord(v.key, descriptorMagic, Descriptor, d)
	if err != nil {
		return err
	}
	return v.objects.Put(ctx, Descriptor, store.Body{b}, store.PutOptions{})
}

// ID returns the vault's id.
func (v *Vault) ID() crypt.VaultID { return v.id }

// ItemID returns the id of the item of that name, whether there is one or not.
func (v *Vault) ItemID(name string) (crypt.ItemID, error) { return v.key.ItemID(name) }

// Mode returns who holds the keys.
func (v *Vault) Mode() Mode {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mode
}

// Openers returns the keys that open the vault, as of the last look at its record:
// whatever key opens some item is among them (rewrap.go).
func (v *Vault) Openers() []kek.Fingerprint {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.openers)
}

// Created returns when the vault was made, by the clock of the agent that made it.
func (v *Vault) Created() time.Time { return v.created }

// Close zeroes the vault key and the secrets of all its items, for ever: whatever
// the vault, an item, or a pack that is being made is asked for from then on is
// crypt.ErrClosed. It may come at any time and more than once; it waits for
// operations on memory and not for the store or a key provider.
func (v *Vault) Close() {
	v.mu.Lock()
	v.closed = true
	open, idle := v.secrets, v.idle
	v.secrets, v.idle = nil, nil
	v.mu.Unlock()
	v.key.Close()
	for _, secrets := range open {
		for s := range secrets {
			s.Close()
		}
	}
	for _, s := range idle {
		s.Close()
	}
}

// Forget has every secret unwrapped anew when it is next asked for. Who uses one now
// goes on with it.
func (v *Vault) Forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.era++
	for id, s := range v.idle {
		s.Close()
		delete(v.idle, id)
	}
}

// currentEra returns the era. crypt.ErrClosed if the vault is closed.
func (v *Vault) currentEra() (era, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return 0, crypt.ErrClosed
	}
	return v.era, nil
}

// keep notes a secret that an item holds open since that era. If the vault is closed, the secret
// is closed too: crypt.ErrClosed.
func (v *Vault) keep(id secretID, s *crypt.Secret, since era) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		s.Close()
		return crypt.ErrClosed
	}
	if v.secrets[id] == nil {
		v.secrets[id] = make(map[*crypt.Secret]era)
	}
	v.secrets[id][s] = since
	return nil
}

// drop closes a secret that was kept. Of the last one of its kind a copy stays open,
// so that the item opens while its keys are away.
func (v *Vault) drop(id secretID, s *crypt.Secret) {
	v.mu.Lock()
	since := v.secrets[id][s]
	delete(v.secrets[id], s)
	if len(v.secrets[id]) == 0 {
		delete(v.secrets, id)
	}
	if !v.closed && since == v.era && v.idle[id] == nil {
		if c, err := s.Copy(); err == nil {
			v.idle[id] = c
		}
	}
	v.mu.Unlock()
	s.Close()
}

// forget closes the secrets of an item, of which some may still be in use.
func (v *Vault) forget(id crypt.ItemID) {
	v.mu.Lock()
	var open []*crypt.Secret
	for sid, secrets := range v.secrets {
		if sid.item == id {
			open = slices.AppendSeq(open, maps.Keys(secrets))
		}
	}
	for sid, s := range v.idle {
		if sid.item == id {
			open = append(open, s)
			delete(v.idle, sid)
		}
	}
	v.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
}

// copyOf returns a copy of a secret with that commitment which is open, or nil.
func (v *Vault) copyOf(id secretID, commitment []byte) *crypt.Secret {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.idle[id]; s != nil && bytes.Equal(s.Commitment(), commitment) {
		if s, err := s.Copy(); err == nil {
			return s
		}
	}
	for s, since := range v.secrets[id] {
		if since != v.era || !bytes.Equal(s.Commitment(), commitment) {
			continue
		}
		if s, err := s.Copy(); err == nil {
			return s
		}
	}
	return nil
}

// UseRing gives the vault other keys, for what is opened and wrapped from now on.
func (v *Vault) UseRing(ring *kek.Ring) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ring = ring
}

func (v *Vault) keys() *kek.Ring {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ring
}

// CheckRecords reads the descriptor and every key record of the vault again, also
// those of earlier epochs, and yields each with what is wrong with it, or nil. An
// error without a key says that it could not go on. Records that a creation left
// that did not reach its commit are of no vault, and passed over.
func (v *Vault) CheckRecords(ctx context.Context) iter.Seq2[store.Key, error] {
	return func(yield func(store.Key, error) bool) {
		keys := []store.Key{Descriptor}
		for info, err := range v.objects.List(ctx, "keys/") {
			if err != nil {
				yield("", err)
				return
			}
			keys = append(keys, info.Key)
		}
		for _, key := range keys {
			err := v.checkRecord(ctx, key)
			if errors.Is(err, ErrOtherVault) {
				continue
			}
			if err != nil && final(ctx, err) {
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
	if key == Descriptor {
		raw, err := store.ReadAll(ctx, v.objects, key, maxRecord)
		if err != nil {
			return err
		}
		var body descriptor
		rec, err := parseRecord(descriptorMagic, key, raw, &body)
		if err != nil {
			return err
		}
		return rec.verify(v.key)
	}
	n, ok := parseRecordName(key)
	if !ok {
		return fmt.Errorf("read %s: it is not the name of a key record: %w", key, crypt.ErrDamaged)
	}
	_, err := v.readRecord(ctx, n)
	return err
}
