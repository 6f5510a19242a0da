// Package mem keeps a store in memory, for tests. It keeps every promise of the
// contract, retention included, and refuses what a caller must not do: keys that
// are folders of other keys.
package mem

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// Config of a Store. The zero value is a store without limit on the real clock.
type Config struct {
	Now   func() time.Time // nil: time.Now
	Limit int64            // bytes in all objects together after which it is full; 0: none
}

// Store is objects in memory. It implements store.Store.
type Store struct {
	cfg Config

	mu      sync.RWMutex
	objects map[store.Key]object
	used    int64
}

type object struct {
	data     []byte // never changed in place
	modified time.Time
	kept     store.Retention
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Retainer = (*Store)(nil)
)

// New returns an empty store.
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{cfg: cfg, objects: make(map[store.Key]object)}
}

// Clone returns a store of its own with the same objects, as after a copy of the
// bucket.
func (s *Store) Clone() *Store {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &Store{cfg: s.cfg, objects: maps.Clone(s.objects), used: s.used}
}

// Tamper replaces the content of an object behind the contract's back, as damage
// or an attacker would: change gets a copy and returns the new content.
// ErrNotExist if there is no such object.
func (s *Store) Tamper(key store.Key, change func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return fmt.Errorf("tamper with %s: %w", key, store.ErrNotExist)
	}
	s.used -= int64(len(o.data))
	o.data = change(slices.Clone(o.data))
	s.used += int64(len(o.data))
	s.objects[key] = o
	return nil
}

// Get implements store.Getter.
func (s *Store) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	if err := store.CheckGet(ctx, key, off); err != nil {
		return err
	}
	s.mu.RLock()
	o, ok := s.objects[key]
	s.mu.RUnlock()
	size := int64(len(o.data))
	switch {
	case !ok:
		return fmt.Errorf("get %s: %w", key, store.ErrNotExist)
	case off > size || int64(len(p)) > size-off:
		return fmt.Errorf("get %s: %w: %d bytes at %d of %d", key, store.ErrShort, len(p), off, size)
	}
	copy(p, o.data[off:])
	return nil
}

// Stat implements store.Getter.
func (s *Store) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	if err := store.CheckCall(ctx, key); err != nil {
		return store.Info{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return store.Info{}, fmt.Errorf("stat %s: %w", key, store.ErrNotExist)
	}
	return o.info(key), nil
}

func (o object) info(key store.Key) store.Info {
	return store.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified}
}

// Put implements store.Putter.
func (s *Store) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	if err := store.CheckPut(ctx, key, body); err != nil {
		return err
	}
	data := slices.Concat(body...)

	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		return fmt.Errorf("put %s: %w", key, store.ErrExist)
	}
	if other, ok := s.clash(key); ok {
		return fmt.Errorf("put %s: there is an object %s, and no key may be the folder of another", key, other)
	}
	size := int64(len(data))
	if s.cfg.Limit > 0 && s.used+size > s.cfg.Limit {
		return fmt.Errorf("put %s: %w", key, store.ErrFull)
	}
	s.objects[key] = object{data: data, modified: s.cfg.Now(), kept: opts.Retention}
	s.used += size
	return nil
}

// clash finds an object above key: the cheap half of the rule, which meets every
// pair of keys that are put in that order.
func (s *Store) clash(key store.Key) (store.Key, bool) {
	for k := string(key); ; {
		cut := strings.LastIndexByte(k, '/')
		if cut < 0 {
			return "", false
		}
		k = k[:cut]
		if _, ok := s.objects[store.Key(k)]; ok {
			return store.Key(k), true
		}
	}
}

// List implements store.Lister. It yields the objects as they were when it began.
func (s *Store) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := store.CheckList(ctx, prefix); err != nil {
			yield(store.Info{}, err)
			return
		}
		var found []store.Info
		s.mu.RLock()
		for key, o := range s.objects {
			if strings.HasPrefix(string(key), string(prefix)) {
				found = append(found, o.info(key))
			}
		}
		s.mu.RUnlock()
		slices.SortFunc(found, func(a, b store.Info) int { return strings.Compare(string(a.Key), string(b.Key)) })
		for _, info := range found {
			if err := ctx.Err(); err != nil {
				yield(store.Info{}, err)
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Delete implements store.Deleter.
func (s *Store) Delete(ctx context.Context, key store.Key) error {
	if err := store.CheckCall(ctx, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return nil
	}
	if s.cfg.Now().Before(o.kept.Until) {
		return fmt.Errorf("delete %s: %w until %s", key, store.ErrLocked, o.kept.Until.UTC().Format(time.RFC3339))
	}
	delete(s.objects, key)
	s.used -= int64(len(o.data))
	return nil
}

// RetainedUntil implements store.Retainer.
func (s *Store) RetainedUntil(ctx context.Context, key store.Key) (time.Time, error) {
	if err := store.CheckCall(ctx, key); err != nil {
		return time.Time{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return time.Time{}, fmt.Errorf("retention of %s: %w", key, store.ErrNotExist)
	}
	return o.kept.Until, nil
}

// Retain implements store.Retainer.
func (s *Store) Retain(ctx context.Context, key store.Key, r store.Retention) error {
	if err := store.CheckCall(ctx, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return fmt.Errorf("retain %s: %w", key, store.ErrNotExist)
	}
	o.kept = o.kept.Extended(r, s.cfg.Now())
	s.objects[key] = o
	return nil
}
