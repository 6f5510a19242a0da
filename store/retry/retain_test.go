package retry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
)

// retaining says until when it keeps objects, after some silence.
type retaining struct {
	*mem.Store
	silent *int
	until  time.Time
}

func (r retaining) RetainedUntil(context.Context, store.Key) (time.Time, error) {
	if *r.silent > 0 {
		*r.silent--
		return time.Time{}, store.ErrUnavailable
	}
	return r.until, nil
}

// TestRetainer: what the inner store knows is passed on, and asked for again.
func TestRetainer(t *testing.T) {
	c, silent, until := &clock{}, 2, time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	s := patient(retaining{mem.New(mem.Config{}), &silent, until}, c)
	if got, err := s.RetainedUntil(t.Context(), "a"); err != nil || !got.Equal(until) || len(c.slept) != 2 {
		t.Errorf("%v, %v after %d waits", got, err, len(c.slept))
	}
	if _, err := patient(mem.New(mem.Config{}), c).RetainedUntil(t.Context(), "a"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a store that cannot say: %v", err)
	}
}
