package retry_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/storetest"
)

// forgetful is a store without any retention.
type forgetful struct{ store.Store }

// TestRetainer: what the inner store can do is asked for again until it answers.
func TestRetainer(t *testing.T) {
	until := store.Retention{Until: time.Date(2126, 11, 22, 9, 0, 0, 0, time.UTC)}
	inner := mem.New(mem.Config{})
	if err := inner.Put(t.Context(), "a", nil, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	c := &clock{}
	if err := patient(storetest.NewFaulty(inner, failing(storetest.Retain, 2, away)), c).Retain(t.Context(), "a", until); err != nil || len(c.slept) != 2 {
		t.Errorf("retain: %v after %d waits", err, len(c.slept))
	}
	c = &clock{}
	got, err := patient(storetest.NewFaulty(inner, failing(storetest.Stat, 2, away)), c).RetainedUntil(t.Context(), "a")
	if err != nil || !got.Equal(until.Until) || len(c.slept) != 2 {
		t.Errorf("%v, %v after %d waits", got, err, len(c.slept))
	}
	none := patient(forgetful{inner}, c)
	if _, err := none.RetainedUntil(t.Context(), "a"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a store that cannot say: %v", err)
	}
	if err := none.Retain(t.Context(), "a", until); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("by a store that cannot keep: %v", err)
	}
}

// marked is a store in which "a", "b" and "c" are hidden, and that goes away twice while
// it says so.
type marked struct {
	store.Store
	calls *int
}

func (m marked) Concealed(context.Context, store.Key) iter.Seq2[store.Info, error] {
	*m.calls++
	return func(yield func(store.Info, error) bool) {
		for i, key := range []store.Key{"a", "b", "c"} {
			if i == *m.calls {
				yield(store.Info{}, store.ErrUnavailable)
				return
			}
			if !yield(store.Info{Key: key}, nil) {
				return
			}
		}
	}
}

// TestConcealer: a listing of what is hidden goes on where it was cut off.
func TestConcealer(t *testing.T) {
	c, calls := &clock{}, 0
	var got []store.Key
	for info, err := range patient(marked{mem.New(mem.Config{}), &calls}, c).Concealed(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, []store.Key{"a", "b", "c"}) || len(c.slept) != 2 {
		t.Errorf("%q after %d waits", got, len(c.slept))
	}
	for _, err := range patient(forgetful{mem.New(mem.Config{})}, c).Concealed(t.Context(), "") {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("of a store that keeps no versions: %v", err)
		}
	}
}
