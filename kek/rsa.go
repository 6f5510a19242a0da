package kek

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"   // for OAEPSHA1
	_ "crypto/sha256" // for OAEPSHA256
	"errors"
	"fmt"
)

// Bounds of what a key may be and wrap.
const (
	MinBits     = 2048
	MaxBits     = 4096
	DefaultBits = 3072 // 128-bit strength (NIST SP 800-57 part 1, table 2)
	MaxSecret   = 126  // what a 2048-bit key takes under OAEP with SHA-512
	minExponent = 65537
)

// CheckBits returns ErrUnsuitable, with what to do, unless a modulus of so many
// bits is allowed.
func CheckBits(bits int) error {
	if bits < MinBits || bits > MaxBits {
		return fmt.Errorf("%w: %d-bit RSA: use 2048, 3072 or 4096 bits", ErrUnsuitable, bits)
	}
	return nil
}

// CheckRSA returns ErrUnsuitable, with what to do, unless pub may be a KEK.
func CheckRSA(pub *rsa.PublicKey) error {
	if err := CheckBits(pub.N.BitLen()); err != nil {
		return err
	}
	if pub.E < minExponent || pub.E%2 == 0 {
		return fmt.Errorf("%w: RSA public exponent %d: use a key with exponent 65537", ErrUnsuitable, pub.E)
	}
	return nil
}

// Hash returns the hash of both OAEP and its MGF1. An algorithm that is not RSA-OAEP
// alone has none: ErrUnsuitable.
func (a Algorithm) Hash() (crypto.Hash, error) {
	switch a {
	case OAEPSHA256:
		return crypto.SHA256, nil
	case OAEPSHA1:
		return crypto.SHA1, nil
	case HybridMLKEM768:
		return 0, fmt.Errorf("%w: %v takes a hybrid key, and this one is RSA alone", ErrUnsuitable, a)
	}
	return 0, fmt.Errorf("%w: %v is not known to this version", ErrUnsuitable, a)
}

// WrapRSA encrypts secret under pub. It is what every provider wraps with: the
// public half needs nobody.
func WrapRSA(pub *rsa.PublicKey, alg Algorithm, secret []byte) ([]byte, error) {
	if err := checkSecret(secret); err != nil {
		return nil, err
	}
	hash, err := alg.Hash()
	if err != nil {
		return nil, err
	}
	ciphertext, err := rsa.EncryptOAEP(hash.New(), rand.Reader, pub, secret, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: encrypt with %v: %w", ErrUnsuitable, alg, err)
	}
	return ciphertext, nil
}

func checkSecret(secret []byte) error {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return fmt.Errorf("wrap a secret of %d bytes: want 1 to %d", len(secret), MaxSecret)
	}
	return nil
}

// WrapFor encrypts secret under the public half of the key that ref names, and says so
// in the wrapping. Without MLKEM the half is RSA alone.
func WrapFor(ref Ref, pub Hybrid, secret []byte) (Wrapped, error) {
	var ciphertext []byte
	var err error
	if pub.MLKEM != nil {
		ciphertext, err = pub.Wrap(secret)
	} else {
		ciphertext, err = WrapRSA(pub.RSA, ref.Algorithm, secret)
	}
	if err != nil {
		return Wrapped{}, err
	}
	return Wrapped{
		Provider: ref.Provider, URI: ref.URI, Version: ref.Version,
		Fingerprint: ref.Fingerprint, Algorithm: ref.Algorithm, Ciphertext: ciphertext,
	}, nil
}

// CheckWrapped returns ErrWrongKey unless w was made for the key of ref, by an
// algorithm of its kind, and is as long as that makes it, and ErrUnsuitable if its
// algorithm is unknown. Providers call it before they ask anyone.
func CheckWrapped(ref Ref, w Wrapped) error {
	if w.Fingerprint != ref.Fingerprint {
		return fmt.Errorf("%w: it was made for key %v, this is %v", ErrWrongKey, w.Fingerprint, ref.Fingerprint)
	}
	least := (ref.Bits + 7) / 8
	most := least
	switch w.Algorithm {
	case OAEPSHA256, OAEPSHA1:
	case HybridMLKEM768:
		least, most = least+hybridOverhead+1, least+hybridOverhead+MaxSecret
	default:
		_, err := w.Algorithm.Hash()
		return err
	}
	if (w.Algorithm == HybridMLKEM768) != (ref.Algorithm == HybridMLKEM768) {
		return fmt.Errorf("%w: it says %v and its key is of %v: it is damaged", ErrWrongKey, w.Algorithm, ref.Algorithm)
	}
	if n := len(w.Ciphertext); n < least || n > most {
		return errLength(n)
	}
	return nil
}

func errLength(n int) error {
	return fmt.Errorf("%w: no wrapping of this key has %d bytes: it is damaged", ErrWrongKey, n)
}

// Interrupted returns the error of a call that ended because ctx was done: what
// was asked of whom is said by doing. It is nil while ctx is not done.
func Interrupted(ctx context.Context, doing string) error {
	err := ctx.Err()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, doing, err)
}
