package crypt_test

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
)

// plainKey wraps a secret as itself, so that a test can choose a key and look at
// one.
type plainKey struct{}

func (plainKey) Ref() kek.Ref { return kek.Ref{Name: "plain", Fingerprint: kek.Fingerprint{1}} }

func (k plainKey) Wrap(secret []byte) (kek.Wrapped, error) {
	return kek.Wrapped{Fingerprint: k.Ref().Fingerprint, Ciphertext: bytes.Clone(secret)}, nil
}

func (plainKey) Unwrap(_ context.Context, w kek.Wrapped) ([]byte, error) {
	return bytes.Clone(w.Ciphertext), nil
}

func (plainKey) Check(context.Context) error { return nil }
func (plainKey) Close() error                { return nil }

func ring() *kek.Ring { return kek.NewRing(plainKey{}) }

func wrapped(t testing.TB, secret []byte) []kek.Wrapped {
	t.Helper()
	w, err := plainKey{}.Wrap(secret)
	check(t, err)
	return []kek.Wrapped{w}
}

// sequence is n bytes: from, from+1, ...
func sequence(n int, from byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

// vaultKey opens raw as the key of the vault that it is the key of.
func vaultKey(t testing.TB, raw []byte) *crypt.VaultKey {
	t.Helper()
	k, _, err := crypt.OpenVaultKey(t.Context(), ring(), wrapped(t, raw), crypt.VaultID(derive(t, raw, "coffer/1 vault id", 20)))
	check(t, err)
	return k
}

func secretOf(t testing.TB, raw []byte) *crypt.Secret {
	t.Helper()
	s, _, err := crypt.OpenSecret(t.Context(), ring(), wrapped(t, raw))
	check(t, err)
	return s
}

// rawKey looks at a key by wrapping it.
func rawKey(t testing.TB, k interface {
	Wrap([]kek.Wrapper) ([]kek.Wrapped, error)
}) []byte {
	t.Helper()
	w, err := k.Wrap([]kek.Wrapper{plainKey{}})
	check(t, err)
	return w[0].Ciphertext
}

func namer(t testing.TB, s *crypt.Secret) *crypt.Namer {
	t.Helper()
	n, err := s.Namer()
	check(t, err)
	return n
}

func seal(t testing.TB, o *crypt.Object, plaintext []byte, index uint32, typ byte) []byte {
	t.Helper()
	sealed, err := o.Seal(nil, plaintext, index, typ)
	check(t, err)
	return sealed
}

func macOf(t testing.TB, k *crypt.VaultKey, place, msg string) []byte {
	t.Helper()
	sum, err := k.MAC(place, []byte(msg))
	check(t, err)
	return sum
}

func itemID(t testing.TB, k *crypt.VaultKey, name string) crypt.ItemID {
	t.Helper()
	id, err := k.ItemID(name)
	check(t, err)
	return id
}

func sealName(t testing.TB, k *crypt.VaultKey, id crypt.ItemID, name string) []byte {
	t.Helper()
	sealed, err := k.SealName(id, name)
	check(t, err)
	return sealed
}

// derive is HKDF(key, info, n) of docs/format.md, 2.2.
func derive(t testing.TB, key []byte, info string, n int) []byte {
	t.Helper()
	prk, err := hkdf.Extract(sha256.New, key, nil)
	check(t, err)
	out, err := hkdf.Expand(sha256.New, prk, info, n)
	check(t, err)
	return out
}

func mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
