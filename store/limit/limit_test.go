package limit_test

import (
	"context"
	"errors"
	"testing"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/limit"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/storetest"
)

func free(ctx context.Context, _ int) error { return ctx.Err() }

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store {
		return limit.New(mem.New(mem.Config{}), limit.Config{Upload: free, Download: free})
	})
}

// TestCounts: each byte of an object is accounted for once in its direction.
func TestCounts(t *testing.T) {
	var up, down int
	inner := mem.New(mem.Config{})
	s := limit.New(inner, limit.Config{
		Upload: func(ctx context.Context, n int) error {
			if _, err := inner.Stat(ctx, "a"); up == 0 && err == nil {
				t.Error("the object is there before its bytes may go")
			}
			up += n
			return nil
		},
		Download: func(_ context.Context, n int) error { down += n; return nil },
	})
	if err := s.Put(t.Context(), "a", store.Body{make([]byte, 600), nil, make([]byte, 400)}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.ReadAll(t.Context(), s, "a", 1000); err != nil {
		t.Fatal(err)
	}
	if err := s.Get(t.Context(), "a", make([]byte, 50), 10); err != nil {
		t.Fatal(err)
	}
	if err := s.Get(t.Context(), "b", make([]byte, 5000), 0); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("get nothing: %v", err)
	}
	if up != 1000 || down != 1050 {
		t.Errorf("%d bytes up and %d down, want 1000 and 1050", up, down)
	}
}

// TestEnds: who does not want to wait any longer has put nothing.
func TestEnds(t *testing.T) {
	inner := mem.New(mem.Config{})
	end := func(context.Context, int) error { return context.Canceled }
	s := limit.New(inner, limit.Config{Upload: end, Download: end})
	if err := s.Put(t.Context(), "a", store.Body{[]byte("x")}, store.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if _, err := inner.Stat(t.Context(), "a"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("after a put that was ended: %v", err)
	}
	if err := inner.Put(t.Context(), "a", store.Body{[]byte("x")}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Get(t.Context(), "a", make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
}
