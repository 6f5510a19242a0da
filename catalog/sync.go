package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
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
	Marker
}

// Marker marks that an index may not know all packs that are in the store.
type Marker interface {
	// Begin sets the mark, and tells whether it was set: then somebody who was
	// putting packs, or finding them again, never came to his End.
	Begin(ctx context.Context) (unclean bool, err error)
	// End takes the mark away.
	End(ctx context.Context) error
}

// Synced says what a Sync did.
type Synced struct {
	Indexes   int         // index objects read
	Recovered int         // packs found without an index
	Damaged   []store.Key // indexes, and packs without an index, that do not open
	Unopened  int         // those of generations that no key opens now: the index lacks them
}

// Sync brings the local index up to the vault. If index objects that it was made
// of are gone, it is made anew. If it is new, or a backup was interrupted, all
// packs are listed, and those that no index object names are found again. What is of
// a generation that no key opens now is passed over, and tried again the next time.
// Nobody may put packs of the item meanwhile.
func (it *Item) Sync(ctx context.Context, local Local) (Synced, error) {
	done, err := it.sync(ctx, local)
	if err != nil {
		err = fmt.Errorf("sync index of %s: %w", it.name, err)
	}
	return done, err
}

func (it *Item) sync(ctx context.Context, local Local) (done Synced, err error) {
	// A crash from here to End leaves the mark, and the next Sync lists all packs.
	unclean, err := local.Begin(ctx)
	if err != nil {
		return done, err
	}
	known, err := local.Sources(ctx)
	if err != nil {
		return done, err
	}
	var missing []string
	seen := 0
	for name, err := range it.Indexes(ctx) {
		if err != nil {
			return done, err
		}
		if _, ok := known[name]; ok {
			seen++
		} else {
			missing = append(missing, name)
		}
	}
	if seen < len(known) {
		if err := local.Reset(ctx); err != nil {
			return done, err
		}
		return it.sync(ctx, local)
	}
	locked := make(lockedGenerations)
	for _, name := range missing {
		contents, err := openUnless(ctx, it, locked, it.IndexKey(name), func() ([]pack.Contents, error) { return it.Index(ctx, name) })
		switch {
		case isUnopened(err):
			done.Unopened++
			continue
		case errors.Is(err, crypt.ErrDamaged): // its packs say the same of themselves
			unclean = true
			done.Damaged = append(done.Damaged, it.IndexKey(name))
		case err != nil:
			return done, err
		}
		if err := local.Add(ctx, name, contents); err != nil {
			return done, err
		}
		done.Indexes++
	}
	if unclean || len(known) == 0 {
		if err := it.syncPacks(ctx, local, locked, &done); err != nil {
			return done, err
		}
	}
	return done, local.End(ctx)
}

// syncPacks compares the packs that are there with those that are known: takes in
// what an interrupted backup left, and forgets what is gone.
func (it *Item) syncPacks(ctx context.Context, local Local, locked lockedGenerations, done *Synced) error {
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
		contents, err := openUnless(ctx, it, locked, pack.Key(it.id, id), func() (pack.Contents, error) { return reader.Contents(ctx, id) })
		switch {
		case isUnopened(err):
			done.Unopened++
			continue
		case errors.Is(err, crypt.ErrDamaged), errors.Is(err, store.ErrNotExist):
			done.Damaged = append(done.Damaged, pack.Key(it.id, id))
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

// lockedGenerations are those that no key opens now, and why. Each costs one try.
type lockedGenerations map[uint32]error

// isUnopened tells whether err says that no key opens a secret.
func isUnopened(err error) bool {
	var unopened *kek.UnwrapError
	return errors.As(err, &unopened)
}

// openUnless opens an object of the item, unless it is of a generation that did not
// open before.
func openUnless[T any](ctx context.Context, it *Item, locked lockedGenerations, key store.Key, open func() (T, error)) (T, error) {
	if len(locked) > 0 {
		if g, err := it.generationOf(ctx, key); err == nil && locked[g] != nil {
			var none T
			return none, locked[g]
		}
	}
	out, err := open()
	if isUnopened(err) {
		g, gerr := it.generationOf(ctx, key)
		if gerr != nil {
			return out, gerr
		}
		locked[g] = err
	}
	return out, err
}
