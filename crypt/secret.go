package crypt

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/kek"
)

const (
	dekSize    = 32
	secretSize = 64
)

// Secret is an item's secret of one generation: the data key, and the key that
// names chunks. It is safe for concurrent use, Close included.
type Secret struct {
	redacted
	material   // data key || chunk-id key
	commitment [32]byte
}

// newSecret returns the secret of these bytes, which it owns.
func newSecret(raw []byte) *Secret {
	s := &Secret{material: material{bytes: raw}}
	copy(s.commitment[:], derive(raw, "coffer/1 secret commitment", len(s.commitment)))
	return s
}

// NewSecret makes a secret for a new item.
func NewSecret() *Secret {
	raw := make([]byte, secretSize)
	rand.Read(raw) // never fails (crypto/rand)
	return newSecret(raw)
}

// Next makes the secret of the item's next generation: a new data key, and the
// same chunk-id key, so that chunks keep their ids and are not stored again.
func (s *Secret) Next() (*Secret, error) {
	raw := make([]byte, secretSize)
	rand.Read(raw[:dekSize])
	err := s.use(func(key []byte) error {
		copy(raw[dekSize:], key[dekSize:])
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make next item secret: %w", err)
	}
	return newSecret(raw), nil
}

// Copy returns the same secret with a Close of its own.
func (s *Secret) Copy() (*Secret, error) {
	var raw []byte
	err := s.use(func(key []byte) error {
		raw = slices.Clone(key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("copy item secret: %w", err)
	}
	return newSecret(raw), nil
}

// OpenSecret unwraps a secret. The caller has authenticated the record that the
// wrappings came from.
func OpenSecret(ctx context.Context, ring *kek.Ring, wrapped []kek.Wrapped) (*Secret, kek.Ref, error) {
	raw, ref, err := ring.Unwrap(ctx, wrapped)
	if err != nil {
		return nil, ref, fmt.Errorf("open item secret: %w", err)
	}
	defer clear(raw)
	if len(raw) != secretSize {
		return nil, ref, fmt.Errorf("open item secret: %d bytes were wrapped: %w", len(raw), ErrDamaged)
	}
	return newSecret(slices.Clone(raw)), ref, nil
}

// Wrap wraps the secret under every wrapper.
func (s *Secret) Wrap(wrappers []kek.Wrapper) ([]kek.Wrapped, error) { return s.wrap(wrappers) }

// Commitment is a public value that only this secret has: key records carry it,
// so that a record with another item's wrapping is told before it is used. It
// outlives Close.
func (s *Secret) Commitment() []byte { return slices.Clone(s.commitment[:]) }

// Polynomial returns the item's own polynomial for content-defined splitting, so
// that chunk boundaries tell nothing to who has not the secret.
func (s *Secret) Polynomial() (p chunk.Polynomial, err error) {
	err = s.use(func(key []byte) error {
		seed := derive(key[dekSize:], "coffer/1 polynomial", 255*sha256.Size)
		p, err = chunk.DerivePolynomial(bytes.NewReader(seed))
		return err
	})
	return p, err
}

// Namer computes chunk ids. It is not safe for concurrent use; make one for each
// goroutine. It outlives Close of its secret, and then knows the chunk-id key in
// its own form: let go of it.
type Namer struct {
	redacted
	mac hash.Hash
}

// Namer returns a new namer of the item's chunks.
func (s *Secret) Namer() (n *Namer, err error) {
	err = s.use(func(key []byte) error {
		n = &Namer{mac: hmac.New(sha256.New, key[dekSize:])}
		return nil
	})
	return n, err
}

// ID returns the chunk id of data: HMAC-SHA256 under the chunk-id key.
func (n *Namer) ID(data []byte) (id chunk.ID) {
	n.mac.Reset()
	n.mac.Write(data)
	n.mac.Sum(id[:0])
	return id
}
