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
//
// A hybrid key (kek.HybridMLKEM768) is a file with a second block after the RSA key:
// an ML-KEM-768 key in PKCS#8 with its seed (RFC 9935, 6), encrypted under the same
// passphrase if the RSA key is. What a hybrid key wraps stays closed to a quantum
// computer that breaks RSA, and to whoever has one of its halves; it is as safe as
// its file, no safer. A hybrid key opens only what it wrapped itself: to add ML-KEM
// to a key in use, put both blocks into a new file, keep the old file as a key that
// only opens, and rotate.
package software

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
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
	pub   kek.Hybrid // without MLKEM if the key is RSA alone
	calls *calls.Places
}

// Open reads the key that uri names. name is the key's name in the config.
func Open(ctx context.Context, name, uri string) (*Key, error) {
	f, err := parseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kek.ErrUnsuitable, err)
	}
	k := &Key{file: f, calls: calls.New(maxCalls)}
	var pub kek.Hybrid
	_, err = k.calls.Do(ctx, "read "+f.path, func() ([]byte, error) {
		priv, err := f.load()
		if err != nil {
			return nil, err
		}
		defer priv.forget()
		pub = priv.public()
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	k.pub = pub
	if err := k.describe(name); err != nil {
		return nil, err
	}
	return k, nil
}

// describe fills ref.
func (k *Key) describe(name string) error {
	algorithm := kek.OAEPSHA256
	fingerprint, err := kek.FingerprintOf(k.pub.RSA)
	if k.pub.MLKEM != nil {
		algorithm = kek.HybridMLKEM768
		fingerprint, err = k.pub.Fingerprint()
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, k.file.path, err)
	}
	k.ref = kek.Ref{
		Name: name, Provider: kek.Software, URI: k.file.public(), Bits: k.pub.RSA.N.BitLen(),
		Algorithm: algorithm, Fingerprint: fingerprint,
	}
	return nil
}

// public returns the public half, which outlives p.
func (p private) public() kek.Hybrid {
	pub := kek.Hybrid{RSA: &rsa.PublicKey{N: p.rsa.N, E: p.rsa.E}}
	if p.mlkem != nil {
		pub.MLKEM = p.mlkem.EncapsulationKey()
	}
	return pub
}

// equal reports whether p is the private half of pub.
func (p private) equal(pub kek.Hybrid) bool {
	if !p.rsa.PublicKey.Equal(pub.RSA) || (p.mlkem == nil) != (pub.MLKEM == nil) {
		return false
	}
	return p.mlkem == nil || bytes.Equal(p.mlkem.EncapsulationKey().Bytes(), pub.MLKEM.Bytes())
}

// Ref names the key. A file has no versions.
func (k *Key) Ref() kek.Ref { return k.ref }

// Wrap encrypts secret with RSA-OAEP-256, and with ML-KEM-768 if the key is hybrid.
func (k *Key) Wrap(secret []byte) (kek.Wrapped, error) { return kek.WrapFor(k.ref, k.pub, secret) }

// Unwrap reads the private key and opens w.
func (k *Key) Unwrap(ctx context.Context, w kek.Wrapped) ([]byte, error) {
	if err := kek.CheckWrapped(k.ref, w); err != nil {
		return nil, err
	}
	return k.calls.Do(ctx, "read "+k.file.path, func() ([]byte, error) { return k.open(w) })
}

func (k *Key) open(w kek.Wrapped) ([]byte, error) {
	priv, err := k.load()
	if err != nil {
		return nil, err
	}
	defer priv.forget()
	if w.Algorithm != kek.HybridMLKEM768 {
		return priv.decrypt(w.Algorithm, w.Ciphertext)
	}
	openRSA := func(ciphertext []byte) ([]byte, error) { return priv.decrypt(kek.OAEPSHA256, ciphertext) }
	return k.pub.Unwrap(w.Ciphertext, openRSA, priv.mlkem.Decapsulate)
}

// load reads the private key that belongs to k. The caller forgets it.
func (k *Key) load() (private, error) {
	priv, err := k.file.load()
	if err != nil {
		return private{}, err
	}
	if !priv.equal(k.pub) {
		priv.forget()
		return private{}, fmt.Errorf("%w: %s holds another key now: put the key %v back", kek.ErrMissing, k.file.path, k.ref.Fingerprint)
	}
	return priv, nil
}

func (p private) decrypt(alg kek.Algorithm, ciphertext []byte) ([]byte, error) {
	hash, err := alg.Hash()
	if err != nil {
		return nil, err
	}
	secret, err := rsa.DecryptOAEP(hash.New(), nil, p.rsa, ciphertext, nil)
	switch {
	case errors.Is(err, rsa.ErrDecryption):
		return nil, fmt.Errorf("%w: it is damaged", kek.ErrWrongKey)
	case err != nil:
		return nil, fmt.Errorf("%w: decrypt with %v: %w", kek.ErrUnsuitable, alg, err)
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

// Inspect reads the file. It cannot say when the key was made: the times of a file
// change when it is copied.
func (k *Key) Inspect(ctx context.Context) (kek.Facts, error) {
	_, err := k.calls.Do(ctx, "read "+k.file.path, func() ([]byte, error) {
		priv, err := k.load()
		if err == nil {
			priv.forget()
		}
		return nil, err
	})
	if err != nil {
		return kek.Facts{}, err
	}
	return kek.Facts{Hardware: kek.No, Enabled: kek.Yes, MayUnwrap: kek.Yes, SoftDelete: kek.No, PurgeProtection: kek.No}, nil
}

// Public returns the public half in PEM: what the file of an escrow key holds.
func (k *Key) Public() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.pub.RSA)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if k.pub.MLKEM != nil {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: kek.MarshalMLKEM768(k.pub.MLKEM)})...)
	}
	return text, nil
}

// Close has nothing to release.
func (k *Key) Close() error { return nil }

// String says which key it is.
func (k *Key) String() string { return k.ref.LogValue().String() }

// Format writes String, whatever the verb.
func (k *Key) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

// LogValue is that of Ref.
func (k *Key) LogValue() slog.Value { return k.ref.LogValue() }
