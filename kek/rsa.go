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

// Hash returns the hash of both OAEP and its MGF1.
func (a Algorithm) Hash() (crypto.Hash, error) {
	switch a {
	case OAEPSHA256:
		return crypto.SHA256, nil
	case OAEPSHA1:
		return crypto.SHA1, nil
	}
	return 0, fmt.Errorf("%w: %v is not known to this version", ErrUnsuitable, a)
}

// WrapRSA encrypts secret under pub. It is the wrap of every provider: the
// public half needs nobody.
func WrapRSA(pub *rsa.PublicKey, alg Algorithm, secret []byte) ([]byte, error) {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return nil, fmt.Errorf("wrap a secret of %d bytes: want 1 to %d", len(secret), MaxSecret)
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

// CheckWrapped returns ErrWrongKey unless w was made for the key of ref and is as
// long as its modulus, and ErrUnsuitable if its algorithm is unknown. Providers
// call it before they ask anyone.
func CheckWrapped(ref Ref, w Wrapped) error {
	if w.Fingerprint != ref.Fingerprint {
		return fmt.Errorf("%w: it was made for key %v, this is %v", ErrWrongKey, w.Fingerprint, ref.Fingerprint)
	}
	if want := (ref.Bits + 7) / 8; len(w.Ciphertext) != want {
		return fmt.Errorf("%w: it has %d bytes instead of %d: it is damaged", ErrWrongKey, len(w.Ciphertext), want)
	}
	_, err := w.Algorithm.Hash()
	return err
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
