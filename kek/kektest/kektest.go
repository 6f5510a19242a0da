// Package kektest is what every provider of keys must do. A provider's tests call
// Run with its real thing. What other tests of keys need is here as well.
package kektest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// Provider is what Run tests.
type Provider struct {
	Key   kek.Key // the key under test, of 2048 bits or more
	Other kek.Key // another key of the same provider
	// Provider and Algorithm are what Key must say of itself.
	Provider  kek.Provider
	Algorithm kek.Algorithm
	// Secrets must not show in anything that is printed: PINs, passphrases,
	// private numbers in decimal and hexadecimal.
	Secrets []string
}

// Run tests the provider that open returns. open is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Provider) {
	for name, test := range map[string]func(*testing.T, Provider){
		"RoundTrip":     roundTrip,
		"Sizes":         sizes,
		"Ref":           ref,
		"OtherKey":      otherKey,
		"Flipped":       flipped,
		"BadWrappings":  badWrappings,
		"Kinds":         kinds,
		"Concurrent":    concurrent,
		"Cancelled":     cancelled,
		"PastDeadline":  pastDeadline,
		"Check":         check,
		"InRing":        inRing,
		"Redacted":      redacted,
		"ClosedTwice":   closedTwice,
		"OutlivesOther": outlivesOther,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func roundTrip(t *testing.T, p Provider) {
	secret := []byte("32-byte DEK || 32-byte chunk-id key, so 64 bytes are usual here.")
	kept := bytes.Clone(secret)
	w := wrap(t, p.Key, secret)
	if !bytes.Equal(secret, kept) {
		t.Error("Wrap changed the secret")
	}
	clear(secret)
	if got := unwrap(t, p.Key, w); !bytes.Equal(got, kept) {
		t.Errorf("Unwrap = %q, want %q", got, kept)
	}
	if again := wrap(t, p.Key, kept); bytes.Equal(again.Ciphertext, w.Ciphertext) {
		t.Error("two wrappings of one secret are the same")
	}
}

func sizes(t *testing.T, p Provider) {
	for _, size := range []int{1, 32, 64, kek.MaxSecret} {
		secret := bytes.Repeat([]byte{0xa5}, size)
		if got := unwrap(t, p.Key, wrap(t, p.Key, secret)); !bytes.Equal(got, secret) {
			t.Errorf("a secret of %d bytes came back as %d other bytes", size, len(got))
		}
	}
	for _, size := range []int{0, kek.MaxSecret + 1} {
		if _, err := p.Key.Wrap(make([]byte, size)); err == nil {
			t.Errorf("Wrap took a secret of %d bytes", size)
		}
	}
}

func ref(t *testing.T, p Provider) {
	r, w := p.Key.Ref(), wrap(t, p.Key, []byte("x"))
	if r.Provider != p.Provider || r.Algorithm != p.Algorithm {
		t.Errorf("Ref is of %v with %v, want %v with %v", r.Provider, r.Algorithm, p.Provider, p.Algorithm)
	}
	if r.Name == "" || r.URI == "" || r.Bits < kek.MinBits || r.Fingerprint == (kek.Fingerprint{}) {
		t.Errorf("Ref has gaps: %+v", r)
	}
	if r.Fingerprint == p.Other.Ref().Fingerprint {
		t.Error("two keys have one fingerprint")
	}
	if w.Provider != r.Provider || w.URI != r.URI || w.Version != r.Version || w.Fingerprint != r.Fingerprint || w.Algorithm != r.Algorithm {
		t.Errorf("the wrapping says %+v, its key %+v", w, r)
	}
	if got, want := len(w.Ciphertext), size(r, len("x")); got != want {
		t.Errorf("a %d-bit key of %v made a wrapping of %d bytes, want %d", r.Bits, r.Algorithm, got, want)
	}
	if strings.ContainsRune(r.URI, '?') {
		t.Errorf("URI %q tells where this host keeps things", r.URI)
	}
}

func otherKey(t *testing.T, p Provider) {
	w := wrap(t, p.Other, []byte("secret"))
	refuse(t, p.Key, w, kek.ErrWrongKey)
	w.Fingerprint = p.Key.Ref().Fingerprint // a liar
	refuse(t, p.Key, w, kek.ErrWrongKey)
	unwrap(t, p.Key, wrap(t, p.Key, []byte("still well")))
}

func flipped(t *testing.T, p Provider) {
	bits := 8 * size(p.Key.Ref(), len("secret"))
	for _, bit := range []int{9, 1000, p.Key.Ref().Bits - 1, bits / 2, bits - 200, bits - 1} {
		w := wrap(t, p.Key, []byte("secret"))
		w.Ciphertext[bit/8] ^= 1 << (bit % 8)
		refuse(t, p.Key, w, kek.ErrWrongKey)
		unwrap(t, p.Key, wrap(t, p.Key, []byte("the next call works")))
	}
}

func badWrappings(t *testing.T, p Provider) {
	for name, spoil := range map[string]func(*kek.Wrapped){
		"empty":     func(w *kek.Wrapped) { w.Ciphertext = nil },
		"short":     func(w *kek.Wrapped) { w.Ciphertext = w.Ciphertext[1:] },
		"long":      func(w *kek.Wrapped) { w.Ciphertext = append(w.Ciphertext, 0) },
		"zeros":     func(w *kek.Wrapped) { clear(w.Ciphertext) },
		"too large": func(w *kek.Wrapped) { copy(w.Ciphertext, bytes.Repeat([]byte{0xff}, len(w.Ciphertext))) },
	} {
		w := wrap(t, p.Key, []byte("secret"))
		spoil(&w)
		if _, err := p.Key.Unwrap(t.Context(), w); !errors.Is(err, kek.ErrWrongKey) {
			t.Errorf("%s: Unwrap = %v, want %v", name, err, kek.ErrWrongKey)
		}
	}
	w := wrap(t, p.Key, []byte("secret"))
	w.Algorithm = 77
	refuse(t, p.Key, w, kek.ErrUnsuitable)
	unwrap(t, p.Key, wrap(t, p.Key, []byte("still well")))
}

func concurrent(t *testing.T, p Provider) {
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for i := range 20 {
				secret := fmt.Appendf(nil, "secret %d of worker %d", i, worker)
				w, err := p.Key.Wrap(secret)
				if err != nil {
					t.Error(err)
					return
				}
				if random.IntN(5) == 0 { // a bad one in between spoils no other
					bad := w
					bad.Ciphertext = bytes.Clone(w.Ciphertext)
					bad.Ciphertext[random.IntN(len(bad.Ciphertext)-1)+1] ^= 4
					if _, err := p.Key.Unwrap(t.Context(), bad); !errors.Is(err, kek.ErrWrongKey) {
						t.Errorf("Unwrap of a damaged wrapping = %v", err)
					}
				}
				got, err := p.Key.Unwrap(t.Context(), w)
				if err != nil || !bytes.Equal(got, secret) {
					t.Errorf("Unwrap = %q, %v; want %q", got, err, secret)
				}
			}
		})
	}
	wg.Wait()
}

func cancelled(t *testing.T, p Provider) {
	w := wrap(t, p.Key, []byte("secret"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Key.Unwrap(ctx, w)
	if !errors.Is(err, context.Canceled) || len(sentinels(err)) != 0 {
		t.Errorf("Unwrap after cancel = %v, want context.Canceled and nothing about the key", err)
	}
	unwrap(t, p.Key, w)
}

func pastDeadline(t *testing.T, p Provider) {
	w := wrap(t, p.Key, []byte("secret"))
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err := p.Key.Unwrap(ctx, w)
	if !errors.Is(err, kek.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Unwrap past its deadline = %v, want %v", err, kek.ErrUnreachable)
	}
	unwrap(t, p.Key, w)
}

func check(t *testing.T, p Provider) {
	if err := p.Key.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func inRing(t *testing.T, p Provider) {
	w := wrap(t, p.Key, []byte("secret"))
	secret, used, err := kek.NewRing(p.Other, p.Key).Unwrap(t.Context(), []kek.Wrapped{w})
	if err != nil || string(secret) != "secret" || used != p.Key.Ref() {
		t.Errorf("Ring.Unwrap = %q with %v, %v", secret, used.Name, err)
	}
	_, _, err = kek.NewRing(p.Other).Unwrap(t.Context(), []kek.Wrapped{w})
	if !errors.Is(err, kek.ErrNoKey) || !strings.Contains(err.Error(), w.Fingerprint.String()) || !strings.Contains(err.Error(), w.URI) {
		t.Errorf("Unwrap by a ring without the key = %v, want %v with fingerprint and URI", err, kek.ErrNoKey)
	}
}

func redacted(t *testing.T, p Provider) {
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", p.Key, "ref", p.Key.Ref())
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", p.Key, "ref", p.Key.Ref())
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, format, p.Key)
		fmt.Fprintf(&log, format, []any{p.Key, struct{ K any }{p.Key}})
	}
	if len(p.Secrets) == 0 {
		t.Fatal("the provider's test names no secrets")
	}
	for i, secret := range p.Secrets {
		if strings.Contains(strings.ToLower(log.String()), strings.ToLower(secret)) {
			t.Errorf("secret %d shows in what is printed of a key", i)
		}
	}
}

func closedTwice(t *testing.T, p Provider) {
	for range 2 {
		if err := p.Key.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func outlivesOther(t *testing.T, p Provider) {
	w := wrap(t, p.Key, []byte("secret"))
	if err := p.Other.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	unwrap(t, p.Key, w)
}

// sentinels returns those of the contract that err is.
func sentinels(err error) []error {
	var found []error
	for _, sentinel := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrMissing, kek.ErrUnsuitable, kek.ErrWrongKey, kek.ErrNoKey} {
		if errors.Is(err, sentinel) {
			found = append(found, sentinel)
		}
	}
	return found
}

func wrap(t *testing.T, key kek.Key, secret []byte) kek.Wrapped {
	t.Helper()
	w, err := key.Wrap(secret)
	if err != nil {
		t.Fatalf("Wrap: %v", err)
	}
	return w
}

func unwrap(t *testing.T, key kek.Key, w kek.Wrapped) []byte {
	t.Helper()
	secret, err := key.Unwrap(t.Context(), w)
	if err != nil {
		t.Fatalf("Unwrap: %v", err)
	}
	return secret
}

// refuse wants exactly one sentinel, and no secret.
func refuse(t *testing.T, key kek.Key, w kek.Wrapped, want error) {
	t.Helper()
	secret, err := key.Unwrap(t.Context(), w)
	if got := sentinels(err); len(got) != 1 || got[0] != want {
		t.Errorf("Unwrap = %v, want %v", err, want)
	}
	if secret != nil {
		t.Errorf("Unwrap returned %d bytes beside its error", len(secret))
	}
}
