package crypt

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/cofferbackup/coffer/kek"
)

// MACSize is the length of a MAC in bytes.
const MACSize = sha256.Size

// VaultKey authenticates the public records of a vault and hides the names of its
// items. It is safe for concurrent use until Close.
type VaultKey struct {
	redacted
	key [32]byte
}

// NewVaultKey makes the key of a new vault.
func NewVaultKey() *VaultKey {
	k := new(VaultKey)
	rand.Read(k.key[:]) // never fails (crypto/rand)
	return k
}

// OpenVaultKey unwraps the key of the vault called id. ErrDamaged if what was
// wrapped is not that vault's key: anyone can wrap, so this check is the only
// reason to believe it.
func OpenVaultKey(ctx context.Context, ring *kek.Ring, wrapped []kek.Wrapped, id VaultID) (*VaultKey, kek.Ref, error) {
	raw, ref, err := ring.Unwrap(ctx, wrapped)
	if err != nil {
		return nil, ref, fmt.Errorf("open vault key: %w", err)
	}
	defer clear(raw)
	k := new(VaultKey)
	if len(raw) != len(k.key) {
		return nil, ref, fmt.Errorf("open vault key: %d bytes were wrapped: %w", len(raw), ErrDamaged)
	}
	copy(k.key[:], raw)
	got := k.ID()
	if subtle.ConstantTimeCompare(got[:], id[:]) != 1 {
		k.Close()
		return nil, ref, fmt.Errorf("open vault key: it belongs to vault %s, not to %s: %w", got, id, ErrDamaged)
	}
	return k, ref, nil
}

// ID returns the vault id that the key commits to.
func (k *VaultKey) ID() (id VaultID) {
	copy(id[:], derive(k.key[:], "coffer/1 vault id", len(id)))
	return id
}

// Wrap wraps the key under every wrapper.
func (k *VaultKey) Wrap(wrappers []kek.Wrapper) ([]kek.Wrapped, error) {
	return wrapAll(k.key[:], wrappers)
}

// MAC authenticates msg as belonging at place, the object key it is kept under.
func (k *VaultKey) MAC(place string, msg []byte) []byte {
	m := hmac.New(sha256.New, derive(k.key[:], "coffer/1 record mac", 32))
	m.Write([]byte(place))
	m.Write([]byte{0})
	m.Write(msg)
	return m.Sum(nil)
}

// Verify checks a MAC. ErrDamaged if it does not hold.
func (k *VaultKey) Verify(place string, msg, mac []byte) error {
	if !hmac.Equal(k.MAC(place, msg), mac) {
		return fmt.Errorf("check %s: %w", place, ErrDamaged)
	}
	return nil
}

// ItemID returns the id of the item with that name. Two agents that share a vault
// agree on it without asking each other.
func (k *VaultKey) ItemID(name string) (id ItemID) {
	m := hmac.New(sha256.New, derive(k.key[:], "coffer/1 item id", 32))
	m.Write([]byte(name))
	copy(id[:], m.Sum(nil))
	return id
}

// SealName hides an item's name for its key record.
func (k *VaultKey) SealName(id ItemID, name string) []byte {
	return k.nameAEAD().Seal(nil, nil, []byte(name), id[:])
}

// OpenName is the inverse of SealName.
func (k *VaultKey) OpenName(id ItemID, sealed []byte) (string, error) {
	name, err := k.nameAEAD().Open(nil, nil, sealed, id[:])
	if err != nil {
		return "", fmt.Errorf("open name of item %s: %w", id, ErrDamaged)
	}
	return string(name), nil
}

func (k *VaultKey) nameAEAD() cipher.AEAD {
	return newAEAD(derive(k.key[:], "coffer/1 item name", 32))
}

// Close zeroes the key.
func (k *VaultKey) Close() { clear(k.key[:]) }

// newAEAD returns AES-256-GCM that draws a 12-byte nonce for every message and
// puts it in front.
func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("crypt: internal error: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("crypt: internal error: " + err.Error())
	}
	return aead
}

func wrapAll(secret []byte, wrappers []kek.Wrapper) ([]kek.Wrapped, error) {
	out := make([]kek.Wrapped, 0, len(wrappers))
	for _, w := range wrappers {
		wrapped, err := w.Wrap(secret)
		if err != nil {
			return nil, fmt.Errorf("wrap under key %s: %w", w.Ref().Name, err)
		}
		out = append(out, wrapped)
	}
	return out, nil
}
