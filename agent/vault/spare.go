package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/store/pack"
)

// What is restored must not hang on the disk that the state is on: where the local index
// of an item cannot be used, because that is full, dying or mounted read-only, those who
// read the item use an index in memory that is built from the vault. Those who write do
// not: a backup has to remember what it does.

// spare is an index in memory in the place of one that cannot be used.
type spare struct {
	mu    sync.Mutex
	index Index // nil: there is none yet
	cause error // why it is used; nil: it is not
}

// because returns why a spare is used, or nil if none is.
func (s *spare) because() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// get returns the index in memory, or nil.
func (s *spare) get() Index {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index
}

func (s *spare) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index != nil {
		s.index.Close()
		s.index = nil
	}
}

// standIn returns the spare of an item's index, which is made and brought up to the vault
// if there is none yet.
func (it *Item) standIn(ctx context.Context, cause error) (Index, error) {
	it.spare.mu.Lock()
	defer it.spare.mu.Unlock()
	if it.spare.index != nil {
		return it.spare.index, nil
	}
	cfg := it.Vault.set.cfg
	index, err := cfg.Index(ctx, "")
	if err != nil {
		return nil, errors.Join(cause, err)
	}
	if _, err := it.Sync(ctx, index); err != nil {
		index.Close()
		return nil, errors.Join(cause, fault.Of(err))
	}
	cfg.Log.Warn("local index cannot be used; an index in memory takes its place for reading", "vault", it.Vault.Name, "item", it.Name(), "cause", cause)
	it.spare.index, it.spare.cause = index, cause
	return index, nil
}

// WhenUp calls do, which only reads, when the item's index is up to the vault, or the spare
// in its place, and has nobody else bring it up meanwhile.
func (it *Item) WhenUp(ctx context.Context, do func() error) error {
	it.sync.Lock()
	defer it.sync.Unlock()
	if err := it.bringUpToRead(ctx); err != nil {
		return err
	}
	return do()
}

// bringUpToRead is bringUp for who can do with the spare.
func (it *Item) bringUpToRead(ctx context.Context) error {
	err := it.bringUp(ctx)
	index := it.spare.get()
	if errors.Is(err, durable.ErrState) {
		index, err = it.standIn(ctx, err)
	}
	if err != nil || index == nil {
		return err
	}
	_, err = it.Sync(ctx, index) // it may have been made long ago, and is read from then on
	return fault.Of(err)
}

// apart opens an item with an index in memory of its own, as that on disk cannot be
// opened. The caller closes it.
func (s *Set) apart(ctx context.Context, name string, cause error) (*Item, error) {
	v, err := s.Open(ctx, s.cfg.Settings().Items[name].Vault)
	if err != nil {
		return nil, err
	}
	opened, err := v.Catalog.Item(ctx, name)
	if err != nil {
		return nil, fault.Of(err)
	}
	index, err := s.cfg.Index(ctx, "")
	if err != nil {
		opened.Close()
		return nil, errors.Join(cause, err)
	}
	s.cfg.Log.Warn("local index cannot be opened; an index in memory takes its place for reading", "vault", v.Name, "item", name, "cause", cause)
	it := newItem(v, opened, index)
	it.apart, it.spare.cause = true, cause
	return it, nil
}

// ToRead is Item for who only reads: if its local index cannot be opened, with one in
// memory.
func (s *Set) ToRead(ctx context.Context, name string) (*Item, error) {
	it, err := s.Item(ctx, name)
	if errors.Is(err, durable.ErrState) {
		return s.apart(ctx, name, err)
	}
	return it, err
}

// RememberingToRead is Remembering for who only reads: if the local index cannot be used,
// with one in memory, which is worth while for him.
func (s *Set) RememberingToRead(ctx context.Context, name string) (*Item, catalog.SyncedPoints, error) {
	it, synced, err := s.Remembering(ctx, name)
	if !errors.Is(err, durable.ErrState) {
		return it, synced, err
	}
	if it, err = s.apart(ctx, name, err); err != nil {
		return nil, catalog.SyncedPoints{}, err
	}
	if synced, err = it.LookAgain(ctx); err != nil {
		it.Close()
		return nil, synced, err
	}
	return it, synced, nil
}

// Unindexed says that an item is read without its local index, or nothing.
func (it *Item) Unindexed() []string {
	if cause := it.spare.because(); cause != nil {
		return []string{fmt.Sprintf("the local index cannot be used, and one in memory, built from the vault, takes its place: %v", cause)}
	}
	return nil
}

// lookup is where a reader of an item looks for chunks: in its index and, from when that
// can no more be read, in the spare.
type lookup struct{ item *Item }

// Lookup implements catalog.Lookup.
func (l lookup) Lookup(ctx context.Context, id chunk.ID) (loc pack.Location, ok bool, err error) {
	err = l.in(ctx, func(index Index) error {
		loc, ok, err = index.Lookup(ctx, id)
		return err
	})
	return loc, ok, err
}

// Places implements catalog.Places.
func (l lookup) Places(ctx context.Context, id chunk.ID) (places []pack.Location, err error) {
	err = l.in(ctx, func(index Index) error {
		places, err = index.Places(ctx, id)
		return err
	})
	return places, err
}

// in asks the index or, if that cannot answer, the spare.
func (l lookup) in(ctx context.Context, ask func(Index) error) error {
	if index := l.item.spare.get(); index != nil {
		return ask(index)
	}
	err := ask(l.item.Index)
	if !errors.Is(err, durable.ErrState) {
		return err
	}
	index, err := l.item.standIn(ctx, err)
	if err != nil {
		return err
	}
	return ask(index)
}
