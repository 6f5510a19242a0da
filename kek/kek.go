// Package kek is the contract with the customer's key encryption keys: RSA keys
// that wrap the vault key and the item secrets, and that never leave their
// provider.
//
// A key has two halves and they are two interfaces. Wrapping needs only the
// public half: it happens in this process, asks nobody, and keeps working while
// the HSM is down. Unwrapping needs the private half, which only the provider
// has. A Ring holds the keys that a vault may be opened with and finds the right
// one by the fingerprint in the wrapping, so a key may move from one provider to
// another without a wrapping becoming unreadable.
//
// Invariants:
//   - RSA, 2048 to 4096 bits; beside it, where the owner wants it, ML-KEM-768
//     (Hybrid). Never anything in place of RSA.
//   - RSA-OAEP without a label; the hash is named in the wrapping.
//   - A wrapping proves nothing about who made it: anyone with the public key can
//     make one. What it opens to must be authenticated by the caller.
package kek

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
)

// Errors of every provider. An error that a provider returns from Unwrap or from
// opening a key wraps exactly one of them, so that the agent can tell a key that
// was taken away from one that is out of reach. A deadline that passes is
// ErrUnreachable. Only a call that its caller cancelled says nothing about the
// key: its error wraps context.Canceled and none of these.
var (
	// ErrUnreachable: the provider did not answer. The key may be fine; try later.
	ErrUnreachable = errors.New("key provider does not answer")
	// ErrDenied: the provider answered and refused (permission, disabled key,
	// wrong PIN, locked PIN). Trying again will not help and may lock a token.
	ErrDenied = errors.New("key provider refuses")
	// ErrMissing: the provider answered and has no such key.
	ErrMissing = errors.New("key not found")
	// ErrUnsuitable: the key is there and may not be used (not RSA, too small,
	// not allowed to decrypt, extractable where it must not be).
	ErrUnsuitable = errors.New("key is not suitable")
	// ErrWrongKey: the key answered and the wrapping does not open under it: it
	// was made for another key, or it is damaged.
	ErrWrongKey = errors.New("wrapping does not open with this key")
	// ErrNoKey: no key of the ring has the fingerprint of any wrapping.
	ErrNoKey = errors.New("no configured key matches")
)

// Provider names where the private half of a key lives.
type Provider string

// The providers. All have their names here because key records carry them.
const (
	Software Provider = "software"
	PKCS11   Provider = "pkcs11"
	KeyVault Provider = "keyvault"
	Escrow   Provider = "escrow" // the public half alone; the private half is kept offline
)

// Algorithm is how a secret is wrapped. The numbers are those of docs/format.md.
type Algorithm uint8

// The algorithms. OAEPSHA1 is for tokens that can do no better; its collision
// weakness does not touch OAEP, but policy may forbid it.
const (
	OAEPSHA256 Algorithm = 1 // RSAES-OAEP, SHA-256 and MGF1-SHA-256, empty label (RFC 8017)
	OAEPSHA1   Algorithm = 2 // RSAES-OAEP, SHA-1 and MGF1-SHA-1, empty label (RFC 8017)
	// HybridMLKEM768 takes both RSA and ML-KEM-768 to open: see Hybrid.
	HybridMLKEM768 Algorithm = 3
)

func (a Algorithm) String() string {
	switch a {
	case OAEPSHA256:
		return "RSA-OAEP-256"
	case OAEPSHA1:
		return "RSA-OAEP"
	case HybridMLKEM768:
		return "RSA-OAEP-256+ML-KEM-768"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Fingerprint is the SHA-256 of a public key's DER SubjectPublicKeyInfo
// (RFC 5280, 4.1), or of both of a hybrid key's (Hybrid.Fingerprint). It is the
// identity of a key version, wherever it lives.
type Fingerprint [sha256.Size]byte

func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// ParseFingerprint is the inverse of String.
func ParseFingerprint(s string) (f Fingerprint, err error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(f) {
		return f, fmt.Errorf("%q is not a fingerprint: it has 64 hexadecimal digits", s)
	}
	return Fingerprint(raw), nil
}

// FingerprintOf returns the fingerprint of an RSA key.
func FingerprintOf(pub *rsa.PublicKey) (Fingerprint, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return Fingerprint{}, fmt.Errorf("encode public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// Ref names one version of a key for people and for records. Only Fingerprint
// is trusted to identify it; the rest tells an operator where to look.
type Ref struct {
	Name        string // the name in the config
	Provider    Provider
	URI         string // without secrets
	Version     string // the provider's name of this version, "" if it has none
	Bits        int    // modulus size of the RSA key
	Algorithm   Algorithm
	Fingerprint Fingerprint
}

// LogValue keeps log lines short.
func (r Ref) LogValue() slog.Value {
	return slog.StringValue(fmt.Sprintf("%s(%s %s)", r.Name, r.Provider, r.Fingerprint.String()[:12]))
}

// Wrapped is a secret under one key. It is public data.
type Wrapped struct {
	Provider    Provider
	URI         string
	Version     string
	Fingerprint Fingerprint
	Algorithm   Algorithm
	Ciphertext  []byte // as long as the modulus; of HybridMLKEM768 as Hybrid says
}

// Wrapper is the public half of a key. Implementations are safe for concurrent
// use and do no I/O.
type Wrapper interface {
	Ref() Ref
	// Wrap encrypts secret (at most 126 bytes) under the key. It does not keep secret.
	Wrap(secret []byte) (Wrapped, error)
}

// Unwrapper is the private half of a key. Implementations are safe for
// concurrent use.
type Unwrapper interface {
	Ref() Ref
	// Unwrap asks the provider to open w. The caller owns and zeroes the result.
	// It returns when ctx is done even if the provider hangs.
	Unwrap(ctx context.Context, w Wrapped) ([]byte, error)
}

// Key is both halves of one key version, and what holds them open.
type Key interface {
	Wrapper
	Unwrapper
	// Check asks the provider whether the key is there and answers, by a real
	// unwrap. Its errors are those of Unwrap.
	Check(ctx context.Context) error
	Close() error
}

// Cautioner is a key that may be used and has a flaw that its owner should know,
// such as private numbers that were once outside the token.
type Cautioner interface {
	// Cautions returns a sentence for each flaw, without a full stop.
	Cautions() []string
}
