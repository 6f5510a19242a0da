package mem_test

import (
	"errors"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/storetest"
)

func put(t *testing.T, s store.Store, key store.Key, content string, opts store.PutOptions) {
	t.Helper()
	if err := s.Put(t.Context(), key, store.Body{[]byte(content)}, opts); err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return mem.New(mem.Config{}) })
}

func TestFull(t *testing.T) {
	s := mem.New(mem.Config{Limit: 10})
	put(t, s, "a", "0123456", store.PutOptions{})
	err := s.Put(t.Context(), "b", store.Body{[]byte("0123")}, store.PutOptions{})
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("put 4 bytes onto 7 of 10: %v", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "b", "0123456789", store.PutOptions{})
}

func TestRetentionEnds(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := mem.New(mem.Config{Now: func() time.Time { return now }})
	put(t, s, "a", "x", store.PutOptions{Retention: store.Retention{Until: now.Add(time.Hour)}})
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, store.ErrLocked) {
		t.Errorf("delete before the time: %v", err)
	}
	now = now.Add(time.Hour)
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Errorf("delete at the time: %v", err)
	}
}

func TestKeyBelowObject(t *testing.T) {
	s := mem.New(mem.Config{})
	put(t, s, "a/b", "x", store.PutOptions{})
	if err := s.Put(t.Context(), "a/b/c/d", nil, store.PutOptions{}); err == nil {
		t.Error("a key below an object was put: no file system could hold it")
	}
}

func TestCloneIsApart(t *testing.T) {
	s := mem.New(mem.Config{})
	put(t, s, "a", "x", store.PutOptions{})
	c := s.Clone()
	put(t, s, "b", "x", store.PutOptions{})
	if err := c.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "a"); err != nil {
		t.Errorf("deleting from the clone reached the original: %v", err)
	}
	if _, err := c.Stat(t.Context(), "b"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("putting into the original reached the clone: %v", err)
	}
}

func TestTamper(t *testing.T) {
	s := mem.New(mem.Config{})
	put(t, s, "a", "abc", store.PutOptions{})
	clone := s.Clone()
	if err := s.Tamper("a", func(p []byte) []byte { p[1] ^= 1; return p[:2] }); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		s    store.Store
		want string
	}{{s, "ac"}, {clone, "abc"}} {
		if got, err := store.ReadAll(t.Context(), c.s, "a", 10); err != nil || string(got) != c.want {
			t.Errorf("content is %q, %v; want %q", got, err, c.want)
		}
	}
	if err := s.Tamper("b", func(p []byte) []byte { return p }); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("tamper with nothing: %v", err)
	}
}
