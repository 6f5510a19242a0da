// Package retry makes a store patient: what fails with store.ErrUnavailable is
// tried again until it answers or time is up. It is the only place in the
// program that tries a store again.
//
// A Put that failed may have happened, so the next try may meet ErrExist because
// of the one before. Then the object is read back and compared: equal is success.
//
// A List that breaks off begins again and passes over the keys it has yielded,
// which ascend.
package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// Config of a Store. Zero fields take the defaults.
type Config struct {
	Total time.Duration // how long one operation may go on without progress; 15 minutes
	Base  time.Duration // the longest first wait; doubles with every try; 200 ms
	Max   time.Duration // the longest wait of all; 30 s

	Now   func() time.Time                                 // time.Now
	Sleep func(ctx context.Context, d time.Duration) error // returns ctx.Err() as soon as ctx is done
	Rand  func() float64                                   // in [0,1), safe for concurrent use; math/rand

	// Notify is told before each wait: how many tries have failed, how the last
	// one did, and how long the wait will be. It may be called concurrently.
	Notify func(tries int, err error, wait time.Duration)
}

// Store is a store with patience. It implements store.Store.
type Store struct {
	inner store.Store
	cfg   Config
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Retainer = (*Store)(nil)
)

// New returns a store that tries the operations of inner again.
func New(inner store.Store, cfg Config) *Store {
	if cfg.Total == 0 {
		cfg.Total = 15 * time.Minute
	}
	if cfg.Base == 0 {
		cfg.Base = 200 * time.Millisecond
	}
	if cfg.Max == 0 {
		cfg.Max = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	if cfg.Notify == nil {
		cfg.Notify = func(int, error, time.Duration) {}
	}
	return &Store{inner: inner, cfg: cfg}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// effort is the tries of one operation since it last made progress.
type effort struct {
	cfg   *Config
	start time.Time
	tries int
}

func (s *Store) begin() effort { return effort{cfg: &s.cfg, start: s.cfg.Now()} }

// pause waits before the next try after err. It returns what the operation has
// to return if there is no next try, or nil.
func (e *effort) pause(ctx context.Context, err error) error {
	if !errors.Is(err, store.ErrUnavailable) {
		return err
	}
	e.tries++
	// A caller that gave up is not told of a store that does not answer.
	if cerr := ctx.Err(); cerr != nil {
		return fmt.Errorf("%w; before that: %v", cerr, err)
	}
	spent := e.cfg.Now().Sub(e.start)
	left := e.cfg.Total - spent
	if left <= 0 {
		return fmt.Errorf("gave up after %d tries in %s: %w", e.tries, spent.Round(time.Second), err)
	}
	// Exponential backoff with full jitter: many agents that lost one store do
	// not come back to it all at once.
	longest := e.cfg.Max
	if shift := e.tries - 1; shift < 30 && e.cfg.Base<<shift < longest {
		longest = e.cfg.Base << shift
	}
	wait := min(time.Duration(e.cfg.Rand()*float64(longest)), left)
	e.cfg.Notify(e.tries, err, wait)
	if serr := e.cfg.Sleep(ctx, wait); serr != nil {
		return fmt.Errorf("%w; before that: %v", serr, err)
	}
	return nil
}

// do tries op until it does not answer ErrUnavailable.
func (s *Store) do(ctx context.Context, op func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for e := s.begin(); ; {
		err := op()
		if err == nil {
			return nil
		}
		if err := e.pause(ctx, err); err != nil {
			return err
		}
	}
}

// Get implements store.Getter.
func (s *Store) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	return s.do(ctx, func() error { return s.inner.Get(ctx, key, p, off) })
}

// Stat implements store.Getter.
func (s *Store) Stat(ctx context.Context, key store.Key) (info store.Info, err error) {
	err = s.do(ctx, func() error {
		info, err = s.inner.Stat(ctx, key)
		return err
	})
	return info, err
}

// Delete implements store.Deleter.
func (s *Store) Delete(ctx context.Context, key store.Key) error {
	return s.do(ctx, func() error { return s.inner.Delete(ctx, key) })
}

// RetainedUntil implements store.Retainer, if the inner store does.
func (s *Store) RetainedUntil(ctx context.Context, key store.Key) (until time.Time, err error) {
	r, ok := s.inner.(store.Retainer)
	if !ok {
		return time.Time{}, fmt.Errorf("retention of %s: %w", key, errors.ErrUnsupported)
	}
	err = s.do(ctx, func() error {
		until, err = r.RetainedUntil(ctx, key)
		return err
	})
	return until, err
}

// Retain implements store.Retainer, if the inner store does.
func (s *Store) Retain(ctx context.Context, key store.Key, r store.Retention) error {
	inner, ok := s.inner.(store.Retainer)
	if !ok {
		return fmt.Errorf("retain %s: %w", key, errors.ErrUnsupported)
	}
	return s.do(ctx, func() error { return inner.Retain(ctx, key, r) })
}

// Put implements store.Putter.
func (s *Store) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	ambiguous := false
	return s.do(ctx, func() error {
		err := s.inner.Put(ctx, key, body, opts)
		switch {
		case errors.Is(err, store.ErrUnavailable):
			ambiguous = true
		case ambiguous && errors.Is(err, store.ErrExist):
			same, cerr := s.holds(ctx, key, body)
			if cerr != nil {
				return fmt.Errorf("compare with what an earlier try may have put: %w", cerr)
			}
			if same {
				return nil
			}
		}
		return err
	})
}

// holds tells whether the object has the content body. Its reads are tried again
// on their own, so that the body is not sent once more for their sake.
func (s *Store) holds(ctx context.Context, key store.Key, body store.Body) (bool, error) {
	size := body.Size()
	info, err := s.Stat(ctx, key)
	if err != nil || info.Size != size {
		return false, err
	}
	const block = 4 << 20
	got := make([]byte, min(size, block))
	want := make([]byte, len(got))
	r := body.Reader()
	for off := int64(0); off < size; off += int64(len(got)) {
		n := min(size-off, int64(len(got)))
		got, want = got[:n], want[:n]
		if _, err := io.ReadFull(r, want); err != nil {
			return false, err
		}
		if err := s.Get(ctx, key, got, off); err != nil {
			return false, err
		}
		if !bytes.Equal(got, want) {
			return false, nil
		}
	}
	return true, nil
}

// List implements store.Lister.
func (s *Store) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return s.listing(ctx, func() iter.Seq2[store.Info, error] { return s.inner.List(ctx, prefix) })
}

// Concealed implements store.Concealer, if the inner store does.
func (s *Store) Concealed(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return s.listing(ctx, func() iter.Seq2[store.Info, error] {
		if c, ok := s.inner.(store.Concealer); ok {
			return c.Concealed(ctx, prefix)
		}
		return func(yield func(store.Info, error) bool) {
			yield(store.Info{}, fmt.Errorf("list versions: %w", errors.ErrUnsupported))
		}
	})
}

// listing is a listing in ascending order that begins anew behind what was yielded.
func (s *Store) listing(ctx context.Context, list func() iter.Seq2[store.Info, error]) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(store.Info{}, err)
			return
		}
		var last store.Key // the last one yielded
		for e := s.begin(); ; {
			before := last
			more, err := listAfter(list(), &last, yield)
			if err == nil || !more {
				return
			}
			if last != before {
				e = s.begin() // progress: patience starts anew
			}
			if err := e.pause(ctx, err); err != nil {
				yield(store.Info{}, err)
				return
			}
		}
	}
}

// listAfter yields what of a listing comes after last, which it moves on. More is false
// if the caller has had enough.
func listAfter(all iter.Seq2[store.Info, error], last *store.Key, yield func(store.Info, error) bool) (more bool, err error) {
	for info, err := range all {
		if err != nil {
			return true, err
		}
		if info.Key <= *last {
			continue
		}
		if !yield(info, nil) {
			return false, nil
		}
		*last = info.Key
	}
	return true, nil
}
