package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// Item is one protected thing of a vault. It is safe for concurrent use until
// Close. Its secrets are unwrapped when they are first needed and kept until then.
type Item struct {
	vault      *Vault
	id         crypt.ItemID
	name       string
	generation uint32 // the newest
	created    time.Time
	records    map[uint32]keyRecord // by generation, verified

	mu      sync.Mutex
	secrets map[uint32]*crypt.Secret
}

// Items returns the items of the vault, sorted by name. It opens no secret. Items
// whose records are damaged are in the error, and the others are returned all the
// same.
func (v *Vault) Items(ctx context.Context) ([]*Item, error) {
	keys, err := listKeyRecords(ctx, v.objects, "keys/")
	if err != nil {
		return nil, err
	}
	byItem := make(map[crypt.ItemID][]store.Key)
	for _, key := range keys {
		owner, _, _ := strings.Cut(strings.TrimPrefix(string(key), "keys/"), "/")
		if owner == "vault" {
			continue
		}
		if id, err := crypt.ParseItemID(owner); err == nil { // else it is no key record
			byItem[id] = append(byItem[id], key)
		}
	}
	var faults []error
	items := make([]*Item, 0, len(byItem))
	for id, keys := range byItem {
		it, err := v.loadItem(ctx, id, keys)
		if err != nil {
			faults = append(faults, fmt.Errorf("list items: %w", err))
			continue
		}
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b *Item) int { return strings.Compare(a.name, b.name) })
	return items, errors.Join(faults...)
}

// Item returns the item of that name. ErrNoItem if there is none.
func (v *Vault) Item(ctx context.Context, name string) (*Item, error) {
	id := v.key.ItemID(name)
	keys, err := listKeyRecords(ctx, v.objects, store.Key("keys/"+id.String()+"/"))
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("item %s: %w", name, ErrNoItem)
	}
	return v.loadItem(ctx, id, keys)
}

// CreateItem makes the item of that name, or returns it if it is there.
func (v *Vault) CreateItem(ctx context.Context, name string, now time.Time) (*Item, error) {
	it, err := v.Item(ctx, name)
	if !errors.Is(err, ErrNoItem) {
		return it, err
	}
	id := v.key.ItemID(name)
	secret := crypt.NewSecret()
	wrapped, err := secret.Wrap(v.keys().Wrappers())
	if err != nil {
		return nil, fmt.Errorf("create item %s: %w", name, err)
	}
	body := keyRecord{Vault: v.id, Item: id[:], Generation: 1, Epoch: 1, Created: now.Unix(),
		Name: v.key.SealName(id, name), Commitment: secret.Commitment(), Wrappings: wrappings(wrapped)}
	err = v.putRecord(ctx, keyRecordMagic, keyRecordKey(id.String(), 1, 1), body)
	if errors.Is(err, store.ErrExist) { // another agent, or a Put that happened after all
		secret.Close()
		return v.Item(ctx, name)
	}
	if err != nil {
		secret.Close()
		return nil, fmt.Errorf("create item %s: %w", name, err)
	}
	return &Item{vault: v, id: id, name: name, generation: 1, created: time.Unix(body.Created, 0).UTC(),
		records: map[uint32]keyRecord{1: body}, secrets: map[uint32]*crypt.Secret{1: secret}}, nil
}

// loadItem reads and verifies the newest record of every generation.
func (v *Vault) loadItem(ctx context.Context, id crypt.ItemID, keys []store.Key) (*Item, error) {
	it := &Item{vault: v, id: id, records: make(map[uint32]keyRecord), secrets: make(map[uint32]*crypt.Secret)}
	for _, key := range slices.Backward(keys) { // newest first
		raw, err := store.ReadAll(ctx, v.objects, key, maxRecord)
		if err != nil {
			return nil, fmt.Errorf("read item %s: %w", id, err)
		}
		var body keyRecord
		rec, err := parseRecord(keyRecordMagic, key, raw, &body)
		if err != nil {
			return nil, err
		}
		if err := rec.verify(v.key); err != nil {
			return nil, err
		}
		if body.Vault != v.id || string(body.Item) != string(id[:]) || key != keyRecordKey(id.String(), body.Generation, body.Epoch) {
			return nil, fmt.Errorf("read %s: it is the record of another item: %w", key, crypt.ErrDamaged)
		}
		if _, ok := it.records[body.Generation]; ok {
			continue
		}
		it.records[body.Generation] = body
		if body.Generation > it.generation {
			it.generation = body.Generation
			it.created = time.Unix(body.Created, 0).UTC()
			if it.name, err = v.key.OpenName(id, body.Name); err != nil {
				return nil, err
			}
			if v.key.ItemID(it.name) != id {
				return nil, fmt.Errorf("read %s: its name belongs to another item: %w", key, crypt.ErrDamaged)
			}
		}
	}
	return it, nil
}

// ID returns the item's id.
func (it *Item) ID() crypt.ItemID { return it.id }

// Name returns what the item is called.
func (it *Item) Name() string { return it.name }

// Generation returns the newest generation of the item's secret: the one to write
// under.
func (it *Item) Generation() uint32 { return it.generation }

// Created returns when the newest generation was made.
func (it *Item) Created() time.Time { return it.created }

// Secret returns the secret of a generation. The first call for each asks a key
// of the vault's ring to unwrap it. The item closes it.
func (it *Item) Secret(ctx context.Context, generation uint32) (*crypt.Secret, error) {
	it.mu.Lock()
	defer it.mu.Unlock()
	if s, ok := it.secrets[generation]; ok {
		return s, nil
	}
	body, ok := it.records[generation]
	if !ok {
		return nil, fmt.Errorf("item %s has no key record of generation %d: %w", it.name, generation, crypt.ErrDamaged)
	}
	s, _, err := crypt.OpenSecret(ctx, it.vault.keys(), body.wrapped())
	if err != nil {
		return nil, fmt.Errorf("item %s, generation %d: %w", it.name, generation, err)
	}
	if string(s.Commitment()) != string(body.Commitment) {
		s.Close()
		return nil, fmt.Errorf("item %s, generation %d: the wrapping holds another secret: %w", it.name, generation, crypt.ErrDamaged)
	}
	it.secrets[generation] = s
	return s, nil
}

// Close zeroes the item's secrets.
func (it *Item) Close() {
	it.mu.Lock()
	defer it.mu.Unlock()
	for g, s := range it.secrets {
		s.Close()
		delete(it.secrets, g)
	}
}
