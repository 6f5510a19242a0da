package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// keyRecord is the body of a key record, of the vault or of an item.
type keyRecord struct {
	Vault      crypt.VaultID `cbor:"1,keyasint"`
	Item       []byte        `cbor:"2,keyasint,omitempty"` // item id; none for the vault key
	Generation uint32        `cbor:"3,keyasint"`
	Epoch      uint32        `cbor:"4,keyasint"`
	Created    int64         `cbor:"5,keyasint"` // of the secret, unix seconds
	Mode       Mode          `cbor:"6,keyasint,omitempty"`
	Name       []byte        `cbor:"7,keyasint,omitempty"` // item: its name, sealed
	Commitment []byte        `cbor:"8,keyasint,omitempty"` // item: to the secret
	Wrappings  []wrapping    `cbor:"9,keyasint"`
	Erased     int64         `cbor:"10,keyasint,omitempty"` // item: unix seconds; it ends all generations before it
	Written    int64         `cbor:"11,keyasint,omitempty"` // this record, unix seconds; 0: when the secret was made
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

func (r *keyRecord) fingerprints() []kek.Fingerprint {
	out := make([]kek.Fingerprint, len(r.Wrappings))
	for i, w := range r.Wrappings {
		out[i] = w.Fingerprint
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

// vaultOwner owns the records of the vault key. Those of an item are its id's.
const vaultOwner = "vault"

// VaultRecords is what the key records of the vault are under.
const VaultRecords store.Key = "keys/" + vaultOwner + "/"

// ItemRecords returns what the key records of an item are under.
func ItemRecords(id crypt.ItemID) store.Key { return store.Key("keys/" + id.String() + "/") }

// vaultGeneration is the only one that the vault key has.
const vaultGeneration = 1

// recordName is what the name of a key record says.
type recordName struct {
	owner      string
	generation uint32
	epoch      uint32
}

// maxNumber is the last generation or epoch: names have eight digits.
const maxNumber = 99_999_999

func (n recordName) key() store.Key {
	return store.Key(fmt.Sprintf("keys/%s/%08d-%08d", n.owner, n.generation, n.epoch))
}

func parseRecordName(key store.Key) (recordName, bool) {
	rest, _ := strings.CutPrefix(string(key), "keys/")
	owner, numbers, _ := strings.Cut(rest, "/")
	generation, epoch, _ := strings.Cut(numbers, "-")
	g, err := strconv.ParseUint(generation, 10, 32)
	e, err2 := strconv.ParseUint(epoch, 10, 32)
	n := recordName{owner, uint32(g), uint32(e)}
	return n, err == nil && err2 == nil && 0 < g && g <= maxNumber && 0 < e && e <= maxNumber && n.key() == key
}

// listRecords returns the names of the key records under prefix in ascending order:
// by owner, then generation, then epoch. What else lies there is passed over.
func listRecords(ctx context.Context, l store.Lister, prefix store.Key) ([]recordName, error) {
	var names []recordName
	for info, err := range l.List(ctx, prefix) {
		if err != nil {
			return nil, err // it names the folder
		}
		if n, ok := parseRecordName(info.Key); ok {
			names = append(names, n) // listings ascend, and so do names
		}
	}
	return names, nil
}

// current keeps, of names that ascend, the highest epoch of each generation of each
// owner.
func current(names []recordName) []recordName {
	var out []recordName
	for i, n := range names {
		if i+1 == len(names) || names[i+1].owner != n.owner || names[i+1].generation != n.generation {
			out = append(out, n)
		}
	}
	return out
}

// loadRecord reads the record of that name and checks what needs no key. Nothing in
// it may be acted on before its MAC is verified.
func loadRecord(ctx context.Context, g store.Getter, n recordName, vault crypt.VaultID) (keyRecord, record, error) {
	var body keyRecord
	raw, err := store.ReadAll(ctx, g, n.key(), maxRecord)
	if err != nil {
		return body, record{}, fmt.Errorf("read key record: %w", err)
	}
	rec, err := parseRecord(keyRecordMagic, n.key(), raw, &body)
	if err != nil {
		return body, rec, err
	}
	return body, rec, body.isOf(n, vault)
}

// isOf tells whether the record says of itself what its name says of it. It only
// makes a refusal clearer: the MAC covers the name as well.
func (r *keyRecord) isOf(n recordName, vault crypt.VaultID) error {
	owner := vaultOwner
	if len(r.Item) > 0 {
		owner = crypt.Encoding.EncodeToString(r.Item)
	}
	misplaced := func(what string) error {
		return fmt.Errorf("read %s: it is the record of %s: %w: %w", n.key(), what, ErrMisplaced, crypt.ErrDamaged)
	}
	switch {
	case r.Vault != vault && n.owner == vaultOwner:
		return fmt.Errorf("read %s: it is the record of vault %s: %w", n.key(), r.Vault, ErrOtherVault)
	case r.Vault != vault:
		return misplaced("vault " + r.Vault.String())
	case owner == vaultOwner && owner != n.owner:
		return misplaced("the vault key")
	case owner != n.owner:
		return misplaced("item " + owner)
	case r.Generation != n.generation:
		return misplaced(fmt.Sprintf("generation %d", r.Generation))
	case r.Epoch != n.epoch:
		return misplaced(fmt.Sprintf("epoch %d", r.Epoch))
	case r.Erased != 0 && (owner == vaultOwner || len(r.Wrappings) > 0), r.Erased == 0 && len(r.Wrappings) == 0:
		return fmt.Errorf("read %s: its fields contradict each other: %w", n.key(), crypt.ErrDamaged)
	}
	return nil
}

// readRecord reads the record of that name and verifies it.
func (v *Vault) readRecord(ctx context.Context, n recordName) (keyRecord, error) {
	body, rec, err := loadRecord(ctx, v.objects, n, v.id)
	if err != nil {
		return keyRecord{}, err
	}
	if err := rec.verify(v.key); err != nil {
		return keyRecord{}, err
	}
	return body, nil
}

// vaultRecord reads the current record of the vault key: the newest whose MAC holds.
// Others are passed over, because whoever may write to the store can put them there.
// It takes over what the record says. ErrRolledBack if a newer one was seen before.
func (v *Vault) vaultRecord(ctx context.Context) (keyRecord, error) {
	floor := v.vaultFloor()
	names, err := listRecords(ctx, v.objects, VaultRecords)
	if err != nil {
		return keyRecord{}, err
	}
	failures := []error{fmt.Errorf("the vault has no key record: %w", crypt.ErrDamaged)}
	for _, n := range slices.Backward(names) {
		body, err := v.readRecord(ctx, n)
		if err == nil {
			return body, v.admit(body, floor)
		}
		if final(ctx, err) {
			return keyRecord{}, err
		}
		failures = append(failures, err)
	}
	return keyRecord{}, errors.Join(failures...)
}

// vaultFloor returns the epoch that the vault key's record has at least.
func (v *Vault) vaultFloor() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return max(v.epoch, v.floors.Floor(vaultOwner, vaultGeneration))
}

// admit takes over what a record of the vault key says, which has the floor to reach.
func (v *Vault) admit(body keyRecord, floor uint32) error {
	if body.Epoch < floor {
		return rolledBack(vaultOwner, body.Generation, body.Epoch, floor)
	}
	v.raise(vaultOwner, body.Generation, body.Epoch)
	v.mu.Lock()
	defer v.mu.Unlock()
	if body.Epoch > v.epoch {
		v.epoch, v.mode, v.openers = body.Epoch, body.Mode, body.fingerprints()
	}
	return nil
}

// final tells whether err is about the way to the objects, or about the vault being
// closed, and not about one object.
func final(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrDenied) ||
		errors.Is(err, store.ErrMissing) || errors.Is(err, crypt.ErrClosed)
}

// putKeyRecord writes a key record under its own name. It is read as a reader would
// before it is put.
func (v *Vault) putKeyRecord(ctx context.Context, body keyRecord) (size int64, err error) {
	n := recordName{vaultOwner, body.Generation, body.Epoch}
	if len(body.Item) > 0 {
		n.owner = crypt.Encoding.EncodeToString(body.Item)
	}
	if max(n.generation, n.epoch) > maxNumber {
		return 0, fmt.Errorf("write %s: there is no number left for it", n.key())
	}
	b, err := sealRecord(v.key, keyRecordMagic, n.key(), body)
	if err != nil {
		return 0, err
	}
	var again keyRecord
	rec, err := parseRecord(keyRecordMagic, n.key(), b, &again)
	if err == nil {
		err = again.isOf(n, v.id)
	}
	if err == nil {
		err = rec.verify(v.key)
	}
	if err != nil {
		return 0, fmt.Errorf("record is not what was meant to be written: %w", err)
	}
	if err := v.objects.Put(ctx, n.key(), store.Body{b}, store.PutOptions{}); err != nil {
		return 0, err
	}
	v.raise(n.owner, n.generation, n.epoch)
	return int64(len(b)), nil
}
