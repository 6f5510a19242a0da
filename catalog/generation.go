package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// CreateItem makes the item of that name, or returns it if it is there. An item that
// was erased is made again, and has nothing of what it was.
func (v *Vault) CreateItem(ctx context.Context, name string, now time.Time) (*Item, error) {
	it, err := v.find(ctx, name)
	if err == nil && it.generation != 0 || err != nil && !errors.Is(err, ErrNoItem) {
		return it, err
	}
	tombstone := uint32(0)
	if it != nil {
		tombstone = it.tombstone
	}
	it, err = v.createItem(ctx, name, tombstone, now)
	if errors.Is(err, store.ErrExist) { // another agent, or a Put that happened after all
		return v.Item(ctx, name)
	}
	if err != nil {
		return nil, fmt.Errorf("create item %s: %w", name, err)
	}
	return it, nil
}

// createItem makes the first generation of an item after the tombstone.
func (v *Vault) createItem(ctx context.Context, name string, tombstone uint32, now time.Time) (*Item, error) {
	id, err := v.key.ItemID(name)
	if err != nil {
		return nil, err
	}
	it := &Item{vault: v, id: id, name: name, tombstone: tombstone, records: make(map[uint32]keyRecord), secrets: make(map[uint32]openSecret)}
	if _, err := it.makeGeneration(ctx, tombstone+1, crypt.NewSecret(), v.keys().Wrappers(), now); err != nil {
		return nil, err
	}
	return it, nil
}

// makeGeneration wraps a secret, writes its key record, and has the item use it. The
// item owns the secret, also when it fails. store.ErrExist if there is such a
// generation.
func (it *Item) makeGeneration(ctx context.Context, generation uint32, secret *crypt.Secret, wrappers []kek.Wrapper, made time.Time) (size int64, err error) {
	v := it.vault
	id := secretID{it.id, generation}
	now, err := v.currentEra()
	if err == nil {
		err = v.keep(id, secret, now)
	}
	if err != nil {
		secret.Close()
		return 0, err
	}
	body := keyRecord{Vault: v.id, Item: it.id[:], Generation: generation, Epoch: 1, Created: made.Unix(), Commitment: secret.Commitment()}
	if err = it.wrapGeneration(ctx, &body, secret, wrappers); err == nil {
		// A crash before the Put leaves nothing, and after it a generation that the
		// next reader finds.
		size, err = v.putKeyRecord(ctx, body)
	}
	if err != nil {
		v.drop(id, secret)
		return 0, err
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	it.generation, it.created = generation, time.Unix(body.Created, 0).UTC()
	it.records[generation], it.secrets[generation] = body, openSecret{secret, now}
	return size, nil
}

// wrapGeneration fills in the name and the wrappings. The mode is read again: another
// agent may have raised it.
func (it *Item) wrapGeneration(ctx context.Context, body *keyRecord, secret *crypt.Secret, wrappers []kek.Wrapper) error {
	v := it.vault
	vault, err := v.vaultRecord(ctx)
	if err != nil {
		return err
	}
	wrapped, err := wrapUnder(vault.Mode, wrappers, secret)
	if err != nil {
		return err
	}
	body.Wrappings = wrappings(wrapped)
	body.Name, err = v.key.SealName(it.id, it.name)
	return err
}

// NewGeneration makes a new data key for the item of that name, for what is backed up
// from now on by whoever reads the item again. The chunk-id key is carried over, so
// that nothing is stored twice. It re-encrypts nothing: what is there stays under the
// earlier generations.
func (v *Vault) NewGeneration(ctx context.Context, name string, now time.Time) error {
	it, err := v.Item(ctx, name)
	if err != nil {
		return err
	}
	defer it.Close()
	secret, err := it.Secret(ctx, it.generation)
	if err != nil {
		return err
	}
	if _, err := it.next(ctx, secret, v.keys().Wrappers(), now); err != nil {
		return fmt.Errorf("new generation of item %s: %w", name, err)
	}
	return nil
}

// next makes the item's next generation after secret, and returns the size of its
// record. If another agent was first, its generation does as well, and the size is 0.
func (it *Item) next(ctx context.Context, secret *crypt.Secret, wrappers []kek.Wrapper, now time.Time) (size int64, err error) {
	next, err := secret.Next()
	if err != nil {
		return 0, err
	}
	size, err = it.makeGeneration(ctx, it.generation+1, next, wrappers, now)
	if errors.Is(err, store.ErrExist) {
		return 0, nil
	}
	return size, err
}
