package retry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/retry"
	"github.com/cofferbackup/coffer/store/storetest"
)

// clock passes only while somebody sleeps.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

// most is a Rand that always waits as long as it may.
func most() float64 { return 1 }

func patient(inner store.Store, c *clock) *retry.Store {
	return retry.New(inner, retry.Config{Now: c.Now, Sleep: c.Sleep, Rand: most})
}

// failing fails the first n operations of the kind.
func failing(kind storetest.Kind, n int, fault storetest.Fault) func(storetest.Op) storetest.Fault {
	var mu sync.Mutex
	return func(op storetest.Op) storetest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind != kind || n == 0 {
			return storetest.Fault{}
		}
		n--
		return fault
	}
}

var away = storetest.Fault{Err: store.ErrUnavailable}

func mustPut(t *testing.T, s store.Store, key store.Key, content string) {
	t.Helper()
	if err := s.Put(t.Context(), key, store.Body{[]byte(content)}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return patient(mem.New(mem.Config{}), &clock{}) })
}

// TestContractOfFlaky: a store on which every operation on a key fails the first
// time, applied and not applied in turn, looks like one that never fails.
func TestContractOfFlaky(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store {
		var mu sync.Mutex
		seen := make(map[storetest.Op]int)
		flaky := storetest.NewFaulty(mem.New(mem.Config{}), func(op storetest.Op) storetest.Fault {
			mu.Lock()
			defer mu.Unlock()
			seen[op]++
			// A listing asks for each object: it breaks off after the third.
			if n := seen[op]; op.Kind != storetest.List && n == 1 || op.Kind == storetest.List && n == 4 {
				return storetest.Fault{Err: store.ErrUnavailable, Applied: len(seen)%2 == 0}
			}
			return storetest.Fault{}
		})
		c := &clock{} // which the waits of all goroutines move on
		return retry.New(flaky, retry.Config{Total: 1e6 * time.Hour, Now: c.Now, Sleep: c.Sleep})
	})
}

func TestEveryOperationIsTriedAgain(t *testing.T) {
	for _, kind := range []storetest.Kind{storetest.Get, storetest.Stat, storetest.List, storetest.Put, storetest.Delete} {
		inner := mem.New(mem.Config{})
		mustPut(t, inner, "there", "x")
		c := &clock{}
		s := patient(storetest.NewFaulty(inner, failing(kind, 3, away)), c)
		var err error
		switch kind {
		case storetest.Get:
			err = s.Get(t.Context(), "there", make([]byte, 1), 0)
		case storetest.Stat:
			_, err = s.Stat(t.Context(), "there")
		case storetest.List:
			for _, lerr := range s.List(t.Context(), "") {
				err = errors.Join(err, lerr)
			}
		case storetest.Put:
			err = s.Put(t.Context(), "new", nil, store.PutOptions{})
		case storetest.Delete:
			err = s.Delete(t.Context(), "there")
		}
		if err != nil || len(c.slept) != 3 {
			t.Errorf("%s that fails three times: %v after %d waits", kind, err, len(c.slept))
		}
	}
}

func TestOtherErrorsAreNot(t *testing.T) {
	for _, want := range []error{store.ErrNotExist, store.ErrExist, store.ErrShort, store.ErrMissing, store.ErrDenied, store.ErrFull, store.ErrLocked, errors.New("other")} {
		c := &clock{}
		s := patient(storetest.NewFaulty(mem.New(mem.Config{}), failing(storetest.Put, 1, storetest.Fault{Err: want})), c)
		err := s.Put(t.Context(), "a", nil, store.PutOptions{})
		if !errors.Is(err, want) || len(c.slept) != 0 {
			t.Errorf("put that fails with %v: %v after %d waits", want, err, len(c.slept))
		}
	}
}

func TestWaits(t *testing.T) {
	c := &clock{}
	var told []string
	s := retry.New(storetest.NewFaulty(mem.New(mem.Config{}), failing(storetest.Put, -1, away)), retry.Config{
		Total: 20 * time.Second, Base: time.Second, Max: 5 * time.Second, Now: c.Now, Sleep: c.Sleep, Rand: most,
		Notify: func(tries int, err error, wait time.Duration) {
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("told of %v", err)
			}
			told = append(told, fmt.Sprint(tries, wait))
		},
	})
	err := s.Put(t.Context(), "a", nil, store.PutOptions{})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "gave up after 7 tries in 20s") {
		t.Errorf("put that never succeeds: %v", err)
	}
	// Doubling up to the longest, and the last one cut at the end of the time.
	want := []string{"1 1s", "2 2s", "3 4s", "4 5s", "5 5s", "6 3s"}
	if c.slept[len(c.slept)-1] > 3*time.Second {
		t.Errorf("the last wait goes beyond the end: %v", c.slept)
	}
	if !slices.Equal(told, want) {
		t.Errorf("waits: %q, want %q", told, want)
	}
}

func TestJitter(t *testing.T) {
	c := &clock{}
	rands := []float64{0, 0.5, 0.25}
	s := retry.New(storetest.NewFaulty(mem.New(mem.Config{}), failing(storetest.Put, 3, away)), retry.Config{
		Base: time.Second, Now: c.Now, Sleep: c.Sleep,
		Rand: func() float64 { r := rands[0]; rands = rands[1:]; return r },
	})
	mustPut(t, s, "a", "x")
	if want := []time.Duration{0, time.Second, time.Second}; !slices.Equal(c.slept, want) {
		t.Errorf("waits: %v, want %v", c.slept, want)
	}
}

func TestDefaultsEnd(t *testing.T) {
	c := &clock{}
	s := patient(storetest.NewFaulty(mem.New(mem.Config{}), failing(storetest.Get, -1, away)), c)
	start := c.Now()
	if err := s.Get(t.Context(), "a", nil, 0); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	if got := c.Now().Sub(start); got != 15*time.Minute {
		t.Errorf("gave up after %v", got)
	}
}

func TestAmbiguousPut(t *testing.T) {
	large := strings.Repeat("0123456789", 1<<20)
	for _, c := range []struct {
		name, there, content string
		fault                storetest.Fault
		want                 error
	}{
		{name: "applied", content: "mine", fault: storetest.Fault{Err: store.ErrUnavailable, Applied: true}},
		{name: "applied empty", content: "", fault: storetest.Fault{Err: store.ErrUnavailable, Applied: true}},
		{name: "applied large", content: large, fault: storetest.Fault{Err: store.ErrUnavailable, Applied: true}},
		{name: "not applied", content: "mine", fault: away},
		{name: "other of the same size", there: "hers", content: "mine", fault: away, want: store.ErrExist},
		{name: "other at the end", there: large[:len(large)-1] + "x", content: large, fault: away, want: store.ErrExist},
		{name: "other size", there: "hers too", content: "mine", fault: away, want: store.ErrExist},
		{name: "equal before", there: "mine", content: "mine", fault: away},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := mem.New(mem.Config{})
			if c.there != "" {
				mustPut(t, inner, "a", c.there)
			}
			s := patient(storetest.NewFaulty(inner, failing(storetest.Put, 2, c.fault)), &clock{})
			err := s.Put(t.Context(), "a", store.Body{[]byte(c.content)}, store.PutOptions{})
			if !errors.Is(err, c.want) {
				t.Errorf("put: %v, want %v", err, c.want)
			}
			want := c.content
			if c.want != nil {
				want = c.there
			}
			if got, err := store.ReadAll(t.Context(), inner, "a", 1<<30); err != nil || string(got) != want {
				t.Errorf("afterwards there are %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestPlainExist: without a failure before it, ErrExist says that somebody else
// was first, even with equal content.
func TestPlainExist(t *testing.T) {
	s := patient(mem.New(mem.Config{}), &clock{})
	mustPut(t, s, "a", "x")
	if err := s.Put(t.Context(), "a", store.Body{[]byte("x")}, store.PutOptions{}); !errors.Is(err, store.ErrExist) {
		t.Error(err)
	}
}

// TestComparisonIsTriedAgain: the store fails while the object is read back.
func TestComparisonIsTriedAgain(t *testing.T) {
	applied := failing(storetest.Put, 1, storetest.Fault{Err: store.ErrUnavailable, Applied: true})
	stat, get := failing(storetest.Stat, 1, away), failing(storetest.Get, 1, away)
	c := &clock{}
	s := patient(storetest.NewFaulty(mem.New(mem.Config{}), func(op storetest.Op) storetest.Fault {
		for _, hook := range []func(storetest.Op) storetest.Fault{applied, stat, get} {
			if f := hook(op); f.Err != nil {
				return f
			}
		}
		return storetest.Fault{}
	}), c)
	mustPut(t, s, "a", "x")
	if len(c.slept) != 3 {
		t.Errorf("%d waits, want 3", len(c.slept))
	}
}

func TestListGoesOn(t *testing.T) {
	inner := mem.New(mem.Config{})
	var want []store.Key
	for i := range 100 {
		want = append(want, store.Key(fmt.Sprintf("a/%02d", i)))
		mustPut(t, inner, want[i], "x")
	}
	n := 0
	c := &clock{}
	s := patient(storetest.NewFaulty(inner, func(storetest.Op) storetest.Fault {
		if n++; n == 60 || n == 150 { // the second time with nothing new seen
			return away
		}
		return storetest.Fault{}
	}), c)
	var got []store.Key
	for info, err := range s.List(t.Context(), "a/") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, want) || len(c.slept) != 2 {
		t.Errorf("%d keys after %d waits: %q", len(got), len(c.slept), got)
	}
}

// TestListPatienceIsFresh: time that the caller takes between two objects does
// not count as time without an answer.
func TestListPatienceIsFresh(t *testing.T) {
	inner := mem.New(mem.Config{})
	for _, key := range []store.Key{"a", "b", "c"} {
		mustPut(t, inner, key, "x")
	}
	n := 0
	c := &clock{}
	s := patient(storetest.NewFaulty(inner, func(storetest.Op) storetest.Fault {
		if n++; n == 3 {
			return away
		}
		return storetest.Fault{}
	}), c)
	seen := 0
	for _, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		c.now = c.now.Add(time.Hour)
	}
	if seen != 3 {
		t.Errorf("saw %d objects, want 3", seen)
	}
}

func TestListGivesUp(t *testing.T) {
	s := patient(storetest.NewFaulty(mem.New(mem.Config{}), failing(storetest.List, -1, away)), &clock{})
	n := 0
	for _, err := range s.List(t.Context(), "") {
		n++
		if !errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("yields %d times, want one error", n)
	}
}

func TestCancelEndsTheWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := retry.New(storetest.NewFaulty(mem.New(mem.Config{}), failing(storetest.Put, -1, away)), retry.Config{
		Base: time.Hour, Max: time.Hour, Total: 24 * time.Hour, Rand: most,
		Notify: func(int, error, time.Duration) { cancel() },
	})
	err := s.Put(ctx, "a", nil, store.PutOptions{}) // with the real Sleep: the test would time out
	if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put that is cancelled while it waits: %v", err)
	}
}

func TestCancelledTouchesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := patient(storetest.NewFaulty(mem.New(mem.Config{}), func(op storetest.Op) storetest.Fault {
		t.Errorf("the store was asked to %s", op)
		return storetest.Fault{}
	}), &clock{})
	_ = s.Delete(ctx, "a")
	for range s.List(ctx, "") {
	}
}

func TestCancelledByTheStore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &clock{}
	s := patient(storetest.NewFaulty(mem.New(mem.Config{}), func(storetest.Op) storetest.Fault {
		cancel()
		return away
	}), c)
	if err := s.Get(ctx, "a", nil, 0); !errors.Is(err, context.Canceled) || len(c.slept) != 0 {
		t.Errorf("get that is cancelled on its way: %v after %d waits", err, len(c.slept))
	}
}
