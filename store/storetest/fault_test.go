package storetest_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/storetest"
)

func TestFaultyWithoutFaults(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store {
		return storetest.NewFaulty(mem.New(mem.Config{}), func(storetest.Op) storetest.Fault { return storetest.Fault{} })
	})
}

func TestFaultyApplies(t *testing.T) {
	boom := errors.New("boom")
	for _, applied := range []bool{false, true} {
		inner := mem.New(mem.Config{})
		var seen []storetest.Op
		s := storetest.NewFaulty(inner, func(op storetest.Op) storetest.Fault {
			seen = append(seen, op)
			return storetest.Fault{Err: boom, Applied: applied}
		})
		if err := s.Put(t.Context(), "a", store.Body{[]byte("x")}, store.PutOptions{}); !errors.Is(err, boom) {
			t.Errorf("put: %v", err)
		}
		_, err := inner.Stat(t.Context(), "a")
		if there := err == nil; there != applied {
			t.Errorf("fault with applied %v: object there %v", applied, there)
		}
		if want := []storetest.Op{{Kind: storetest.Put, Key: "a"}}; !slices.Equal(seen, want) {
			t.Errorf("hook saw %v, want %v", seen, want)
		}
	}
}

// job makes three writes to a store and one elsewhere.
func job(t *testing.T, s store.Store, crash *storetest.Crash, elsewhere *int) error {
	for _, key := range []store.Key{"a", "b"} {
		if err := s.Put(t.Context(), key, nil, store.PutOptions{}); err != nil {
			return err
		}
	}
	if err := crash.Write(func() error { *elsewhere++; return nil }); err != nil {
		return err
	}
	return s.Delete(t.Context(), "a")
}

func TestCrashAtEveryWrite(t *testing.T) {
	dry := storetest.NewCrash(0, storetest.NotApplied)
	n := 0
	if err := job(t, dry.Store(mem.New(mem.Config{})), dry, &n); err != nil || dry.Writes() != 4 || n != 1 {
		t.Fatalf("without a crash: %v, %d writes, %d elsewhere; want 4 and 1", err, dry.Writes(), n)
	}
	// What is left after i writes have happened: keys, and writes elsewhere.
	left := [][]store.Key{{}, {"a"}, {"a", "b"}, {"a", "b"}, {"b"}}
	for at := 1; at <= dry.Writes(); at++ {
		for _, how := range []storetest.Outcome{storetest.NotApplied, storetest.Applied} {
			inner, crash, n := mem.New(mem.Config{}), storetest.NewCrash(at, how), 0
			s := crash.Store(inner)
			if err := job(t, s, crash, &n); !errors.Is(err, storetest.ErrCrashed) || !crash.Dead() {
				t.Errorf("crash at %d, %v: %v", at, how, err)
			}
			happened := at - 1
			if how == storetest.Applied {
				happened++
			}
			got := []store.Key{}
			for info, err := range inner.List(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, info.Key)
			}
			if !slices.Equal(got, left[happened]) || (n == 1) != (happened >= 3) {
				t.Errorf("crash at %d, %v leaves %q and %d elsewhere, want %q", at, how, got, n, left[happened])
			}
			wantDead(t, s, crash)
		}
	}
}

func TestAtEveryWrite(t *testing.T) {
	begun, whole := 0, 0
	storetest.AtEveryWrite(t, func(t *testing.T, crash *storetest.Crash) (func() error, func()) {
		begun++
		inner, n := mem.New(mem.Config{}), 0
		return func() error { return job(t, crash.Store(inner), crash, &n) }, func() {
			if _, err := inner.Stat(t.Context(), "a"); n == 1 && errors.Is(err, store.ErrNotExist) {
				whole++
			}
		}
	})
	if begun != 1+4*2 || whole != 2 {
		t.Errorf("the job began %d times and came to its end %d times, want 9 and 2", begun, whole)
	}
}

// wantDead checks that nothing works any more.
func wantDead(t *testing.T, s store.Store, crash *storetest.Crash) {
	t.Helper()
	_, stat := s.Stat(t.Context(), "b")
	errs := []error{
		s.Get(t.Context(), "b", nil, 0), stat, s.Delete(t.Context(), "b"),
		s.Put(t.Context(), "c", nil, store.PutOptions{}),
		crash.Write(func() error { t.Error("a dead process writes"); return nil }),
	}
	for _, err := range s.List(t.Context(), "none") {
		errs = append(errs, err)
	}
	if len(errs) != 6 {
		t.Errorf("the listing of a dead process yields %d times, want one error", len(errs)-5)
	}
	for i, err := range errs {
		if !errors.Is(err, storetest.ErrCrashed) {
			t.Errorf("operation %d after the crash: %v", i, err)
		}
	}
}
