package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/storetest"
)

// TestObservedStore: it does all that a store does.
func TestObservedStore(t *testing.T) {
	m := metrics.New(metrics.Config{View: func() metrics.View { return metrics.View{} }})
	storetest.Run(t, func(*testing.T) store.Store {
		return m.Observe(mem.New(mem.Config{}), func() []string { return []string{"site"} })
	})
}

// TestStoreFaults: each operation that fails is counted, for each vault of the store; an
// answer that somebody has to expect is not.
func TestStoreFaults(t *testing.T) {
	vaults := func() []string { return []string{"site", "twin"} }
	for _, tt := range []struct {
		err  error
		want string // as which it is counted
	}{
		{store.ErrUnavailable, "unavailable"}, {store.ErrDenied, "denied"}, {store.ErrFull, "full"}, {store.ErrMissing, "missing"}, {errors.New("what"), "other"},
		{store.ErrNotExist, ""}, {store.ErrLocked, ""}, {errors.ErrUnsupported, ""}, {context.Canceled, ""}, {fmt.Errorf("list: %w", context.DeadlineExceeded), ""},
	} {
		m := metrics.New(metrics.Config{View: func() metrics.View { return metrics.View{} }})
		st := m.Observe(storetest.NewFaulty(mem.New(mem.Config{}), func(storetest.Op) storetest.Fault { return storetest.Fault{Err: tt.err} }), vaults)
		ctx, key := t.Context(), store.Key("a")
		_, statErr := st.Stat(ctx, key)
		_, retainedErr := st.(store.Retainer).RetainedUntil(ctx, key)
		failed := []error{statErr, retainedErr, st.Get(ctx, key, make([]byte, 1), 0), st.Put(ctx, key, store.Body{}, store.PutOptions{}), st.Delete(ctx, key),
			st.(store.Retainer).Retain(ctx, key, store.Retention{})}
		for _, err := range st.List(ctx, "") {
			failed = append(failed, err)
		}
		for i, err := range failed {
			if !errors.Is(err, tt.err) {
				t.Errorf("operation %d: %v, want %v", i, err, tt.err)
			}
		}
		m.NotOpened(tt.err, vaults)
		got := values(t, m)
		for _, vault := range vaults() {
			name := fmt.Sprintf("coffer_store_errors_total{error=%q,vault=%q}", tt.want, vault)
			if n, want := got[name], float64(len(failed)+1); tt.want != "" && n != want {
				t.Errorf("%v: %s is %v, want %v", tt.err, name, n, want)
			}
		}
		for name := range got {
			if tt.want == "" && strings.HasPrefix(name, "coffer_store_errors_total") {
				t.Errorf("%v is counted: %s", tt.err, name)
			}
		}
	}
}
