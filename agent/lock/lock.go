// Package lock has a store keep what a new point needs from earlier backups, as long as
// the point itself: packs, index objects, key records and the descriptor.
//
// What the store has said once is remembered in the notes of the local index, so that a
// backup asks only about what may not be kept long enough.
package lock

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Term is how long objects are to be kept. More is asked for than is needed, so that
// what many backups need is not asked about by each.
type Term struct {
	Least time.Time       // until when an object must be kept at the least
	Asked store.Retention // what the store is asked for, where it is less
}

// slackShare: a quarter more than is needed is asked for. A pack that every day's
// backup needs is asked about four times in the term.
const slackShare = 4

// For returns the term of a backup that begins now.
func For(now time.Time, length time.Duration) Term {
	least := now.Add(length)
	return Term{Least: least, Asked: store.Retention{Until: least.Add(length / slackShare)}}
}

// Config of a Keeper.
type Config struct {
	Term
	Store store.Lister     // the vault's, which is a store.Retainer too, or Keep fails
	Notes catalog.Notebook // of the item's local index
	Item  crypt.ItemID
}

// Keeper gathers objects and has the store keep them.
type Keeper struct {
	cfg     Config
	objects map[pack.ID]keepsake
}

// New returns a keeper without objects.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg, objects: make(map[pack.ID]keepsake)} }

// keepsake is an object to be kept.
type keepsake struct {
	key    store.Key
	needed bool // nothing works without it
}

// Packs adds packs of the item. Keep fails if one is not there.
func (k *Keeper) Packs(ids []pack.ID) {
	for _, id := range ids {
		k.objects[id] = keepsake{key: pack.Key(k.cfg.Item, id), needed: true}
	}
}

// Object adds an object that may be gone.
func (k *Keeper) Object(key store.Key) { k.objects[noteID(key)] = keepsake{key: key} }

// noteID is what a note is kept under of an object that is no pack.
func noteID(key store.Key) pack.ID {
	sum := sha256.Sum256([]byte(key))
	return pack.ID(sum[:len(pack.ID{})])
}

// Records adds the descriptor and the newest key record of each generation, of the
// vault and of the item: without them a point is noise. So an erasure of the item is
// whole only when the term has ended, or with the end of the key that wraps.
func (k *Keeper) Records(ctx context.Context) error {
	k.objects[noteID(catalog.Descriptor)] = keepsake{key: catalog.Descriptor, needed: true}
	for _, folder := range []store.Key{catalog.VaultRecords, catalog.ItemRecords(k.cfg.Item)} {
		newest := make(map[string]store.Key) // by generation
		for info, err := range k.cfg.Store.List(ctx, folder) {
			if err != nil {
				return fmt.Errorf("list key records in %s: %w", folder, err)
			}
			generation, _, _ := strings.Cut(info.Key.Base(), "-")
			newest[generation] = info.Key // epochs ascend
		}
		for _, key := range newest {
			k.Object(key) // a rotation may put another in its place, and a prune remove it
		}
	}
	return nil
}

// keepers is how many objects are asked about at once.
const keepers = 8

// Keep asks for what is not known to be kept long enough. What was done is remembered
// also if something fails. errors.ErrUnsupported if the store keeps nothing,
// store.ErrNotExist if a pack is gone.
func (k *Keeper) Keep(ctx context.Context) error {
	retainer, ok := k.cfg.Store.(store.Retainer)
	if !ok {
		return fmt.Errorf("keep objects until %s: %w", k.cfg.Least.Format(time.DateOnly), errors.ErrUnsupported)
	}
	enough := k.cfg.Least.Add(time.Second - 1).Unix() // notes are whole seconds
	for n, err := range k.cfg.Notes.Notes(ctx, catalog.NoteRetained) {
		if err != nil {
			return err
		}
		if n.Value >= enough {
			delete(k.objects, n.Pack)
		}
	}
	var mu sync.Mutex
	done := make(map[pack.ID]int64)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(keepers)
	for id, object := range k.objects {
		group.Go(func() error {
			until, err := k.extend(gctx, retainer, object.key)
			if !object.needed && errors.Is(err, store.ErrNotExist) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("keep %s until %s: %w", object.key, k.cfg.Asked.Until.UTC().Format(time.DateOnly), err)
			}
			mu.Lock()
			defer mu.Unlock()
			done[id] = until.Unix()
			return nil
		})
	}
	err := group.Wait()
	return errors.Join(err, k.cfg.Notes.SetNotes(context.WithoutCancel(ctx), catalog.NoteRetained, done))
}

// extend sees to it that an object is kept long enough, and returns until when it is.
func (k *Keeper) extend(ctx context.Context, r store.Retainer, key store.Key) (time.Time, error) {
	until, err := r.RetainedUntil(ctx, key)
	if err != nil {
		return time.Time{}, err
	}
	if !until.Before(k.cfg.Least) {
		return until, nil
	}
	return k.cfg.Asked.Until, r.Retain(ctx, key, k.cfg.Asked)
}
