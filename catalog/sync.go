package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Local is the local index of an item, as Sync sees it: a cache of what the vault
// says, which may be lost or stale at any time.
type Local interface {
	// Sources names the index objects that have been added.
	Sources(ctx context.Context) (map[string]struct{}, error)
	// Add adds what packs hold: those of the index object source, or, with source
	// "", packs that no index object names yet.
	Add(ctx context.Context, source string, contents []pack.Contents) error
	// Packs yields the packs that have been added.
	Packs(ctx context.Context) iter.Seq2[pack.ID, error]
	// Forget removes packs that are gone.
	Forget(ctx context.Context, packs []pack.ID) error
	// Reset empties the index.
	Reset(ctx context.Context) error
}

// SyncOptions of a Sync.
type SyncOptions struct {
	// Packs asks to look for packs that no index object names, which an
	// interrupted backup leaves. It costs a listing of all packs.
	Packs bool
}

// Synced says what a Sync did.
type Synced struct {
	Indexes   int       // index objects read
	Recovered int       // packs found without an index
	Damaged   []pack.ID // packs without an index that do not open; nothing needs them
}

// Sync brings the local index up to the vault. If index objects that it was made
// of are gone, it is made anew.
func (it *Item) Sync(ctx context.Context, local Local, opts SyncOptions) (Synced, error) {
	var done Synced
	wrap := func(err error) (Synced, error) { return done, fmt.Errorf("sync index of %s: %w", it.name, err) }
	known, err := local.Sources(ctx)
	if err != nil {
		return wrap(err)
	}
	missing, seen := []string(nil), 0
	for name, err := range it.Indexes(ctx) {
		if err != nil {
			return wrap(err)
		}
		if _, ok := known[name]; ok {
			seen++
		} else {
			missing = append(missing, name)
		}
	}
	if seen < len(known) {
		if err := local.Reset(ctx); err != nil {
			return wrap(err)
		}
		return it.Sync(ctx, local, SyncOptions{Packs: true})
	}
	for _, name := range missing {
		contents, err := it.Index(ctx, name)
		if err != nil {
			return wrap(err)
		}
		if err := local.Add(ctx, name, contents); err != nil {
			return wrap(err)
		}
		done.Indexes++
	}
	if opts.Packs || len(known) == 0 {
		if err := it.syncPacks(ctx, local, &done); err != nil {
			return wrap(err)
		}
	}
	return done, nil
}

// syncPacks compares the packs that are there with those that are known: takes in
// what an interrupted backup left, and forgets what is gone.
func (it *Item) syncPacks(ctx context.Context, local Local, done *Synced) error {
	gone := make(map[pack.ID]struct{})
	for id, err := range local.Packs(ctx) {
		if err != nil {
			return err
		}
		gone[id] = struct{}{}
	}
	reader := pack.NewReader(it.vault.objects, it, it.id)
	for id, err := range it.Packs(ctx) {
		if err != nil {
			return err
		}
		if _, ok := gone[id]; ok {
			delete(gone, id)
			continue
		}
		contents, err := reader.Contents(ctx, id)
		switch {
		case errors.Is(err, crypt.ErrDamaged), errors.Is(err, store.ErrNotExist):
			done.Damaged = append(done.Damaged, id)
			continue
		case err != nil:
			return err
		}
		if err := local.Add(ctx, "", []pack.Contents{contents}); err != nil {
			return err
		}
		done.Recovered++
	}
	if len(gone) == 0 {
		return nil
	}
	ids := make([]pack.ID, 0, len(gone))
	for id := range gone {
		ids = append(ids, id)
	}
	return local.Forget(ctx, ids)
}
