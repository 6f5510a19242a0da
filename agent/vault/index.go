package vault

import (
	"context"
	"sync"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// Index is the local index of an item.
type Index interface {
	backup.Index
	// Contents returns what a pack holds; ok is false if it is not known.
	Contents(ctx context.Context, id pack.ID) (c pack.Contents, ok bool, err error)
	// DropSources forgets that index objects were added, and not what is in them.
	DropSources(ctx context.Context, names []string) error
	Close() error
}

// Shared returns the item's index as a prune uses it, beside backups and restores.
func (it *Item) Shared() Index { return sharedIndex{it.Index, &it.sync} }

// sharedIndex is the local index of an item in which no call falls into the middle of bringing the index up to the vault.
type sharedIndex struct {
	Index
	sync *sync.Mutex
}

func (x sharedIndex) Add(ctx context.Context, source string, contents []pack.Contents) error {
	x.sync.Lock()
	defer x.sync.Unlock()
	return x.Index.Add(ctx, source, contents)
}

func (x sharedIndex) Forget(ctx context.Context, packs []pack.ID) error {
	x.sync.Lock()
	defer x.sync.Unlock()
	return x.Index.Forget(ctx, packs)
}

func (x sharedIndex) DropSources(ctx context.Context, names []string) error {
	x.sync.Lock()
	defer x.sync.Unlock()
	return x.Index.DropSources(ctx, names)
}

func (x sharedIndex) Contents(ctx context.Context, id pack.ID) (pack.Contents, bool, error) {
	x.sync.Lock()
	defer x.sync.Unlock()
	return x.Index.Contents(ctx, id)
}

func (x sharedIndex) Lookup(ctx context.Context, id chunk.ID) (pack.Location, bool, error) {
	x.sync.Lock()
	defer x.sync.Unlock()
	return x.Index.Lookup(ctx, id)
}

func (x sharedIndex) Places(ctx context.Context, id chunk.ID) ([]pack.Location, error) {
	x.sync.Lock()
	defer x.sync.Unlock()
	return x.Index.Places(ctx, id)
}
