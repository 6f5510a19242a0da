package crypt_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
)

// closed says what a closed key still did.
func closed(t *testing.T, what string, err error, got bool) {
	t.Helper()
	if !errors.Is(err, crypt.ErrClosed) || got {
		t.Errorf("%s of a closed key: %v, something came out: %v; want %v and nothing", what, err, got, crypt.ErrClosed)
	}
}

// TestClosedKeysDoNothing: nothing is sealed, authenticated, named, opened or
// wrapped under bytes that were zeroed, nor under what was made of them before.
func TestClosedKeysDoNothing(t *testing.T) {
	k, s := vaultKey(t, sequence(32, 1)), secretOf(t, sequence(64, 1))
	id, commitment, item := k.ID(), s.Commitment(), itemID(t, k, "etc")
	name, sum := sealName(t, k, item, "etc"), macOf(t, k, "vault", "x")
	object, header := s.NewObject(place)
	sealed := seal(t, object, []byte("plaintext"), 0, 1)
	for range 2 { // twice is as good as once
		k.Close()
		s.Close()
	}
	if k.ID() != id || !bytes.Equal(s.Commitment(), commitment) {
		t.Error("what is public of a key changed when it was closed")
	}
	mac, err := k.MAC("vault", []byte("x"))
	closed(t, "MAC", err, mac != nil)
	closed(t, "Verify", k.Verify("vault", []byte("x"), sum), false)
	forItem, err := k.ItemID("etc")
	closed(t, "ItemID", err, forItem != crypt.ItemID{})
	label, err := k.SealName(item, "etc")
	closed(t, "SealName", err, label != nil)
	text, err := k.OpenName(item, name)
	closed(t, "OpenName", err, text != "")
	w, err := k.Wrap([]kek.Wrapper{plainKey{}})
	closed(t, "Wrap of the vault key", err, w != nil)

	w, err = s.Wrap([]kek.Wrapper{plainKey{}})
	closed(t, "Wrap of the secret", err, w != nil)
	next, err := s.Next()
	closed(t, "Next", err, next != nil)
	p, err := s.Polynomial()
	closed(t, "Polynomial", err, p != 0)
	n, err := s.Namer()
	closed(t, "Namer", err, n != nil)
	opened, err := s.OpenObject(place, header)
	closed(t, "OpenObject", err, opened != nil)
	late, lateHeader := s.NewObject(place)
	if !bytes.Equal(lateHeader[60:92], make([]byte, 32)) {
		t.Errorf("a closed key commits to %x", lateHeader[60:92])
	}
	for what, o := range map[string]*crypt.Object{"made before": object, "made after": late} {
		out, err := o.Seal(nil, []byte("plaintext"), 0, 1)
		closed(t, "Seal of an object "+what, err, out != nil)
		out, err = o.Open(nil, sealed, 0, 1)
		closed(t, "Open of an object "+what, err, out != nil)
	}
}

// TestCloseWhileInUse: who uses a key while it is closed gets what the key would
// have made, or an error, and never anything made of zeros.
func TestCloseWhileInUse(t *testing.T) {
	for range 50 {
		k, s := vaultKey(t, sequence(32, 1)), secretOf(t, sequence(64, 1))
		want, name := macOf(t, k, "vault", "x"), namer(t, s).ID([]byte("chunk"))
		object, header := s.NewObject(place)
		var wg sync.WaitGroup
		start := make(chan struct{})
		use := func(do func() error) {
			wg.Go(func() {
				<-start
				for range 20 {
					if err := do(); err != nil && !errors.Is(err, crypt.ErrClosed) {
						t.Error(err)
					}
				}
			})
		}
		use(func() error {
			got, err := k.MAC("vault", []byte("x"))
			if err == nil && !bytes.Equal(got, want) {
				t.Errorf("MAC %x under a key that is being closed, want %x", got, want)
			}
			return err
		})
		use(func() error {
			n, err := s.Namer()
			if err == nil && n.ID([]byte("chunk")) != name {
				t.Error("a chunk has another id while the key is being closed")
			}
			return err
		})
		use(func() error {
			sealed, err := object.Seal(nil, []byte("plaintext"), 0, 1)
			if err != nil {
				return err
			}
			plain, err := object.Open(nil, sealed, 0, 1)
			if err == nil && string(plain) != "plaintext" {
				t.Errorf("sealed as %q", plain)
			}
			return err
		})
		use(func() error {
			w, err := s.Wrap([]kek.Wrapper{plainKey{}})
			if err == nil && !bytes.Equal(w[0].Ciphertext, sequence(64, 1)) {
				t.Errorf("wrapped %x", w[0].Ciphertext)
			}
			return err
		})
		use(func() error {
			o, err := s.OpenObject(place, header)
			if err == nil && o == nil {
				t.Error("no object and no error")
			}
			return err
		})
		close(start)
		k.Close()
		s.Close()
		wg.Wait()
	}
}

// TestNext: the next generation has another data key and the same chunk ids.
func TestNext(t *testing.T) {
	s := secretOf(t, sequence(64, 1))
	next, err := s.Next()
	check(t, err)
	a, b := rawKey(t, s), rawKey(t, next)
	if bytes.Equal(a[:32], b[:32]) || !bytes.Equal(a[32:], b[32:]) || bytes.Equal(b[:32], make([]byte, 32)) {
		t.Errorf("%x follows %x", b, a)
	}
	if namer(t, s).ID([]byte("chunk")) != namer(t, next).ID([]byte("chunk")) || bytes.Equal(s.Commitment(), next.Commitment()) {
		t.Error("a chunk does not keep its id, or both secrets are one")
	}
	_, header := s.NewObject(place)
	_, err = next.OpenObject(place, header)
	damaged(t, "the generation before", err)
	s.Close()
	if got := rawKey(t, next); !bytes.Equal(got, b) {
		t.Error("closing a generation closes the next")
	}
}
