package kek_test

import (
	"context"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/kek"
)

// fake is a key that answers as a test says.
type fake struct {
	ref    kek.Ref
	err    error
	asked  int
	closed bool
}

func (f *fake) Ref() kek.Ref { return f.ref }

func (f *fake) Wrap(secret []byte) (kek.Wrapped, error) {
	return kek.Wrapped{Fingerprint: f.ref.Fingerprint, URI: f.ref.URI, Version: f.ref.Version, Ciphertext: secret}, nil
}

func (f *fake) Unwrap(_ context.Context, w kek.Wrapped) ([]byte, error) {
	f.asked++
	return w.Ciphertext, f.err
}

func (f *fake) Check(context.Context) error { return f.err }

func (f *fake) Close() error {
	f.closed = true
	return f.err
}

func newFake(name string, number byte, err error) *fake {
	return &fake{err: err, ref: kek.Ref{
		Name: name, URI: "test:" + name, Version: fmt.Sprintf("v%d", number), Fingerprint: sha256.Sum256([]byte{number}),
	}}
}

func wrapped(keys ...*fake) []kek.Wrapped {
	var all []kek.Wrapped
	for _, k := range keys {
		w, _ := k.Wrap([]byte("by " + k.ref.Name + k.ref.Version))
		all = append(all, w)
	}
	return all
}

// TestRingOrder: the ring's order counts, not that of the wrappings, and what
// fails makes way.
func TestRingOrder(t *testing.T) {
	well, second := newFake("well", 1, nil), newFake("second", 2, nil)
	for _, sentinel := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrMissing, kek.ErrUnsuitable, kek.ErrWrongKey} {
		bad := newFake("bad", 3, fmt.Errorf("%w: because", sentinel))
		ring := kek.NewRing(bad, well, second)
		secret, used, err := ring.Unwrap(t.Context(), wrapped(second, well, bad))
		if err != nil || string(secret) != "by wellv1" || used != well.ref {
			t.Errorf("with %v: Unwrap = %q by %s, %v", sentinel, secret, used.Name, err)
		}
		if bad.asked != 1 || second.asked != 0 {
			t.Errorf("with %v: the first was asked %d times, the last %d", sentinel, bad.asked, second.asked)
		}
	}
}

// TestRingError: an error names every key and every wrapping.
func TestRingError(t *testing.T) {
	sick := newFake("sick", 1, fmt.Errorf("%w: token not present", kek.ErrUnreachable))
	cut := newFake("cut", 2, fmt.Errorf("%w: disabled", kek.ErrDenied))
	idle, gone := newFake("idle", 3, nil), newFake("gone", 4, nil)
	_, _, err := kek.NewRing(sick, cut, idle).Unwrap(t.Context(), wrapped(gone, cut, sick))
	for _, want := range []error{kek.ErrUnreachable, kek.ErrDenied} {
		if !errors.Is(err, want) {
			t.Errorf("error is not %v: %v", want, err)
		}
	}
	if errors.Is(err, kek.ErrNoKey) {
		t.Errorf("error says that no key matches, and two did: %v", err)
	}
	var failed *kek.UnwrapError
	if !errors.As(err, &failed) || len(failed.Tried) != 2 || failed.Tried[0].Ref.Name != "sick" || len(failed.Unknown) != 1 {
		t.Fatalf("error is %#v", err)
	}
	for _, part := range []string{"sick", "test:sick", "token not present", "cut", "disabled", gone.ref.Fingerprint.String(), "test:gone version v4"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not say %q: %v", part, err)
		}
	}
	for _, wrappings := range [][]kek.Wrapped{nil, wrapped(gone)} {
		if _, _, err := kek.NewRing(sick).Unwrap(t.Context(), wrappings); !errors.Is(err, kek.ErrNoKey) {
			t.Errorf("Unwrap of %d foreign wrappings = %v, want %v", len(wrappings), err, kek.ErrNoKey)
		}
	}
}

// TestRingCancelled: who cancels asks no further key.
func TestRingCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	first, next := newFake("first", 1, fmt.Errorf("read: %w", context.Canceled)), newFake("next", 2, nil)
	_, _, err := kek.NewRing(first, next).Unwrap(ctx, wrapped(first, next))
	if !errors.Is(err, context.Canceled) || next.asked != 0 {
		t.Errorf("Unwrap = %v, and the next key was asked %d times", err, next.asked)
	}
}

// TestRingVersions: of the versions of a key only the first wraps, and all unwrap.
func TestRingVersions(t *testing.T) {
	v2, v1, escrow := newFake("main", 2, nil), newFake("main", 1, nil), newFake("escrow", 3, nil)
	ring := kek.NewRing(v2, v1, escrow)
	var names []string
	for _, w := range ring.Wrappers() {
		names = append(names, w.Ref().Name+w.Ref().Version)
	}
	if got := strings.Join(names, " "); got != "mainv2 escrowv3" {
		t.Errorf("Wrappers are %s", got)
	}
	if _, used, err := ring.Unwrap(t.Context(), wrapped(v1)); err != nil || used.Version != "v1" {
		t.Errorf("Unwrap = by %s, %v", used.Version, err)
	}
	v1.err = errors.New("hangs")
	if err := ring.Close(); err == nil || !v2.closed || !v1.closed || !escrow.closed {
		t.Errorf("Close = %v; closed are %v %v %v", err, v2.closed, v1.closed, escrow.closed)
	}
}

func TestWrapRSA(t *testing.T) {
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []kek.Algorithm{kek.OAEPSHA256, kek.OAEPSHA1} {
		ciphertext, err := kek.WrapRSA(&priv.PublicKey, alg, []byte("secret"))
		if alg == kek.OAEPSHA1 && fips140.Enforced() {
			if !errors.Is(err, kek.ErrUnsuitable) {
				t.Errorf("WrapRSA with SHA-1 under FIPS 140 = %v, want %v", err, kek.ErrUnsuitable)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		hash, err := alg.Hash()
		if err != nil {
			t.Fatal(err)
		}
		if secret, err := rsa.DecryptOAEP(hash.New(), nil, priv, ciphertext, nil); err != nil || string(secret) != "secret" {
			t.Errorf("%v opens to %q, %v", alg, secret, err)
		}
	}
	for _, size := range []int{0, kek.MaxSecret + 1} {
		if _, err := kek.WrapRSA(&priv.PublicKey, kek.OAEPSHA256, make([]byte, size)); err == nil {
			t.Errorf("WrapRSA took %d bytes", size)
		}
	}
	if _, err := kek.WrapRSA(&priv.PublicKey, 9, []byte("x")); !errors.Is(err, kek.ErrUnsuitable) {
		t.Errorf("WrapRSA with an unknown algorithm = %v", err)
	}
}

func TestCheckRSA(t *testing.T) {
	modulus := func(bits uint) *big.Int {
		return new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), bits-1), big.NewInt(1))
	}
	for _, test := range []struct {
		bits uint
		e    int
		ok   bool
	}{
		{1024, 65537, false}, {2047, 65537, false}, {2048, 65537, true}, {3072, 65537, true}, {4096, 65539, true},
		{4097, 65537, false}, {8192, 65537, false}, {2048, 3, false}, {2048, 65536, false}, {2048, 65538, false},
	} {
		err := kek.CheckRSA(&rsa.PublicKey{N: modulus(test.bits), E: test.e})
		if (err == nil) != test.ok || (err != nil && !errors.Is(err, kek.ErrUnsuitable)) {
			t.Errorf("CheckRSA of %d bits and exponent %d = %v", test.bits, test.e, err)
		}
	}
}

// TestFingerprint is that of `openssl pkey -pubin -outform DER | sha256sum`.
func TestFingerprint(t *testing.T) {
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kek.FingerprintOf(&priv.PublicKey); err != nil || got != sha256.Sum256(der) {
		t.Errorf("FingerprintOf = %v, %v", got, err)
	}
}
