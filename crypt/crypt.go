// Package crypt holds the keys under which everything in a vault is sealed: the
// vault key, the secrets of items, and the keys of single objects derived from
// them.
//
//	vault key    32 bytes, one per vault. Authenticates what is public, names items.
//	item secret  data key (32 bytes) || chunk-id key (32 bytes), per item and generation
//	object key   HKDF-SHA256(data key, object's salt), with a commitment to it
//
// Invariants:
//   - Raw key bytes have no accessor and never leave this package except wrapped
//     by a KEK. Types that hold them print as "[redacted]".
//   - A key that is closed does nothing any more: its bytes are zeroed, and what it
//     or anything made from it is asked for is answered with ErrClosed. Close may
//     come at any time; it waits for those who are using the key.
//   - AES-256-GCM with random nonces; each object has a key of its own, so no key
//     seals more than some thousand messages.
//   - A seal is bound to the object's kind, item, generation and id, and to the
//     frame's index and type. Nothing opens in another place.
//   - Only primitives of Go's FIPS 140-3 module.
//
// docs/format.md is normative for every derivation.
package crypt

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// ErrDamaged: the bytes do not authenticate: they were damaged, forged, or belong
// to another place. They are never returned.
var ErrDamaged = errors.New("data is damaged or forged")

// ErrClosed: the key was closed, and its bytes are gone from memory.
var ErrClosed = errors.New("key is closed")

// Encoding writes ids in object keys and for people: RFC 4648 base32, lower case,
// without padding.
var Encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// VaultID is the vault's name in the world and a commitment to its key: whoever
// pins it cannot be shown another vault.
type VaultID [20]byte

func (id VaultID) String() string { return Encoding.EncodeToString(id[:]) }

// ParseVaultID is the inverse of VaultID.String.
func ParseVaultID(s string) (VaultID, error) {
	var id VaultID
	if !decode(id[:], s) {
		return VaultID{}, fmt.Errorf("%q is not a vault id: it has 32 letters a-z and digits 2-7", s)
	}
	return id, nil
}

// ItemID names an item in its vault without telling what it is called.
type ItemID [16]byte

func (id ItemID) String() string { return Encoding.EncodeToString(id[:]) }

// ParseItemID is the inverse of ItemID.String.
func ParseItemID(s string) (ItemID, error) {
	var id ItemID
	if !decode(id[:], s) {
		return ItemID{}, fmt.Errorf("%q is not an item id", s)
	}
	return id, nil
}

// decode reads exactly what Encoding writes for an id of that length: base32 leaves
// bits over at the end, and its decoder skips line ends, so that several texts
// would name one id.
func decode(id []byte, s string) bool {
	b, err := Encoding.DecodeString(s)
	if err != nil || len(b) != len(id) || Encoding.EncodeToString(b) != s {
		return false
	}
	copy(id, b)
	return true
}

// redacted keeps keys out of logs, errors and dumps of structs.
type redacted struct{}

func (redacted) String() string               { return "[redacted]" }
func (redacted) GoString() string             { return "[redacted]" }
func (redacted) Format(s fmt.State, _ rune)   { _, _ = s.Write([]byte("[redacted]")) }
func (redacted) LogValue() slog.Value         { return slog.StringValue("[redacted]") }
func (redacted) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// material is key bytes that may be taken away from those who use them. The zero
// value is closed.
type material struct {
	mu    sync.RWMutex // held for reading while the bytes, or what came of them, are in use
	bytes []byte       // nil: closed
}

// use calls do with the key bytes, which stay until it returns. ErrClosed if they
// are gone.
func (m *material) use(do func(key []byte) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.bytes == nil {
		return ErrClosed
	}
	return do(m.bytes)
}

// Close zeroes the key, for ever. It waits for who is using it, and may be called
// more than once.
func (m *material) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.bytes)
	m.bytes = nil
}

// derive expands key into n bytes for one purpose. It cannot fail for the lengths
// used here.
func derive(key []byte, purpose string, n int) []byte {
	prk := extract(key, make([]byte, sha256.Size))
	defer clear(prk)
	return expand(prk, purpose, n)
}

// extract is HKDF-Extract with SHA-256 (RFC 5869, 2.2). It is not crypto/hkdf's,
// because that one leaves the key in the buffer of its hash.
func extract(key, salt []byte) []byte {
	m := hmac.New(sha256.New, salt)
	m.Write(key)
	prk := m.Sum(nil)
	m.Write(make([]byte, 2*sha256.BlockSize-1-len(key)%sha256.BlockSize)) // over the key
	return prk
}

// expand is HKDF-Expand with SHA-256 (RFC 5869, 2.3).
func expand(prk []byte, info string, n int) []byte {
	out, err := hkdf.Expand(sha256.New, prk, info, n)
	if err != nil {
		panic("crypt: internal error: " + err.Error())
	}
	return out
}
