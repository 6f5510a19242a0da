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
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
)

// ErrDamaged: the bytes do not authenticate: they were damaged, forged, or belong
// to another place. They are never returned.
var ErrDamaged = errors.New("data is damaged or forged")

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

// derive expands key into n bytes for one purpose. It cannot fail for the lengths
// used here.
func derive(key []byte, purpose string, n int) []byte {
	out, err := hkdf.Key(sha256.New, key, nil, purpose, n)
	if err != nil {
		panic("crypt: internal error: " + err.Error())
	}
	return out
}
