// Package storetest checks that a store keeps the contract, and makes stores fail
// on purpose: Faulty answers what a hook says, Crash dies at the nth write.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cofferbackup/coffer/store"
)

// Large is the size of the large objects of Run. A store that splits objects has
// to be opened so that it splits these.
const Large = 12<<20 + 345

// test is a part of the suite.
type test struct {
	name string
	test func(t *testing.T, s store.Store)
	kept bool // it also makes sense where nothing can be deleted
}

// suite is all of it.
func suite() []test {
	return []test{
		{"Put and get", putGet, true},
		{"Empty object", emptyObject, true},
		{"Large object", largeObject, true},
		{"Too large object", tooLarge, true},
		{"Get past the end", short, true},
		{"Get at a negative offset", negative, true},
		{"Missing object", missing, true},
		{"Put onto an object", exist, true},
		{"Put one key at once", race, true},
		{"Put one large key at once", raceLarge, true},
		{"No part is visible", noPart, true},
		{"Body is not kept", bodyNotKept, true},
		{"Folder is no object", folder, false},
		{"List", list, true},
		{"List in order", listOrder, true},
		{"List many", listMany, true},
		{"List stops", listStops, true},
		{"List nothing", listNothing, true},
		{"Delete", remove, false},
		{"Delete at once", removeRace, false},
		{"Retention", retention, true},
		{"Retain", retain, false},
		{"Cancelled", cancelled, true},
		{"Cancelled while listing", cancelledList, true},
		{"Bad key", badKey, true},
		{"ReadAll", readAll, true},
	}
}

// Run checks every sentence of the contract. Open returns a new, empty store, and
// what it returns is used by one test.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range suite() {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// RunKept is Run on a store that lets nobody delete, whatever he asks for when he puts.
// Refused is what it answers.
func RunKept(t *testing.T, refused error, open func(t *testing.T) store.Store) {
	for _, c := range suite() {
		if c.kept {
			t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
		}
	}
	t.Run("Delete is refused", func(t *testing.T) {
		s := open(t)
		for key, p := range map[store.Key][]byte{"a/b": []byte("keep me"), "a/empty": nil, "a/large": random(31, Large)} {
			mustPut(t, s, key, p)
			wantErr(t, "delete", s.Delete(t.Context(), key), refused)
			wantErr(t, "put onto it", s.Put(t.Context(), key, nil, store.PutOptions{}), store.ErrExist)
			wantObject(t, s, key, p)
		}
		if err := s.Delete(t.Context(), "a/none"); err != nil {
			t.Errorf("delete what is not there: %v", err)
		}
	})
}

// random returns n bytes that are the same for the same seed: a random block over
// and over, numbered, which is quick to make.
func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	const block = 4096
	_, _ = rand.NewChaCha8(key).Read(p[:min(n, block)])
	for off := block; off < n; off += block {
		if c := copy(p[off:], p[:block]); c >= 16 {
			binary.LittleEndian.PutUint64(p[off+8:], uint64(off))
		}
	}
	return p
}

// split cuts p into parts of up to n bytes, with an empty one among them.
func split(p []byte, n int) store.Body {
	b := store.Body{nil}
	for len(p) > n {
		b, p = append(b, p[:n], []byte{}), p[n:]
	}
	return append(b, p)
}

func mustPut(t *testing.T, s store.Store, key store.Key, p []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, store.Body{p}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, want %v", what, err, want)
	}
}

// wantObject checks all that can be seen of one object.
func wantObject(t *testing.T, s store.Store, key store.Key, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := s.Get(t.Context(), key, got, 0); err != nil {
		t.Errorf("get the whole object: %v", err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("content of %s differs", key)
	}
	info, err := s.Stat(t.Context(), key)
	if err != nil || info.Key != key || info.Size != int64(len(want)) || info.Modified.IsZero() {
		t.Errorf("stat %s: %+v, %v; size should be %d", key, info, err, len(want))
	}
	if got := keys(t, s, key); len(got) != 1 || got[0] != key {
		t.Errorf("list %s: %q", key, got)
	}
}

// wantNothing checks that there is no object of the name.
func wantNothing(t *testing.T, s store.Store, key store.Key) {
	t.Helper()
	_, err := s.Stat(t.Context(), key)
	wantErr(t, fmt.Sprintf("stat %s", key), err, store.ErrNotExist)
	wantErr(t, fmt.Sprintf("get %s", key), s.Get(t.Context(), key, make([]byte, 1), 0), store.ErrNotExist)
	wantErr(t, fmt.Sprintf("get nothing of %s", key), s.Get(t.Context(), key, nil, 0), store.ErrNotExist)
	if got := keys(t, s, key); len(got) != 0 {
		t.Errorf("list %s: %q, want nothing", key, got)
	}
}

func keys(t *testing.T, s store.Store, prefix store.Key) []store.Key {
	t.Helper()
	var out []store.Key
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		out = append(out, info.Key)
	}
	return out
}

func putGet(t *testing.T, s store.Store) {
	data := random(1, 100_000)
	const key = "items/abc.d_e-f/packs/0z/file"
	body := split(data, 999)
	if err := s.Put(t.Context(), key, body, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	wantObject(t, s, key, data)
	// Ranges, among them both ends, and those that begin and end in a part.
	for _, r := range [][2]int{{0, 1}, {0, 100_000}, {99_999, 1}, {998, 2}, {999, 999}, {1, 99_998}, {50_000, 0}, {100_000, 0}, {4096, 4096}} {
		got := make([]byte, r[1])
		if err := s.Get(t.Context(), key, got, int64(r[0])); err != nil {
			t.Errorf("get %d bytes at %d: %v", r[1], r[0], err)
		} else if !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
			t.Errorf("get %d bytes at %d: content differs", r[1], r[0])
		}
	}
	// A key at the top, and one as long as keys get.
	mustPut(t, s, "vault", []byte("v"))
	wantObject(t, s, "vault", []byte("v"))
	long := store.Key(bytes.Repeat([]byte("abcdefg/"), 64))[:511] + "h"
	mustPut(t, s, long, []byte("long"))
	wantObject(t, s, long, []byte("long"))
}

func emptyObject(t *testing.T, s store.Store) {
	for key, body := range map[store.Key]store.Body{"none": nil, "empty": {}, "parts": {nil, {}}} {
		if err := s.Put(t.Context(), key, body, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, nil)
		wantErr(t, "get a byte of nothing", s.Get(t.Context(), key, make([]byte, 1), 0), store.ErrShort)
		wantErr(t, "put again", s.Put(t.Context(), key, body, store.PutOptions{}), store.ErrExist)
	}
}

func largeObject(t *testing.T, s store.Store) {
	data := random(2, Large)
	const key = "items/a/packs/aa/large"
	if err := s.Put(t.Context(), key, split(data, 1<<20+17), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	wantObject(t, s, key, data)
	for _, off := range []int{0, 5<<20 - 1, 10 << 20, Large - 1000} {
		got := make([]byte, 1000)
		if err := s.Get(t.Context(), key, got, int64(off)); err != nil {
			t.Errorf("get at %d: %v", off, err)
		} else if !bytes.Equal(got, data[off:off+1000]) {
			t.Errorf("get at %d: content differs", off)
		}
	}
}

func tooLarge(t *testing.T, s store.Store) {
	part := make([]byte, 1<<20)
	var body store.Body
	for range store.MaxObject >> 20 {
		body = append(body, part)
	}
	body = append(body, []byte{1})
	if err := s.Put(t.Context(), "huge", body, store.PutOptions{}); err == nil {
		t.Error("an object over MaxObject was put")
	}
	wantNothing(t, s, "huge")
}

func short(t *testing.T, s store.Store) {
	mustPut(t, s, "a/b", []byte("0123456789"))
	for _, r := range []struct{ off, n int64 }{{0, 11}, {9, 2}, {10, 1}, {11, 1}, {11, 0}, {1 << 40, 1}, {1 << 40, 0}} {
		err := s.Get(t.Context(), "a/b", make([]byte, r.n), r.off)
		wantErr(t, fmt.Sprintf("get %d bytes at %d of 10", r.n, r.off), err, store.ErrShort)
	}
}

func negative(t *testing.T, s store.Store) {
	mustPut(t, s, "a/b", []byte("0123456789"))
	for _, p := range [][]byte{nil, make([]byte, 3)} {
		if err := s.Get(t.Context(), "a/b", p, -3); err == nil {
			t.Errorf("get %d bytes at -3 succeeds", len(p))
		}
	}
}

func missing(t *testing.T, s store.Store) {
	wantNothing(t, s, "nothing")
	mustPut(t, s, "a/b", nil)
	wantNothing(t, s, "a/c")
	wantNothing(t, s, "a/b.c")
	wantNothing(t, s, "c/d/e/f")
	wantNothing(t, s, "a/b/c")
}

func readAll(t *testing.T, s store.Store) {
	data := random(3, 5000)
	mustPut(t, s, "a", data)
	got, err := store.ReadAll(t.Context(), s, "a", 5000)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read all: %d bytes, %v", len(got), err)
	}
	if _, err := store.ReadAll(t.Context(), s, "a", 4999); err == nil {
		t.Error("read all of 5000 bytes succeeds with a limit of 4999")
	}
	_, err = store.ReadAll(t.Context(), s, "b", 5000)
	wantErr(t, "read all of nothing", err, store.ErrNotExist)
}

func bodyNotKept(t *testing.T, s store.Store) {
	data := random(4, 10_000)
	mine := bytes.Clone(data)
	body := split(mine, 3000)
	if err := s.Put(t.Context(), "a", body, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	after, err := io.ReadAll(body.Reader())
	if err != nil || !bytes.Equal(after, data) {
		t.Error("put changed the body")
	}
	clear(mine)
	wantObject(t, s, "a", data)
	got := make([]byte, 10_000)
	if err := s.Get(t.Context(), "a", got, 0); err != nil {
		t.Fatal(err)
	}
	clear(got)
	wantObject(t, s, "a", data)
}

func folder(t *testing.T, s store.Store) {
	mustPut(t, s, "a/b/c", []byte("x"))
	for _, key := range []store.Key{"a", "a/b"} {
		_, err := s.Stat(t.Context(), key)
		wantErr(t, "stat a folder", err, store.ErrNotExist)
		wantErr(t, "get a folder", s.Get(t.Context(), key, nil, 0), store.ErrNotExist)
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete where no object is: %v", err)
		}
	}
	wantObject(t, s, "a/b/c", []byte("x"))
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Errorf("delete where no object is: %v", err)
	}
	mustPut(t, s, "a/b/d", []byte("y"))
	wantObject(t, s, "a/b/d", []byte("y"))
}

func cancelled(t *testing.T, s store.Store) {
	mustPut(t, s, "there", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, "put", s.Put(ctx, "new", store.Body{[]byte("y")}, store.PutOptions{}), context.Canceled)
	wantErr(t, "put large", s.Put(ctx, "new", store.Body{make([]byte, Large)}, store.PutOptions{}), context.Canceled)
	wantErr(t, "put onto", s.Put(ctx, "there", nil, store.PutOptions{}), context.Canceled)
	wantErr(t, "delete", s.Delete(ctx, "there"), context.Canceled)
	wantErr(t, "get", s.Get(ctx, "there", make([]byte, 1), 0), context.Canceled)
	_, err := s.Stat(ctx, "there")
	wantErr(t, "stat", err, context.Canceled)
	n := 0
	for _, err := range s.List(ctx, "") {
		wantErr(t, "list", err, context.Canceled)
		n++
	}
	if n != 1 {
		t.Errorf("a cancelled listing yields %d times, want one error", n)
	}
	wantNothing(t, s, "new")
	wantObject(t, s, "there", []byte("x"))
}

func badKey(t *testing.T, s store.Store) {
	for _, key := range []store.Key{"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", ".tmp/x", "a/.b", "A", "a b", "a\x00b", "ü", "a\\b",
		store.Key(bytes.Repeat([]byte("a"), 513))} {
		_, err := s.Stat(t.Context(), key)
		for what, err := range map[string]error{
			"put":    s.Put(t.Context(), key, store.Body{[]byte("x")}, store.PutOptions{}),
			"get":    s.Get(t.Context(), key, make([]byte, 1), 0),
			"stat":   err,
			"delete": s.Delete(t.Context(), key),
		} {
			if err == nil || errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s %q: error is %v, want a refusal", what, key, err)
			}
		}
	}
	for _, prefix := range []store.Key{"/", "..", "../", "a/..", "a//", ".t", "a/.", "A", "a\x00"} {
		n := 0
		for _, err := range s.List(t.Context(), prefix) {
			if n++; err == nil {
				t.Errorf("list %q yields an object", prefix)
			}
		}
		if n != 1 {
			t.Errorf("list %q yields %d times, want one error", prefix, n)
		}
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("the store holds %q", got)
	}
}
