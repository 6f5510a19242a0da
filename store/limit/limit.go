// Package limit holds back what is read from and written to a store that has no
// network of its own to hold back: a folder. A bucket paces its connections itself
// (s3.Config).
//
// An object is accounted for before it is put, and what was read before it is handed
// on. Listings and deletions are free.
package limit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// Pace returns when n bytes may go, or ctx has ended.
type Pace func(ctx context.Context, n int) error

// Config of a Store. Several stores may share a Pace.
type Config struct {
	Upload, Download Pace
}

// Store is a store with limits. It implements store.Store, and store.Retainer if the
// inner store does.
type Store struct {
	inner store.Store
	cfg   Config
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Retainer = (*Store)(nil)
)

// New returns inner with limits.
func New(inner store.Store, cfg Config) *Store { return &Store{inner: inner, cfg: cfg} }

// Close closes the inner store if it is an io.Closer.
func (s *Store) Close() error {
	if c, ok := s.inner.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Get implements store.Getter.
func (s *Store) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	if err := s.inner.Get(ctx, key, p, off); err != nil {
		return err
	}
	if err := s.cfg.Download(ctx, len(p)); err != nil {
		return fmt.Errorf("get %s: %w", key, err)
	}
	return nil
}

// Stat implements store.Getter.
func (s *Store) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	return s.inner.Stat(ctx, key)
}

// Put implements store.Putter.
func (s *Store) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	if err := store.CheckPut(ctx, key, body); err != nil {
		return err
	}
	if err := s.cfg.Upload(ctx, int(body.Size())); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return s.inner.Put(ctx, key, body, opts)
}

// List implements store.Lister.
func (s *Store) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return s.inner.List(ctx, prefix)
}

// Delete implements store.Deleter.
func (s *Store) Delete(ctx context.Context, key store.Key) error { return s.inner.Delete(ctx, key) }

// RetainedUntil implements store.Retainer.
func (s *Store) RetainedUntil(ctx context.Context, key store.Key) (time.Time, error) {
	if r, ok := s.inner.(store.Retainer); ok {
		return r.RetainedUntil(ctx, key)
	}
	return time.Time{}, fmt.Errorf("retention of %s: %w", key, errors.ErrUnsupported)
}

// Retain implements store.Retainer.
func (s *Store) Retain(ctx context.Context, key store.Key, r store.Retention) error {
	if inner, ok := s.inner.(store.Retainer); ok {
		return inner.Retain(ctx, key, r)
	}
	return fmt.Errorf("retain %s: %w", key, errors.ErrUnsupported)
}
