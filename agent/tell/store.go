package tell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/store"
)

// Observed has the faults of the stores that open opens counted.
func (t *Teller) Observed(open func(context.Context, config.Vault) (store.Store, error)) func(context.Context, config.Vault) (store.Store, error) {
	return func(ctx context.Context, vault config.Vault) (store.Store, error) {
		o := observedStore{count: func(err error) { t.countFault(vault.Store, err) }}
		st, err := open(ctx, vault)
		if err != nil {
			return nil, o.see(err)
		}
		o.inner = st
		return o, nil
	}
}

// countFault counts that an operation of a store failed for good.
func (t *Teller) countFault(url string, err error) {
	how := metrics.OtherFault
	for _, f := range []struct {
		is  error
		how metrics.StoreFault
	}{
		{store.ErrUnavailable, metrics.Unavailable}, {store.ErrDenied, metrics.Denied}, {store.ErrFull, metrics.Full}, {store.ErrMissing, metrics.Missing},
	} {
		if errors.Is(err, f.is) {
			how = f.how
			break
		}
	}
	for name, v := range t.cfg.Settings().Vaults {
		if v.Store == url {
			t.counts.StoreFailed(name, how)
		}
	}
}

// observedStore is a store whose faults are counted. Answers that somebody has to
// expect are none.
type observedStore struct {
	inner store.Store
	count func(error)
}

var _ store.Retainer = observedStore{}

// see counts an error, and returns it.
func (o observedStore) see(err error) error {
	for _, expected := range []error{store.ErrNotExist, store.ErrExist, store.ErrLocked, errors.ErrUnsupported, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, expected) {
			return err
		}
	}
	if err != nil {
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
