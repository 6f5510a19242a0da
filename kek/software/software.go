// Package software keeps a KEK in a file: a PKCS#8 private key in PEM, in the
// clear or encrypted under a passphrase (PBES2, RFC 8018).
//
//	file:///etc/coffer/kek.pem
//	file:///etc/coffer/kek.pem?passphrase-source=file:/etc/coffer/kek.pass
//	file:///etc/coffer/kek.pem?passphrase-source=env:COFFER_KEK_PASSPHRASE
//
// The private half is in memory only while it opens something: every Unwrap reads
// the file again. So a key whose file is taken away stops working at once, as one
// in an HSM does.
package software

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/internal/calls"
)

// maxCalls is how many unwraps may be under way. One that hangs in a dead file
// system keeps its place.
const maxCalls = 8

// Key is a key in a file.
type Key struct {
	file  file
	ref   kek.Ref
	pub   *rsa.PublicKey
	calls *calls.Places
}

// Open reads the key that uri names. name is the key's name in the config.
func Open(ctx context.Context, name, uri string) (*Key, error) {
	f, err := parseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kek.ErrUnsuitable, err)
	}
	k := &Key{file: f, calls: calls.New(maxCalls)}
	var pub *rsa.PublicKey
	_, err = k.calls.Do(ctx, "read "+f.path, func() ([]byte, error) {
		priv, err := f.load()
		if err != nil {
			return nil, err
		}
		defer forget(priv)
		pub = &rsa.PublicKey{N: priv.N, E: priv.E}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	fingerprint, err := kek.FingerprintOf(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, f.path, err)
	}
	k.pub = pub
	k.ref = kek.Ref{
		Name: name, Provider: kek.Software, URI: f.public(), Bits: pub.N.BitLen(),
		Algorithm: kek.OAEPSHA256, Fingerprint: fingerprint,
	}
	return k, nil
}

// Ref names the key. A file has no versions.
func (k *Key) Ref() kek.Ref { return k.ref }

// Wrap encrypts secret with RSA-OAEP-256.
func (k *Key) Wrap(secret []byte) (kek.Wrapped, error) {
	ciphertext, err := kek.WrapRSA(k.pub, k.ref.Algorithm, secret)
	if err != nil {
		return kek.Wrapped{}, err
	}
	return kek.Wrapped{
		Provider: k.ref.Provider, URI: k.ref.URI, Fingerprint: k.ref.Fingerprint,
		Algorithm: k.ref.Algorithm, Ciphertext: ciphertext,
	}, nil
}

// Unwrap reads the private key and opens w.
func (k *Key) Unwrap(ctx context.Context, w kek.Wrapped) ([]byte, error) {
	if err := kek.CheckWrapped(k.ref, w); err != nil {
		return nil, err
	}
	return k.calls.Do(ctx, "read "+k.file.path, func() ([]byte, error) { return k.open(w) })
}

func (k *Key) open(w kek.Wrapped) ([]byte, error) {
	priv, err := k.file.load()
	if err != nil {
		return nil, err
	}
	defer forget(priv)
	if !priv.PublicKey.Equal(k.pub) {
		return nil, fmt.Errorf("%w: %s holds another key now: put the key %v back", kek.ErrMissing, k.file.path, k.ref.Fingerprint)
	}
	hash, err := w.Algorithm.Hash()
	if err != nil {
		return nil, err
	}
	secret, err := rsa.DecryptOAEP(hash.New(), nil, priv, w.Ciphertext, nil)
	switch {
	case errors.Is(err, rsa.ErrDecryption):
		return nil, fmt.Errorf("%w: it is damaged", kek.ErrWrongKey)
	case err != nil:
		return nil, fmt.Errorf("%w: decrypt with %v: %w", kek.ErrUnsuitable, w.Algorithm, err)
	}
	return secret, nil
}

// Check wraps and opens a random secret.
func (k *Key) Check(ctx context.Context) error {
	canary := make([]byte, 32)
	if _, err := rand.Read(canary); err != nil {
		return fmt.Errorf("%w: make a canary: %w", kek.ErrUnreachable, err)
	}
	w, err := k.Wrap(canary)
	if err != nil {
		return err
	}
	secret, err := k.Unwrap(ctx, w)
	if err != nil {
		return err
	}
	defer clear(secret)
	if !bytes.Equal(secret, canary) {
		return fmt.Errorf("%w: %s opens what it wrapped to something else", kek.ErrUnsuitable, k.file.path)
	}
	return nil
}

// Close has nothing to release.
func (k *Key) Close() error { return nil }

// String says which key it is.
func (k *Key) String() string { return k.ref.LogValue().String() }

// Format writes String, whatever the verb.
func (k *Key) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

// LogValue is that of Ref.
func (k *Key) LogValue() slog.Value { return k.ref.LogValue() }
