package s3_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
)

// limits: all that goes over the network is accounted for, in small pieces.
func limits(t *testing.T, m *testkit.MinIO) {
	var up, down, most atomic.Int64
	count := func(sum *atomic.Int64) func(context.Context, int) error {
		return func(_ context.Context, n int) error {
			sum.Add(int64(n))
			for old := most.Load(); int64(n) > old && !most.CompareAndSwap(old, int64(n)); old = most.Load() {
			}
			return nil
		}
	}
	cfg := parse(t, m.URL("plain/limits"))
	cfg.Upload, cfg.Download = count(&up), count(&down)
	s := open(t, cfg)
	const size = 3 << 20
	put(t, s, "a", make([]byte, size), store.PutOptions{})
	if n := up.Load(); n < size || n > size+size/10 || down.Load() > size/10 {
		t.Errorf("to put %d bytes, %d went up and %d came down", size, n, down.Load())
	}
	before := up.Load()
	if got, err := store.ReadAll(t.Context(), s, "a", size); err != nil || len(got) != size {
		t.Fatal(err)
	}
	if n := down.Load(); n < size || n > size+size/5 || up.Load()-before > size/10 {
		t.Errorf("to get %d bytes, %d came down and %d went up", size, n, up.Load()-before)
	}
	if most.Load() > 16<<10 {
		t.Errorf("%d bytes go at once", most.Load())
	}
}

// limitsEnd: an operation that is to end does not wait for its turn.
func limitsEnd(t *testing.T, m *testkit.MinIO) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waits atomic.Int64
	cfg := parse(t, m.URL("plain/limits-end"))
	cfg.Upload = func(conn context.Context, n int) error {
		if waits.Add(1) < 20 {
			return nil
		}
		cancel()
		<-conn.Done() // a turn that never comes
		return conn.Err()
	}
	s := open(t, cfg)
	if err := s.Put(ctx, "a", store.Body{make([]byte, 3<<20)}, store.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("put that is cancelled: %v", err)
	}
}
