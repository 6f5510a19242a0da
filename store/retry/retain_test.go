package retry_test

import (
	"errors"
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
