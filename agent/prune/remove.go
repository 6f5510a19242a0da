package prune

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/store"
)

// remover deletes objects, and counts those that the store keeps. It is safe for
// concurrent use.
type remover struct {
	store    store.Deleter
	dry      bool // delete nothing and say that it was done
	locks    bool // the vault has what it puts locked
	now      time.Time
	progress *Progress

	mu     sync.Mutex
	freed  int64
	locked map[store.Key]time.Time
}

// removers is how many objects are deleted at once.
const removers = 8

// object deletes an object of that size. gone is false if the store keeps it.
func (d *remover) object(ctx context.Context, key store.Key, size int64) (gone bool, err error) {
	if !d.dry {
		err = d.store.Delete(ctx, key)
	}
	switch {
	case errors.Is(err, store.ErrLocked):
		return false, d.keep(ctx, key)
	case errors.Is(err, store.ErrDenied):
		return false, fmt.Errorf("delete %s: %w: %w", key, ErrMayNotDelete, err)
	case err != nil:
		return false, fmt.Errorf("delete %s: %w", key, err)
	}
	d.progress.Removed.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freed += size
	return true, nil
}

// retained tells whether the store will not let an object go, without an attempt, and
// notes it then.
func (d *remover) retained(ctx context.Context, key store.Key) (bool, error) {
	r, ok := d.store.(store.Retainer)
	if !ok {
		return false, nil
	}
	until, err := r.RetainedUntil(ctx, key)
	switch {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, store.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask until when %s is kept: %w", key, err)
	case !until.After(d.now):
		return false, nil
	}
	d.note(key, until)
	return true, nil
}

// keep notes an object that the store does not let go, and until when.
func (d *remover) keep(ctx context.Context, key store.Key) error {
	var until time.Time
	if r, ok := d.store.(store.Retainer); ok {
		var err error
		until, err = r.RetainedUntil(ctx, key)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, store.ErrNotExist) {
			return fmt.Errorf("ask until when %s is kept: %w", key, err)
		}
	}
	d.note(key, until)
	return nil
}

func (d *remover) note(key store.Key, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked == nil {
		d.locked = make(map[store.Key]time.Time)
	}
	d.locked[key] = until
}

// free returns those that the store lets go, as far as it says so beforehand, and tells
// of the others: what is only tried and kept would be written down as removed each time.
// Where the vault has nothing locked the bucket may do so by itself: then the first is.
func free[T any](ctx context.Context, del *remover, all []T, key func(T) store.Key, keep func(T)) ([]T, error) {
	if !del.locks && len(all) > 0 {
		held, err := del.retained(ctx, key(all[0]))
		if err != nil || !held {
			return all, err
		}
	}
	held, places := make([]bool, len(all)), make([]int, len(all))
	for i := range places {
		places[i] = i
	}
	err := each(ctx, places, func(ctx context.Context, i int) (err error) {
		held[i], err = del.retained(ctx, key(all[i]))
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(all))
	for i, one := range all {
		if held[i] {
			keep(one)
		} else {
			out = append(out, one)
		}
	}
	return out, nil
}

// each does something for all of some things, a few at once.
func each[T any](ctx context.Context, all []T, do func(ctx context.Context, one T) error) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(removers)
	for _, one := range all {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(gctx, one) })
	}
	return group.Wait()
}

// report adds what was counted to a result.
func (d *remover) report(done *Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	done.FreedBytes = d.freed
	done.Locked = int64(len(d.locked))
	for _, until := range d.locked {
		if until.After(done.LockedUntil) {
			done.LockedUntil = until
		}
	}
}
