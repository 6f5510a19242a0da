package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/store"
)

func exist(t *testing.T, s store.Store) {
	first := random(10, 3000)
	mustPut(t, s, "a/b", first)
	for what, p := range map[string][]byte{
		"the same": first, "other": random(11, 3000), "shorter": []byte("x"), "empty": nil, "large": random(12, Large),
	} {
		err := s.Put(t.Context(), "a/b", store.Body{p}, store.PutOptions{})
		wantErr(t, "put "+what+" content onto an object", err, store.ErrExist)
	}
	wantObject(t, s, "a/b", first)
}

func race(t *testing.T, s store.Store) { racePuts(t, s, 3, 16, 5000) }

func raceLarge(t *testing.T, s store.Store) { racePuts(t, s, 1, 4, Large) }

// racePuts puts one key from n sides at once, each with content of its own.
func racePuts(t *testing.T, s store.Store, rounds, n, size int) {
	for round := range rounds {
		key := store.Key(fmt.Sprintf("race/%d", round))
		errs := make([]error, n)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range n {
			body := split(random(uint64(100+i), size), size/2+1)
			wg.Go(func() {
				<-start
				errs[i] = s.Put(t.Context(), key, body, store.PutOptions{})
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("puts %d and %d of one key both succeed", winner, i)
			case err == nil:
				winner = i
			case errors.Is(err, store.ErrExist):
			case errors.Is(err, store.ErrUnavailable): // a store may ask to come back
			default:
				t.Errorf("put %d: error is %v, want %v", i, err, store.ErrExist)
			}
		}
		if winner < 0 {
			t.Fatalf("no put of the key succeeds: %v", errs)
		}
		wantObject(t, s, key, random(uint64(100+winner), size))
	}
}

// noPart looks at an object from all sides while it is being put: it is all
// there or not at all.
func noPart(t *testing.T, s store.Store) {
	data := random(20, Large)
	tail := make([]byte, 10)
	for round := range 2 {
		key := store.Key(fmt.Sprintf("items/a/%d", round))
		done := make(chan error, 1)
		go func() { done <- s.Put(t.Context(), key, split(data, 1<<20), store.PutOptions{}) }()
		for put := false; !put; {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				put = true // and look once more
			default:
			}
			info, err := s.Stat(t.Context(), key)
			if err != nil && !errors.Is(err, store.ErrNotExist) || err == nil && info.Size != Large {
				t.Fatalf("stat while it is being put: size %d, %v", info.Size, err)
			}
			err = s.Get(t.Context(), key, tail, Large-10)
			if err != nil && !errors.Is(err, store.ErrNotExist) || err == nil && !bytes.Equal(tail, data[Large-10:]) {
				t.Fatalf("get while it is being put: %v", err)
			}
			for info, err := range s.List(t.Context(), "") {
				if err != nil || info.Size != Large {
					t.Fatalf("list while it is being put: %+v, %v", info, err)
				}
			}
		}
		wantObject(t, s, key, data)
	}
}

func remove(t *testing.T, s store.Store) {
	for _, key := range []store.Key{"a/b", "a/c", "a/bb"} {
		mustPut(t, s, key, []byte(key))
	}
	for range 2 {
		if err := s.Delete(t.Context(), "a/b"); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "get", s.Get(t.Context(), "a/b", nil, 0), store.ErrNotExist)
	}
	if err := s.Delete(t.Context(), "never/was"); err != nil {
		t.Errorf("delete what never was: %v", err)
	}
	wantObject(t, s, "a/c", []byte("a/c"))
	wantObject(t, s, "a/bb", []byte("a/bb"))
	mustPut(t, s, "a/b", []byte("again"))
	if got, err := store.ReadAll(t.Context(), s, "a/b", 100); err != nil || string(got) != "again" {
		t.Errorf("put after delete: %q, %v", got, err)
	}
	for _, key := range []store.Key{"a/b", "a/c", "a/bb"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("after all was deleted the store holds %q", got)
	}
}

func removeRace(t *testing.T, s store.Store) {
	mustPut(t, s, "a/b", []byte("x"))
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = s.Delete(t.Context(), "a/b") })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	wantNothing(t, s, "a/b")
}

// retention checks that a store keeps the promise or does not make it.
func retention(t *testing.T, s store.Store) {
	opts := store.PutOptions{Retention: store.Retention{Until: time.Now().Add(time.Hour)}}
	for key, p := range map[store.Key][]byte{"a/b": []byte("keep me"), "a/large": random(30, Large)} {
		err := s.Put(t.Context(), key, store.Body{p}, opts)
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, store.ErrDenied) {
			wantNothing(t, s, key)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, "delete before the time", s.Delete(t.Context(), key), store.ErrLocked)
		wantObject(t, s, key, p)
	}
}

// retain checks that a store that extends retention never does less than it says.
func retain(t *testing.T, s store.Store) {
	r, ok := s.(store.Retainer)
	if !ok {
		return // it promises nothing
	}
	const key = "a/b"
	now := time.Now()
	hours := func(n time.Duration) store.Retention { return store.Retention{Until: now.Add(n * time.Hour)} }
	mustPut(t, s, key, []byte("keep me"))
	err := r.Retain(t.Context(), key, hours(2))
	if errors.Is(err, errors.ErrUnsupported) {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete after a retention that was refused: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ ask, least time.Duration }{{0, 2}, {1, 2}, {2, 2}, {5, 5}, {3, 5}} {
		if step.ask > 0 {
			if err := r.Retain(t.Context(), key, hours(step.ask)); err != nil {
				t.Errorf("retain for %d h: %v", step.ask, err)
			}
		}
		until, err := r.RetainedUntil(t.Context(), key)
		if least := hours(step.least).Until; err != nil || until.Before(least) || until.After(least.Add(time.Second)) {
			t.Errorf("after a retention for %d h was asked for it ends %v, %v; want %v", step.ask, until, err, least)
		}
		wantErr(t, "delete before the time", s.Delete(t.Context(), key), store.ErrLocked)
		wantErr(t, "put onto it", s.Put(t.Context(), key, nil, store.PutOptions{}), store.ErrExist)
		wantObject(t, s, key, []byte("keep me"))
	}
	wantErr(t, "retain nothing", r.Retain(t.Context(), "a/none", hours(1)), store.ErrNotExist)
	_, err = r.RetainedUntil(t.Context(), "a/none")
	wantErr(t, "retention of nothing", err, store.ErrNotExist)
	mustPut(t, s, "a/free", nil)
	if until, err := r.RetainedUntil(t.Context(), "a/free"); err != nil || !until.IsZero() {
		t.Errorf("an object without retention is retained until %v, %v", until, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, "retain after a cancel", r.Retain(ctx, "a/free", hours(1)), context.Canceled)
	if err := s.Delete(t.Context(), "a/free"); err != nil {
		t.Errorf("delete what no retention reached: %v", err)
	}
}
