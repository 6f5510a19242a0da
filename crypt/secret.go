package crypt

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/kek"
)

const (
	dekSize    = 32
	secretSize = 64
)

// Secret is an item's secret of one generation: the data key, and the key that
// names chunks. It is safe for concurrent use until Close.
type Secret struct {
	redacted
	raw [secretSize]byte // data key || chunk-id key
}

// NewSecret makes a secret for a new item.
func NewSecret() *Secret {
	s := new(Secret)
	rand.Read(s.raw[:])
	return s
}

// OpenSecret unwraps a secret. The caller has authenticated the record that the
// wrappings came from.
func OpenSecret(ctx context.Context, ring *kek.Ring, wrapped []kek.Wrapped) (*Secret, kek.Ref, error) {
	raw, ref, err := ring.Unwrap(ctx, wrapped)
	if err != nil {
		return nil, ref, fmt.Errorf("open item secret: %w", err)
	}
	defer clear(raw)
	s := new(Secret)
	if len(raw) != len(s.raw) {
		return nil, ref, fmt.Errorf("open item secret: %d bytes were wrapped: %w", len(raw), ErrDamaged)
	}
	copy(s.raw[:], raw)
	return s, ref, nil
}

// Wrap wraps the secret under every wrapper.
func (s *Secret) Wrap(wrappers []kek.Wrapper) ([]kek.Wrapped, error) {
	return wrapAll(s.raw[:], wrappers)
}

// Commitment is a public value that only this secret has: key records carry it,
// so that a record with another item's wrapping is told before it is used.
func (s *Secret) Commitment() []byte { return derive(s.raw[:], "coffer/1 secret commitment", 32) }

// Close zeroes the secret.
func (s *Secret) Close() { clear(s.raw[:]) }

// Polynomial returns the item's own polynomial for content-defined splitting, so
// that chunk boundaries tell nothing to who has not the secret.
func (s *Secret) Polynomial() (chunk.Polynomial, error) {
	seed := derive(s.raw[dekSize:], "coffer/1 polynomial", 255*sha256.Size)
	return chunk.DerivePolynomial(bytes.NewReader(seed))
}

// Namer computes chunk ids. It is not safe for concurrent use; make one for each
// goroutine.
type Namer struct {
	redacted
	mac hash.Hash
}

// Namer returns a new namer of the item's chunks.
func (s *Secret) Namer() *Namer {
	return &Namer{mac: hmac.New(sha256.New, s.raw[dekSize:])}
}

// ID returns the chunk id of data: HMAC-SHA256 under the chunk-id key.
func (n *Namer) ID(data []byte) (id chunk.ID) {
	n.mac.Reset()
	n.mac.Write(data)
	n.mac.Sum(id[:0])
	return id
}
