package scrub

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// facts is what a descriptor or key record says in public (docs/format.md, 3).
type facts struct {
	Vault crypt.VaultID `cbor:"1,keyasint"`
}

// recordFacts is what a key record says besides.
type recordFacts struct {
	Vault      crypt.VaultID `cbor:"1,keyasint"`
	Item       []byte        `cbor:"2,keyasint,omitempty"`
	Generation uint32        `cbor:"3,keyasint"`
	Epoch      uint32        `cbor:"4,keyasint"`
	Erased     int64         `cbor:"10,keyasint,omitempty"`
}

// bodyOf returns the body of a record that ScrubRecord has passed.
func bodyOf(b []byte) []byte { return b[12 : 12+binary.BigEndian.Uint32(b[8:])] }

// generationState is what is known of a generation of an item.
type generationState int

const (
	unknown generationState = iota
	known
	erased
)

// owners are the items that have key records. It is safe for concurrent use.
type owners struct {
	mu   sync.Mutex
	of   map[string]*owner
	seen map[store.Key]bool // the records that were looked at
}

type owner struct {
	generations map[uint32]bool // that have a record, be it good or not
	tombstone   uint32          // the last generation that an erasure ended
	// unclear is the last generation whose record does not say what it is: perhaps it
	// was a tombstone. That is one fault, and not one of every object before it.
	unclear uint32
}

// add notes that there is a record. It tells whether it is seen for the first time.
func (o *owners) add(p place, key store.Key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen[key] {
		return false
	}
	o.seen[key] = true
	it := o.of[p.item]
	if it == nil {
		it = &owner{generations: make(map[uint32]bool)}
		o.of[p.item] = it
	}
	it.generations[p.generation] = true
	return true
}

// erase notes that a record is a tombstone.
func (o *owners) erase(p place) {
	o.mu.Lock()
	defer o.mu.Unlock()
	it := o.of[p.item]
	it.tombstone = max(it.tombstone, p.generation)
}

// obscure notes that a record does not say what it is.
func (o *owners) obscure(p place) {
	o.mu.Lock()
	defer o.mu.Unlock()
	it := o.of[p.item]
	it.unclear = max(it.unclear, p.generation)
}

func (o *owners) look(item string, generation uint32) generationState {
	o.mu.Lock()
	defer o.mu.Unlock()
	it := o.of[item]
	switch {
	case it != nil && generation <= it.tombstone:
		return erased
	case it != nil && (it.generations[generation] || generation <= it.unclear):
		return known
	}
	return unknown
}

// alive counts the items that are not erased.
func (o *owners) alive() (n int) {
	for name, it := range o.of {
		if name != descriptors && slices.Max(slices.Collect(maps.Keys(it.generations))) > it.tombstone {
			n++
		}
	}
	return n
}

// gaps yields the generations that an owner must have had a record of: they begin at
// 1, or after an erasure, and none is left out.
func (o *owners) gaps(report func(item string, generation uint32)) {
	for _, name := range slices.Sorted(maps.Keys(o.of)) {
		it := o.of[name]
		next := max(it.tombstone, it.unclear) + 1
		for _, g := range slices.Sorted(maps.Keys(it.generations)) {
			if g < next {
				continue
			}
			if g > next {
				report(name, next) // one of them says enough
			}
			next = g + 1
		}
	}
}

// records checks the descriptor and all key records.
func (r *run) records(ctx context.Context) error {
	r.owners = &owners{of: make(map[string]*owner), seen: make(map[store.Key]bool)}
	vault, err := r.descriptor(ctx)
	if err != nil {
		return err
	}
	if err := r.recordsUnder(ctx, "keys/", vault); err != nil {
		return err
	}
	if r.owners.of[descriptors] == nil {
		r.fault("keys/vault/", "there is no key record of the vault: no key opens it")
	}
	r.owners.gaps(func(item string, generation uint32) {
		r.fault(store.Key(fmt.Sprintf("keys/%s/%08d-", item, generation)), "it is gone: there is a key record of a later generation and none of this")
	})
	return nil
}

// descriptor checks the descriptor and returns the vault's id, or nil if there is none
// to go by.
func (r *run) descriptor(ctx context.Context) (*crypt.VaultID, error) {
	info, err := r.Objects.Stat(ctx, descriptors)
	if errors.Is(err, store.ErrNotExist) {
		r.fault(descriptors, "there is no descriptor: this is no vault, or its descriptor is gone")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.count(descriptors, info.Size)
	var id *crypt.VaultID
	err = r.read(ctx, info, func(b []byte) {
		var f facts
		if r.body(info.Key, b, &f) == nil {
			id = &f.Vault
		}
	})
	return id, err
}

// body checks a record and decodes what is public of it.
func (r *run) body(key store.Key, b []byte, into any) error {
	err := catalog.ScrubRecord(key, b)
	if err == nil {
		if err = cbor.Unmarshal(bodyOf(b), into); err != nil {
			err = fmt.Errorf("read %s: %w", key, err)
		}
	}
	if err != nil {
		r.fault(key, err.Error())
	}
	return err
}

// again looks for key records of an item that were not there before.
func (r *run) again(ctx context.Context, item string) error {
	return r.recordsUnder(ctx, store.Key("keys/"+item+"/"), nil)
}

// recordsUnder checks the key records under a prefix. Vault is what they must be of,
// if it is known.
func (r *run) recordsUnder(ctx context.Context, prefix store.Key, vault *crypt.VaultID) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(r.Workers)
	var failed error
	for info, err := range r.Objects.List(gctx, prefix) {
		if err != nil {
			failed = err
			break
		}
		p := parse(info.Key)
		if p.kind != keyRecords || !r.owners.add(p, info.Key) {
			continue // a stray is met again with all the others
		}
		r.count(keyRecords, info.Size)
		group.Go(func() error {
			clear := false
			err := r.read(gctx, info, func(b []byte) { clear = r.record(p, info.Key, b, vault) })
			if !clear {
				r.owners.obscure(p)
			}
			return err
		})
	}
	return errors.Join(group.Wait(), failed)
}

// record checks one key record, and tells whether it says what it is.
func (r *run) record(p place, key store.Key, b []byte, vault *crypt.VaultID) bool {
	var f recordFacts
	if r.body(key, b, &f) != nil {
		return false
	}
	owner := descriptors
	if len(f.Item) > 0 {
		owner = crypt.Encoding.EncodeToString(f.Item)
	}
	if owner != p.item || f.Generation != p.generation || f.Epoch != p.epoch {
		r.fault(key, fmt.Sprintf("it is another record: that of %s, generation %d, epoch %d", owner, f.Generation, f.Epoch))
		return false
	}
	if vault != nil && f.Vault != *vault {
		r.fault(key, fmt.Sprintf("it is of another vault: %s, and the descriptor says %s", f.Vault, *vault))
		return false
	}
	if f.Erased != 0 {
		r.owners.erase(p)
	}
	return true
}
