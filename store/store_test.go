package store_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cofferbackup/coffer/store"
)

func TestKeyCheck(t *testing.T) {
	for _, k := range []store.Key{"a", "vault", "a/b", "0", "a.b", "-", "_", "keys/vault/1-1", "a..b", "a.",
		store.Key(strings.Repeat("a", 512))} {
		if err := k.Check(); err != nil {
			t.Errorf("%q: %v", k, err)
		}
	}
	for _, k := range []store.Key{"", ".", "..", ".a", "a/.b", "a/..", "/", "/a", "a/", "a//b", "A", "a b", "a:b", "a\\b", "a\n", "a\x00", "é",
		"\xff", store.Key(strings.Repeat("a", 513))} {
		if k.Check() == nil {
			t.Errorf("%q is accepted", k)
		}
	}
}

func TestKeyCheckPrefix(t *testing.T) {
	for _, k := range []store.Key{"", "a", "a/", "a/b", "a/b/"} {
		if err := k.CheckPrefix(); err != nil {
			t.Errorf("%q: %v", k, err)
		}
	}
	for _, k := range []store.Key{"/", "a//", ".", "a/.", "../", "A"} {
		if k.CheckPrefix() == nil {
			t.Errorf("%q is accepted", k)
		}
	}
}

func TestKeyBase(t *testing.T) {
	for k, want := range map[store.Key]string{"a": "a", "a/b": "b", "a/b/c.d": "c.d"} {
		if got := k.Base(); got != want {
			t.Errorf("base of %q is %q, want %q", k, got, want)
		}
	}
}

// FuzzKeyCheck: a key that passes is safe as a path and as a URL path.
func FuzzKeyCheck(f *testing.F) {
	for _, s := range []string{"vault", "a/b-c_d.e", "..", "a/../b", "a//b", ".tmp/x", "a\x00", strings.Repeat("a/", 256)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k := store.Key(s)
		if k.Check() != nil {
			return
		}
		if len(s) > 512 || strings.ContainsAny(s, "\\%?#: \x00") || strings.ToLower(s) != s {
			t.Errorf("%q is accepted", s)
		}
		for _, seg := range strings.Split(s, "/") {
			if seg == "" || strings.HasPrefix(seg, ".") {
				t.Errorf("%q is accepted with segment %q", s, seg)
			}
		}
		for i := range len(s) + 1 {
			p := k[:i]
			// Where a key can be cut, a listing can begin, except after a "/." which
			// no key has.
			if err := p.CheckPrefix(); err != nil {
				t.Errorf("%q is a key, and its start %q is no prefix: %v", s, p, err)
			}
		}
	})
}

func body(parts ...string) store.Body {
	var b store.Body
	for _, p := range parts {
		b = append(b, []byte(p))
	}
	return b
}

func TestBodyReader(t *testing.T) {
	for _, b := range []store.Body{nil, body(""), body("abc"), body("", "a", "", "", "bcd", "efghij", "")} {
		want := bytes.Join(b, nil)
		if b.Size() != int64(len(want)) {
			t.Errorf("size of %q is %d", b, b.Size())
		}
		if err := iotest.TestReader(b.Reader(), want); err != nil {
			t.Errorf("reader of %q: %v", b, err)
		}
	}
}

func TestBodyReadersAreApart(t *testing.T) {
	b := body("abc", "def")
	first, second := b.Reader(), b.Reader()
	if _, err := first.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(second)
	if err != nil || string(got) != "abcdef" {
		t.Errorf("second reader: %q, %v", got, err)
	}
	got, err = io.ReadAll(first)
	if err != nil || string(got) != "ef" {
		t.Errorf("first reader from 4: %q, %v", got, err)
	}
}

func TestBodySeekRefuses(t *testing.T) {
	r := body("abc").Reader()
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("seek before the start is accepted")
	}
	if _, err := r.Seek(0, 7); err == nil {
		t.Error("an unknown whence is accepted")
	}
}

func TestBodySlice(t *testing.T) {
	b := body("", "abc", "d", "", "efgh")
	all := "abcdefgh"
	for off := range len(all) + 1 {
		for n := range len(all) - off + 1 {
			got := string(bytes.Join(b.Slice(int64(off), int64(n)), nil))
			if want := all[off : off+n]; got != want {
				t.Errorf("slice of %d at %d is %q, want %q", n, off, got, want)
			}
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 9}, {9, 0}, {8, 1}} {
		t.Run(fmt.Sprint(r), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("a slice outside the body is accepted")
				}
			}()
			b.Slice(r[0], r[1])
		})
	}
}

func TestBodyCheck(t *testing.T) {
	part := make([]byte, store.MaxObject/256)
	var b store.Body
	for range 256 {
		b = append(b, part)
	}
	if err := b.Check(); err != nil {
		t.Errorf("an object of the largest size: %v", err)
	}
	if err := append(b, []byte{0}).Check(); err == nil {
		t.Error("an object over the largest size is accepted")
	}
}
