package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// Observe returns a store whose faults are counted for some vaults, which are asked for
// at each fault.
func (m *Metrics) Observe(inner store.Store, vaults func() []string) store.Store {
	return observedStore{inner: inner, count: func(err error) { m.storeFault(err, vaults) }}
}

// NotOpened counts for some vaults that their store could not be opened.
func (m *Metrics) NotOpened(err error, vaults func() []string) {
	if counts(err) {
		m.storeFault(err, vaults)
	}
}

// storeFault counts that an operation of a store failed for good.
func (m *Metrics) storeFault(err error, vaults func() []string) {
	how := OtherFault
	for _, f := range []struct {
		is  error
		how StoreFault
	}{
		{store.ErrUnavailable, Unavailable}, {store.ErrDenied, Denied}, {store.ErrFull, Full}, {store.ErrMissing, Missing},
	} {
		if errors.Is(err, f.is) {
			how = f.how
			break
		}
	}
	for _, vault := range vaults() {
		m.StoreFailed(vault, how)
	}
}

// counts tells whether an error is a fault of a store: answers that somebody has to
// expect are none.
func counts(err error) bool {
	for _, expected := range []error{store.ErrNotExist, store.ErrExist, store.ErrLocked, errors.ErrUnsupported, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, expected) {
			return false
		}
	}
	return err != nil
}

// observedStore is a store whose faults are counted.
type observedStore struct {
	inner store.Store
	count func(error)
}

var _ store.Retainer = observedStore{}

// see counts an error, and returns it.
func (o observedStore) see(err error) error {
	if counts(err) {
		o.count(err)
	}
	return err
}

// Get implements store.Getter.
func (o observedStore) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	return o.see(o.inner.Get(ctx, key, p, off))
}

// Stat implements store.Getter.
func (o observedStore) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	info, err := o.inner.Stat(ctx, key)
	return info, o.see(err)
}

// Put implements store.Putter.
func (o observedStore) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	return o.see(o.inner.Put(ctx, key, body, opts))
}

// Delete implements store.Deleter.
func (o observedStore) Delete(ctx context.Context, key store.Key) error {
	return o.see(o.inner.Delete(ctx, key))
}

// List implements store.Lister.
func (o observedStore) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for info, err := range o.inner.List(ctx, prefix) {
			if !yield(info, o.see(err)) {
				return
			}
		}
	}
}

// RetainedUntil implements store.Retainer, if the inner store does.
func (o observedStore) RetainedUntil(ctx context.Context, key store.Key) (time.Time, error) {
	r, ok := o.inner.(store.Retainer)
	if !ok {
		return time.Time{}, fmt.Errorf("retention of %s: %w", key, errors.ErrUnsupported)
	}
	until, err := r.RetainedUntil(ctx, key)
	return until, o.see(err)
}

// Retain implements store.Retainer, if the inner store does.
func (o observedStore) Retain(ctx context.Context, key store.Key, retention store.Retention) error {
	r, ok := o.inner.(store.Retainer)
	if !ok {
		return fmt.Errorf("retain %s: %w", key, errors.ErrUnsupported)
	}
	return o.see(r.Retain(ctx, key, retention))
}

// Close closes the inner store, if it can be closed.
func (o observedStore) Close() error {
	if c, ok := o.inner.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
