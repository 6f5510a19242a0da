package vault

import (
	"context"
	"errors"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/doctor"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/lock"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// term is how long the objects of a backup that begins now are kept in a vault. A lock
// of so many days counts from each backup: whatever the new point needs is kept that
// long, older packs too.
func (s *Set) term(vault string) (_ lock.Term, ok bool) {
	cfg := s.cfg.Settings().Vaults[vault].Lock
	if cfg == nil {
		return lock.Term{}, false
	}
	t := lock.For(s.cfg.Clock(), time.Duration(cfg.Days)*24*time.Hour)
	t.Asked.Compliance = cfg.Mode == "compliance"
	return t, true
}

// Retention is what a vault's store is asked for with what is put there now.
func (s *Set) Retention(vault string) store.Retention {
	t, _ := s.term(vault)
	return t.Asked
}

// Unlockable says what to do about a backup whose store cannot keep what the lock of its
// vault asks for.
func (s *Set) Unlockable(vault string, err error) error {
	cfg := s.cfg.Settings().Vaults[vault]
	if cfg.Lock == nil || !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return fault.New(control.Error{Code: control.CodeStore, Message: err.Error(), Next: doctor.LockNext(vault, cfg.Store)}, err)
}

// Retain returns what has the store keep what a new point of the item leans on, for a
// backup; nil if nothing is to be kept.
func (it *Item) Retain() func(ctx context.Context, packs []pack.ID, indexes []string) error {
	if _, ok := it.Vault.set.term(it.Vault.Name); !ok {
		return nil
	}
	return func(ctx context.Context, packs []pack.ID, indexes []string) error {
		term, ok := it.Vault.set.term(it.Vault.Name)
		if !ok {
			return nil // reloaded since
		}
		k := lock.New(lock.Config{Term: term, Store: it.Vault.Store, Notes: it.Index, Item: it.ID()})
		k.Packs(packs)
		for _, name := range indexes {
			// One that is gone was replaced by a prune; the packs say what it said.
			k.Object(it.IndexKey(name))
		}
		if err := k.Records(ctx); err != nil {
			return err
		}
		return k.Keep(ctx)
	}
}
