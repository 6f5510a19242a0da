package catalog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// Item is one protected thing of a vault. It is safe for concurrent use, Close
// included. Its secrets are unwrapped when they are first needed and kept until
// Close. It is the item as it was when it was read: a generation that is made later
// is written under once the item is read again (Reread).
type Item struct {
	vault     *Vault
	id        crypt.ItemID
	name      string
	tombstone uint32 // the generation that ended all before it; 0: none

	mu         sync.Mutex
	generation uint32 // the newest; 0 if the item was erased
	created    time.Time
	records    map[uint32]keyRecord // of the generations after the tombstone, verified
	secrets    map[uint32]openSecret
	former     []formerSecret     // replaced since, and perhaps still in use
	dead       map[store.Key]bool // objects of erased generations, as far as that is known
}

// openSecret is a secret that the item holds open since an era.
type openSecret struct {
	*crypt.Secret
	since era
}

// formerSecret is one that is no more given out.
type formerSecret struct {
	id secretID
	*crypt.Secret
}

// readers is how many records are read at once.
const readers = 8

// Items returns the items of the vault, sorted by name, without those that were
// erased. It opens no secret. Items whose records are damaged or rolled back are in
// the error, and the others are returned all the same.
func (v *Vault) Items(ctx context.Context) ([]*Item, error) {
	all, faults := v.items(ctx)
	items := make([]*Item, 0, len(all))
	for _, it := range all {
		if it.generation != 0 {
			items = append(items, it)
		}
	}
	return items, errors.Join(faults...)
}

// items returns all items sorted by name, those that were erased too, and what is
// wrong with the others.
func (v *Vault) items(ctx context.Context) ([]*Item, []error) {
	names, err := listRecords(ctx, v.objects, "keys/")
	if err != nil {
		return nil, []error{err}
	}
	var mu sync.Mutex
	var items []*Item
	var faults []error
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for owned := range byOwner(names) {
		id, err := crypt.ParseItemID(owned[0].owner)
		if err != nil { // the vault key, or no key record
			continue
		}
		group.Go(func() error {
			it, err := v.loadItem(gctx, id, owned, v.floorsOf(id.String()))
			if errors.Is(err, ErrRolledBack) { // or written by this process since the listing
				it, err = v.readItem(gctx, id)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				items = append(items, it)
				return nil
			}
			faults = append(faults, fmt.Errorf("list items: %w", err))
			if final(gctx, err) {
				return err // the others would say the same
			}
			return nil
		})
	}
	_ = group.Wait() // it is among the faults
	slices.SortFunc(items, func(a, b *Item) int { return strings.Compare(a.name, b.name) })
	return items, faults
}

// byOwner yields the names of each owner. The names ascend.
func byOwner(names []recordName) iter.Seq[[]recordName] {
	return func(yield func([]recordName) bool) {
		for len(names) > 0 {
			n := 1
			for n < len(names) && names[n].owner == names[0].owner {
				n++
			}
			if !yield(names[:n]) {
				return
			}
			names = names[n:]
		}
	}
}

// Item returns the item of that name. ErrNoItem if there is none; ErrErased as well
// if there was one. ErrRolledBack if its records are older than some seen before.
func (v *Vault) Item(ctx context.Context, name string) (*Item, error) {
	it, err := v.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if it.generation == 0 {
		return nil, erased{name, it.created}
	}
	return it, nil
}

// erased is ErrErased and ErrNoItem, and says it in one breath.
type erased struct {
	item string
	at   time.Time
}

func (e erased) Error() string {
	return fmt.Sprintf("item %s was erased %s", e.item, e.at.Format(time.RFC3339))
}

func (erased) Unwrap() []error { return []error{ErrErased, ErrNoItem} }

// find returns the item of that name, also one that was erased.
func (v *Vault) find(ctx context.Context, name string) (*Item, error) {
	id, err := v.key.ItemID(name)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", name, err)
	}
	it, err := v.readItem(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", name, err)
	}
	return it, nil
}

// readItem reads an item. ErrNoItem if it has no key records.
func (v *Vault) readItem(ctx context.Context, id crypt.ItemID) (*Item, error) {
	seen := v.floorsOf(id.String())
	names, err := listRecords(ctx, v.objects, ItemRecords(id))
	if err != nil {
		return nil, err
	}
	it, err := v.loadItem(ctx, id, names, seen)
	if err == nil && len(names) == 0 {
		err = ErrNoItem
	}
	if err != nil {
		return nil, err
	}
	return it, nil
}

// loadItem reads and verifies the current record of every generation, down to the
// tombstone. The names ascend.
func (v *Vault) loadItem(ctx context.Context, id crypt.ItemID, names []recordName, seen floorsOf) (*Item, error) {
	it := &Item{vault: v, id: id, records: make(map[uint32]keyRecord), secrets: make(map[uint32]openSecret)}
	newest := uint32(0)
	for _, n := range slices.Backward(current(names)) {
		body, err := v.readRecord(ctx, n)
		if err != nil {
			return nil, err
		}
		if newest == 0 {
			newest = n.generation
			if it.name, err = v.key.OpenName(id, body.Name); err != nil {
				return nil, fmt.Errorf("read %s: %w", n.key(), err)
			}
			if named, err := v.key.ItemID(it.name); err != nil || named != id {
				return nil, fmt.Errorf("read %s: its name belongs to another item: %w", n.key(), cmp.Or(err, crypt.ErrDamaged))
			}
			it.created = time.Unix(body.Created, 0).UTC()
		}
		if body.Erased != 0 { // what is left before it counts no more
			it.tombstone = n.generation
			break
		}
		it.records[n.generation] = body
		it.generation = newest
	}
	if err := it.checkGenerations(newest, seen); err != nil {
		return nil, err
	}
	return it, nil
}

// ID returns the item's id.
func (it *Item) ID() crypt.ItemID { return it.id }

// Name returns what the item is called.
func (it *Item) Name() string { return it.name }

// Generation returns the newest generation of the item's secret: the one to write
// under.
func (it *Item) Generation() uint32 {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.generation
}

// Reread takes over the generations that were made since the item was read, so that
// what is written from now on is under the newest. Nobody may be writing. ErrErased
// if the item was erased since, even if it was made again.
func (it *Item) Reread(ctx context.Context) error {
	now, err := it.vault.readItem(ctx, it.id)
	if err != nil {
		return fmt.Errorf("item %s: %w", it.name, err)
	}
	if now.generation == 0 || now.tombstone != it.tombstone {
		return fmt.Errorf("item %s: %w: %w", it.name, ErrErased, ErrNoItem)
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	it.generation, it.created = now.generation, now.created
	maps.Copy(it.records, now.records)
	return nil
}

// Secret returns the secret of a generation. The first call for each asks a key
// of the vault's ring to unwrap it. The item closes it, and so does Close of the
// vault.
func (it *Item) Secret(ctx context.Context, generation uint32) (*crypt.Secret, error) {
	s, _, err := it.open(ctx, generation)
	if err != nil {
		return nil, fmt.Errorf("item %s, generation %d: %w", it.name, generation, err)
	}
	return s, nil
}

// open returns the secret of a generation, and whether a key had to unwrap it.
func (it *Item) open(ctx context.Context, generation uint32) (_ *crypt.Secret, unwrapped bool, err error) {
	it.mu.Lock()
	defer it.mu.Unlock()
	now, err := it.vault.currentEra()
	if err != nil {
		return nil, false, err
	}
	if s, ok := it.secrets[generation]; ok && s.since == now {
		return s.Secret, false, nil
	}
	body, ok := it.records[generation]
	if !ok {
		return nil, false, fmt.Errorf("it has no key record: %w", crypt.ErrDamaged)
	}
	id := secretID{it.id, generation}
	s := it.vault.copyOf(id, body.Commitment)
	if s == nil {
		unwrapped = true
		if s, err = it.unwrap(ctx, body); err != nil {
			return nil, true, err
		}
	}
	if err := it.vault.keep(id, s, now); err != nil {
		return nil, unwrapped, err
	}
	if old, ok := it.secrets[generation]; ok {
		it.former = append(it.former, formerSecret{id, old.Secret})
	}
	it.secrets[generation] = openSecret{s, now}
	return s, unwrapped, nil
}

// unwrap asks a key for the secret of a record. The caller holds mu.
func (it *Item) unwrap(ctx context.Context, body keyRecord) (*crypt.Secret, error) {
	s, err := it.vault.openSecret(ctx, body)
	if isUnopened(err) { // perhaps it was wrapped anew since the item was read
		if newer, rerr := it.vault.newerRecord(ctx, body); rerr == nil && newer.Epoch > body.Epoch {
			it.records[body.Generation] = newer
			s, err = it.vault.openSecret(ctx, newer)
		}
	}
	return s, err
}

// openSecret asks a key to open the secret of a record that was verified.
func (v *Vault) openSecret(ctx context.Context, body keyRecord) (*crypt.Secret, error) {
	s, _, err := crypt.OpenSecret(ctx, v.keys(), body.wrapped())
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(s.Commitment(), body.Commitment) {
		s.Close()
		return nil, fmt.Errorf("the wrapping holds another secret: %w", crypt.ErrDamaged)
	}
	return s, nil
}

// newerRecord reads the current record of the generation that body is of. ErrErased
// if it was erased since.
func (v *Vault) newerRecord(ctx context.Context, body keyRecord) (keyRecord, error) {
	it, err := v.readItem(ctx, crypt.ItemID(body.Item))
	if err != nil {
		return keyRecord{}, err
	}
	newer, ok := it.records[body.Generation]
	if !ok {
		return keyRecord{}, ErrErased
	}
	return newer, nil
}

// Close zeroes the item's secrets. The vault keeps a copy of each until it is closed
// or told to forget, so that the next use of the item asks no key.
func (it *Item) Close() {
	it.mu.Lock()
	defer it.mu.Unlock()
	for g, s := range it.secrets {
		it.vault.drop(secretID{it.id, g}, s.Secret)
		delete(it.secrets, g)
	}
	for _, s := range it.former {
		it.vault.drop(s.id, s.Secret)
	}
	it.former = nil
}
