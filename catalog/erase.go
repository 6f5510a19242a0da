package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// Erased says what an erasure did, and what it could not do.
type Erased struct {
	Secrets     int       // generations whose last key record was deleted
	Deleted     int       // objects that were deleted, key records included
	Locked      int       // objects that the store keeps, key records included
	LockedKeys  int       // key records that it keeps: as long as they stay, a key still opens the secret
	LockedUntil time.Time // when the last of them may go; zero: there are none, or the store does not say
}

// Erase destroys the item of that name, for ever: it deletes every wrapping of its
// secrets, after which its bytes are noise, and then the bytes as far as the store
// lets it. What the store does not let go is in the answer, and not an error; a key
// record among it can be opened until its lock ends, or its KEK is destroyed.
//
// First it writes a tombstone, which ends the item for every reader, and closes its
// secrets in this process. A crash after
// that leaves an erased item of which something lies about; Erase again goes on, and
// so does Sweep.
//
// Erase removes what the store shows. In a bucket with versions that is one version
// of each object, and no delete marker is left. Versions that somebody else's delete
// marker hides stay, as do replicas of the bucket and copies of it: only destroying
// the KEK reaches those.
func (v *Vault) Erase(ctx context.Context, del store.Deleter, name string, now time.Time) (Erased, error) {
	it, err := v.bury(ctx, name, now)
	if err != nil {
		return Erased{}, fmt.Errorf("erase item %s: %w", name, err)
	}
	v.forget(it.id)
	done, err := v.sweep(ctx, del, it)
	if err != nil {
		err = fmt.Errorf("erase item %s: %w", name, err)
	}
	return done, err
}

// Sweep deletes what an erasure of the item of that name could not, such as objects
// whose lock has ended since. It does no harm to an item that was made again after
// it, and nothing at all to one that was never erased.
func (v *Vault) Sweep(ctx context.Context, del store.Deleter, name string) (Erased, error) {
	it, err := v.find(ctx, name)
	if err != nil {
		return Erased{}, err
	}
	if it.tombstone == 0 {
		return Erased{}, nil
	}
	done, err := v.sweep(ctx, del, it)
	if err != nil {
		err = fmt.Errorf("sweep item %s: %w", name, err)
	}
	return done, err
}

// bury makes sure that the newest key record of the item is a tombstone.
func (v *Vault) bury(ctx context.Context, name string, now time.Time) (*Item, error) {
	id, err := v.key.ItemID(name)
	if err != nil {
		return nil, err
	}
	for {
		names, err := listRecords(ctx, v.objects, ItemRecords(id))
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			if v.floors.Floor(id.String(), 0) > 0 {
				return nil, fmt.Errorf("all its key records are gone: %w", ErrRolledBack)
			}
			return nil, ErrNoItem
		}
		last := names[len(names)-1]
		it := &Item{vault: v, id: id, name: name, tombstone: last.generation}
		body, err := v.readRecord(ctx, last)
		if err != nil && final(ctx, err) {
			return nil, err
		}
		if err == nil && body.Erased != 0 {
			return it, nil
		}
		// Records that are damaged, forged or rolled back do not stand in the way: the
		// tombstone stands after all of them.
		label, err := v.key.SealName(id, name)
		if err != nil {
			return nil, err
		}
		it.tombstone++
		_, err = v.putKeyRecord(ctx, keyRecord{Vault: v.id, Item: id[:], Generation: it.tombstone, Epoch: 1,
			Created: now.Unix(), Name: label, Erased: now.Unix()})
		// A crash here leaves an erased item with everything it had.
		if !errors.Is(err, store.ErrExist) { // else another agent was first, with whatever
			return it, err
		}
	}
}

// sweeper deletes what is left of erased generations.
type sweeper struct {
	vault *Vault
	item  *Item
	del   store.Deleter
	alive bool // the item was made again

	mu   sync.Mutex
	done Erased
}

// sweep deletes what is left of the item's generations before its tombstone: first
// every key record, because they alone matter, then the rest, packs last. A crash
// anywhere leaves less to sweep.
func (v *Vault) sweep(ctx context.Context, del store.Deleter, it *Item) (Erased, error) {
	s := &sweeper{vault: v, item: it, del: del}
	if err := s.keys(ctx); err != nil {
		return s.done, err
	}
	for _, folder := range folders {
		if err := s.objects(ctx, it.prefix(folder)); err != nil {
			return s.done, err
		}
	}
	return s.done, nil
}

func (s *sweeper) keys(ctx context.Context) error {
	names, err := listRecords(ctx, s.vault.objects, ItemRecords(s.item.id))
	if err != nil {
		return err
	}
	for i := 0; i < len(names); {
		n := i + 1
		for n < len(names) && names[n].generation == names[i].generation {
			n++
		}
		switch generation := names[i].generation; {
		case generation < s.item.tombstone:
			if err := s.secret(ctx, names[i:n]); err != nil {
				return err
			}
		case generation > s.item.tombstone:
			s.alive = true
		}
		i = n
	}
	return nil
}

// secret deletes all records of a generation.
func (s *sweeper) secret(ctx context.Context, names []recordName) error {
	body, err := s.vault.readRecord(ctx, names[len(names)-1])
	if err != nil && final(ctx, err) {
		return err
	}
	isSecret := err != nil || body.Erased == 0 // and not the tombstone of an erasure before
	locked := s.done.LockedKeys
	for _, n := range names {
		if err := s.remove(ctx, n.key(), true); err != nil {
			return err
		}
	}
	if isSecret && s.done.LockedKeys == locked {
		s.done.Secrets++
	}
	return nil
}

// sweepers is how many objects are deleted at once.
const sweepers = 8

func (s *sweeper) objects(ctx context.Context, prefix store.Key) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(sweepers)
	var failed error
	for info, err := range s.vault.objects.List(gctx, prefix) {
		if err != nil {
			failed = err
			break
		}
		if !s.item.known(info.Key) {
			continue
		}
		group.Go(func() error {
			ours, err := s.erased(gctx, info.Key)
			if err != nil || !ours {
				return err
			}
			return s.remove(gctx, info.Key, false)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return failed
}

// erased tells whether an object is of a generation before the tombstone. What does
// not say so is spared if the item was made again.
func (s *sweeper) erased(ctx context.Context, key store.Key) (bool, error) {
	generation, err := s.item.generationOf(ctx, key)
	switch {
	case err == nil:
		return generation <= s.item.tombstone, nil
	case errors.Is(err, store.ErrNotExist): // somebody else sweeps too
		return false, nil
	case final(ctx, err):
		return false, err
	}
	return !s.alive, nil
}

// remove deletes an object, or notes that the store keeps it.
func (s *sweeper) remove(ctx context.Context, key store.Key, record bool) error {
	err := s.del.Delete(ctx, key)
	if err != nil && !errors.Is(err, store.ErrLocked) {
		return err
	}
	var until time.Time
	if r, ok := s.del.(store.Retainer); err != nil && ok {
		var rerr error
		if until, rerr = r.RetainedUntil(ctx, key); rerr != nil && !errors.Is(rerr, errors.ErrUnsupported) && final(ctx, rerr) {
			return rerr
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.done.Deleted++
		return nil
	}
	s.done.Locked++
	if record {
		s.done.LockedKeys++
	}
	if until.After(s.done.LockedUntil) {
		s.done.LockedUntil = until
	}
	return nil
}

// isDead tells whether an object was sealed under a generation that an erasure
// ended: it stays because the store does not let it go, and is noise. The header
// that says so is not authenticated; who can change it can as well remove the object.
func (it *Item) isDead(ctx context.Context, key store.Key) (bool, error) {
	if it.tombstone == 0 {
		return false, nil
	}
	it.mu.Lock()
	dead, known := it.dead[key]
	it.mu.Unlock()
	if known {
		return dead, nil
	}
	generation, err := it.generationOf(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotExist): // since the listing
		return true, nil
	case err != nil && final(ctx, err):
		return false, err
	case err != nil: // whoever reads it finds out
		return false, nil
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.dead == nil {
		it.dead = make(map[store.Key]bool)
	}
	it.dead[key] = generation <= it.tombstone
	return it.dead[key], nil
}

// generationOf reads from its header which generation an object was sealed under.
func (it *Item) generationOf(ctx context.Context, key store.Key) (uint32, error) {
	header := make([]byte, crypt.HeaderSize)
	if err := it.vault.objects.Get(ctx, key, header, 0); err != nil {
		return 0, fmt.Errorf("read header of %s: %w", key, err)
	}
	h, err := crypt.ParseHeader(header)
	if err != nil {
		return 0, fmt.Errorf("read header of %s: %w", key, err)
	}
	return h.Generation, nil
}
