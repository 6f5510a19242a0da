package kek_test

import (
	"bytes"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/kek"
)

// pair is both halves of a hybrid key.
type pair struct {
	kek.Hybrid
	rsa   *rsa.PrivateKey
	mlkem *mlkem.DecapsulationKey768
}

func newPair(t testing.TB) pair {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dk, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	return pair{kek.Hybrid{RSA: &private.PublicKey, MLKEM: dk.EncapsulationKey()}, private, dk}
}

func (p pair) openRSA(ciphertext []byte) ([]byte, error) {
	return rsa.DecryptOAEP(sha256.New(), nil, p.rsa, ciphertext, nil)
}

// TestHybridBindsKeys: a wrapping opens under no other pair, even one that shares
// both secrets of it and differs in a public half alone.
func TestHybridBindsKeys(t *testing.T) {
	p := newPair(t)
	w, err := p.Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := p.Unwrap(w, p.openRSA, p.mlkem.Decapsulate); err != nil || string(secret) != "secret" {
		t.Fatalf("Unwrap = %q, %v", secret, err)
	}
	other := p
	other.MLKEM = newPair(t).MLKEM
	if _, err := other.Unwrap(w, p.openRSA, p.mlkem.Decapsulate); !errors.Is(err, kek.ErrWrongKey) {
		t.Errorf("Unwrap under another identity = %v, want %v", err, kek.ErrWrongKey)
	}
}

// TestHybridErrors: what the RSA half says is passed on, and halves that open to
// something of another size are refused.
func TestHybridErrors(t *testing.T) {
	p := newPair(t)
	w, err := p.Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	denied := func([]byte) ([]byte, error) { return nil, kek.ErrDenied }
	if _, err := p.Unwrap(w, denied, p.mlkem.Decapsulate); !errors.Is(err, kek.ErrDenied) {
		t.Errorf("Unwrap by a key that is denied = %v", err)
	}
	for _, size := range []int{0, 31, 33, 64} {
		r := bytes.Repeat([]byte{1}, size)
		opens := func([]byte) ([]byte, error) { return r, nil }
		if _, err := p.Unwrap(w, opens, p.mlkem.Decapsulate); !errors.Is(err, kek.ErrWrongKey) {
			t.Errorf("Unwrap with an RSA half of %d bytes = %v, want %v", size, err, kek.ErrWrongKey)
		}
		if bytes.ContainsRune(r, 1) {
			t.Errorf("the %d bytes that the RSA half opened to are still there", size)
		}
	}
	for _, size := range []int{0, kek.MaxSecret + 1} {
		if _, err := p.Wrap(make([]byte, size)); err == nil {
			t.Errorf("Wrap took %d bytes", size)
		}
	}
}

// FuzzHybridUnwrap: nothing but what Wrap made opens, and nothing panics.
func FuzzHybridUnwrap(f *testing.F) {
	p := newPair(f)
	w, err := p.Wrap([]byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(w)
	f.Add([]byte{})
	f.Add(w[:256])
	f.Add(w[:256+mlkem.CiphertextSize768+12+16])
	f.Fuzz(func(t *testing.T, text []byte) {
		secret, err := p.Unwrap(text, p.openRSA, p.mlkem.Decapsulate)
		if err == nil && (!bytes.Equal(text, w) || string(secret) != "secret") {
			t.Errorf("%x opens to %x", text, secret)
		}
	})
}

func TestMarshalMLKEM768(t *testing.T) {
	key := newPair(t).MLKEM
	der := kek.MarshalMLKEM768(key)
	if got, err := kek.ParseMLKEM768(der); err != nil || !bytes.Equal(got.Bytes(), key.Bytes()) {
		t.Errorf("ParseMLKEM768 of a key = %v", err)
	}
	spoiled := bytes.Clone(der)
	copy(spoiled[22:], "\xff\xff\xff") // no number below the modulus
	for name, der := range map[string][]byte{
		"nothing": nil, "a short key": der[:len(der)-1], "a long key": append(bytes.Clone(der), 0),
		"another algorithm": append([]byte{0x30, 0x81}, der[2:]...), "a spoiled key": spoiled,
	} {
		if _, err := kek.ParseMLKEM768(der); !errors.Is(err, kek.ErrUnsuitable) {
			t.Errorf("ParseMLKEM768 of %s = %v, want %v", name, err, kek.ErrUnsuitable)
		}
	}
}

// TestCheckWrapped: lengths and kinds are settled before any key is asked.
func TestCheckWrapped(t *testing.T) {
	plain := kek.Ref{Bits: 2048, Algorithm: kek.OAEPSHA256, Fingerprint: sha256.Sum256([]byte("plain"))}
	hybrid := kek.Ref{Bits: 2048, Algorithm: kek.HybridMLKEM768, Fingerprint: sha256.Sum256([]byte("hybrid"))}
	odd := kek.Ref{Bits: 2049, Algorithm: kek.OAEPSHA1, Fingerprint: plain.Fingerprint}
	const least, most = 256 + 1088 + 12 + 16 + 1, 256 + 1088 + 12 + 16 + kek.MaxSecret
	for _, test := range []struct {
		ref  kek.Ref
		alg  kek.Algorithm
		size int
		want error
	}{
		{plain, kek.OAEPSHA256, 256, nil},
		{plain, kek.OAEPSHA1, 256, nil}, // what a token of old has wrapped
		{plain, kek.OAEPSHA256, 0, kek.ErrWrongKey},
		{plain, kek.OAEPSHA256, 255, kek.ErrWrongKey},
		{plain, kek.OAEPSHA256, 257, kek.ErrWrongKey},
		{odd, kek.OAEPSHA1, 257, nil},
		{plain, kek.HybridMLKEM768, 256, kek.ErrWrongKey},
		{plain, kek.HybridMLKEM768, least, kek.ErrWrongKey},
		{hybrid, kek.HybridMLKEM768, least - 1, kek.ErrWrongKey},
		{hybrid, kek.HybridMLKEM768, least, nil},
		{hybrid, kek.HybridMLKEM768, most, nil},
		{hybrid, kek.HybridMLKEM768, most + 1, kek.ErrWrongKey},
		{hybrid, kek.OAEPSHA256, 256, kek.ErrWrongKey},
		{hybrid, kek.OAEPSHA1, least, kek.ErrWrongKey},
		{plain, 0, 256, kek.ErrUnsuitable},
		{hybrid, 4, least, kek.ErrUnsuitable},
	} {
		w := kek.Wrapped{Fingerprint: test.ref.Fingerprint, Algorithm: test.alg, Ciphertext: make([]byte, test.size)}
		if err := kek.CheckWrapped(test.ref, w); !errors.Is(err, test.want) {
			t.Errorf("CheckWrapped of %d bytes by %v for a key of %v = %v, want %v", test.size, test.alg, test.ref.Algorithm, err, test.want)
		}
		w.Fingerprint[0] ^= 1
		if err := kek.CheckWrapped(test.ref, w); !errors.Is(err, kek.ErrWrongKey) {
			t.Errorf("CheckWrapped of another key's = %v, want %v", err, kek.ErrWrongKey)
		}
	}
	if _, err := kek.WrapRSA(newPair(t).RSA, kek.HybridMLKEM768, []byte("x")); !errors.Is(err, kek.ErrUnsuitable) {
		t.Errorf("WrapRSA by %v = %v, want %v", kek.HybridMLKEM768, err, kek.ErrUnsuitable)
	}
}

// TestFill: what was not tried is said, in its place.
func TestFill(t *testing.T) {
	failed := kek.Fail(kek.StageKey, errors.Join(kek.ErrUnsuitable), "do it")
	steps := kek.Fill([]kek.Step{failed, {Stage: kek.StageIdentity, Verdict: kek.Passed}})
	var got strings.Builder
	for _, s := range steps {
		got.WriteString(string(s.Stage) + "=" + string(s.Verdict) + " ")
	}
	if want := "identity=passed permissions=skipped protection=skipped key=failed self-test=skipped "; got.String() != want {
		t.Errorf("Fill = %s, want %s", &got, want)
	}
}

// TestFail: the words of a sentinel are left out where something better follows.
func TestFail(t *testing.T) {
	for err, want := range map[error]string{
		kek.ErrDenied: "key provider refuses",
		fmt.Errorf("%w: wrong PIN: correct it", kek.ErrDenied):     "wrong PIN: correct it",
		fmt.Errorf("key x: %w: 1024-bit RSA", kek.ErrUnsuitable):   "key x: key is not suitable: 1024-bit RSA",
		fmt.Errorf("%w: %w: no such file", kek.ErrMissing, io.EOF): "EOF: no such file",
	} {
		if got := kek.Fail(kek.StageIdentity, err, "next"); got.Says != want || got.Verdict != kek.Failed || got.Next != "next" {
			t.Errorf("Fail of %v = %+v", err, got)
		}
	}
}
