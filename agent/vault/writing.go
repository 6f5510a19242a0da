package vault

import (
	"context"

	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
)

// BringUp brings the item's index up to the vault.
func (it *Item) BringUp(ctx context.Context) error {
	it.sync.Lock()
	defer it.sync.Unlock()
	return it.bringUp(ctx)
}

// bringUp is called with sync held. While a backup or a repair
// runs the index is up to the vault: only it changes the index then.
func (it *Item) bringUp(ctx context.Context) error {
	if it.writing {
		return nil
	}
	_, err := it.broughtUp(ctx, it.Sync)
	return err
}

// broughtUp brings the item's index up with sync, and tells what that found.
func (it *Item) broughtUp(ctx context.Context, sync func(context.Context, catalog.Local) (catalog.Synced, error)) (catalog.Synced, error) {
	done, err := sync(ctx, it.Index)
	if err != nil {
		return done, fault.Of(err)
	}
	if done.Recovered > 0 || len(done.Damaged) > 0 {
		it.Vault.set.cfg.Log.Warn("packs without an index found", "item", it.Name(), "good", done.Recovered, "damaged", done.Damaged)
	}
	return done, it.tellGone(ctx, done.Gone)
}

// BeginWriting takes over what a backup has to know before it begins. The function that
// it returns ends it.
func (it *Item) BeginWriting(ctx context.Context) (end func(), err error) {
	it.sync.Lock()
	defer it.sync.Unlock()
	if err := it.catchUp(ctx); err != nil {
		return nil, err
	}
	return func() {
		it.sync.Lock()
		defer it.sync.Unlock()
		it.writing = false
	}, nil
}

// BringUpWriting brings the index up for a backup, which is putting packs from then on.
// found hears of packs of an interrupted backup.
func (it *Item) BringUpWriting(ctx context.Context, found func(packs int)) (catalog.Synced, error) {
	it.sync.Lock()
	defer it.sync.Unlock()
	synced, err := it.broughtUp(ctx, it.SyncPacks)
	if err != nil {
		return synced, err
	}
	it.writing = true
	if synced.Recovered > 0 {
		found(synced.Recovered)
	}
	return synced, nil
}

// catchUp has an item that somebody had open already take over the generations that
// were made since: what a backup writes is under the newest.
func (it *Item) catchUp(ctx context.Context) error {
	it.Vault.mu.Lock()
	shared := it.shared
	it.Vault.mu.Unlock()
	if !shared {
		return nil
	}
	return fault.Of(it.Reread(ctx))
}
