package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/store"
)

func list(t *testing.T, s store.Store) {
	all := []store.Key{"items/a/packs/00/x", "items/a/packs/0z/x", "items/a/points/1", "items/ab/points/1", "items/b", "keys/v/1-1", "vault"}
	for i, key := range all {
		mustPut(t, s, key, make([]byte, i))
	}
	for prefix, want := range map[store.Key][]store.Key{
		"":                   all,
		"items":              all[:5],
		"items/":             all[:5],
		"items/a":            all[:4],
		"items/a/":           all[:3],
		"items/a/p":          all[:3],
		"items/a/pa":         all[:2],
		"items/a/packs/0":    all[:2],
		"items/a/packs/0z":   all[1:2],
		"items/a/packs/0z/x": all[1:2],
		"items/a/packs/0z/y": nil,
		"items/b":            all[4:5],
		"items/b/":           nil,
		"items/b/c":          nil,
		"v":                  all[6:],
		"vault":              all[6:],
		"vaults":             nil,
		"none/such/folder":   nil,
	} {
		if got := keys(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("list %q: %q, want %q", prefix, got, want)
		}
	}
	i := 0
	for info, err := range s.List(t.Context(), "") {
		if err != nil || info.Size != int64(i) || info.Modified.IsZero() {
			t.Errorf("list says of %s: %+v, %v; size should be %d", all[i], info, err, i)
		}
		i++
	}
}

// listOrder has names that sort otherwise in a folder than as keys: "-" and "."
// come before "/".
func listOrder(t *testing.T, s store.Store) {
	want := []store.Key{"a-", "a.", "a.b/c", "a/b", "a/b-c", "a/c-/d", "a/c/d", "a/c_", "a0", "a_", "aa/b", "b"}
	for _, i := range []int{5, 0, 11, 3, 8, 1, 10, 7, 2, 9, 6, 4} {
		mustPut(t, s, want[i], nil)
	}
	if got := keys(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("list: %q, want %q", got, want)
	}
	if got := keys(t, s, "a"); !slices.Equal(got, want[:11]) {
		t.Errorf("list a: %q, want %q", got, want[:11])
	}
}

// listMany is more than one page of an S3 listing.
func listMany(t *testing.T, s store.Store) {
	const n = 1100
	var want []store.Key
	for i := range n {
		want = append(want, store.Key(fmt.Sprintf("items/a/packs/%02x/%d", i%50, i)))
	}
	work := make(chan store.Key)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for key := range work {
				if err := s.Put(t.Context(), key, store.Body{[]byte(key)}, store.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, key := range want {
		work <- key
	}
	close(work)
	wg.Wait()
	slices.Sort(want)
	if got := keys(t, s, "items/a/"); !slices.Equal(got, want) {
		t.Errorf("list: %d keys, want %d", len(got), len(want))
	}
	want = slices.DeleteFunc(want, func(k store.Key) bool { return !strings.HasPrefix(string(k), "items/a/packs/1") })
	if got := keys(t, s, "items/a/packs/1"); !slices.Equal(got, want) {
		t.Errorf("list of packs/1...: %d keys, want %d", len(got), len(want))
	}
}

func listStops(t *testing.T, s store.Store) {
	for _, key := range []store.Key{"a/a", "a/b", "b/c"} {
		mustPut(t, s, key, nil)
	}
	for range 2 { // a listing leaves nothing behind that disturbs the next
		n := 0
		for _, err := range s.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("a listing of three yields %d before it is stopped at two", n)
		}
	}
	seq := s.List(t.Context(), "")
	for range 2 { // and can be run again
		n := 0
		for range seq {
			n++
		}
		if n != 3 {
			t.Errorf("a listing of three yields %d", n)
		}
	}
}

func listNothing(t *testing.T, s store.Store) {
	for _, prefix := range []store.Key{"", "a", "a/", "a/b"} {
		if got := keys(t, s, prefix); len(got) != 0 {
			t.Errorf("list %q of an empty store: %q", prefix, got)
		}
	}
}

// cancelledList: a listing that is cut off must not look like a complete one.
func cancelledList(t *testing.T, s store.Store) {
	for _, key := range []store.Key{"a/a", "a/b", "b/c"} {
		mustPut(t, s, key, nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	n := 0
	for _, err := range s.List(ctx, "") {
		n, last = n+1, err
		cancel()
	}
	if !errors.Is(last, context.Canceled) || n != 2 {
		t.Errorf("a listing that is cancelled after one of three yields %d times and ends in %v, want 2 and %v", n, last, context.Canceled)
	}
}
