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
	"slices"

	"github.com/cofferbackup/coffer/kek"
)

// MACSize is the length of a MAC in bytes.
const MACSize = sha256.Size

// VaultKey authenticates the public records of a vault and hides the names of its
// items. It is safe for concurrent use, Close included.
type VaultKey struct {
	redacted
	material
	id VaultID
}

const vaultKeySize = 32

// newVaultKey returns the vault key of these bytes, which it owns.
func newVaultKey(raw []byte) *VaultKey {
	k := &VaultKey{material: material{bytes: raw}}
	copy(k.id[:], derive(raw, "coffer/1 vault id", len(k.id)))
	return k
}

// NewVaultKey makes the key of a new vault.
func NewVaultKey() *VaultKey {
	raw := make([]byte, vaultKeySize)
	rand.Read(raw) // never fails (crypto/rand)
	return newVaultKey(raw)
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
	if len(raw) != vaultKeySize {
		return nil, ref, fmt.Errorf("open vault key: %d bytes were wrapped: %w", len(raw), ErrDamaged)
	}
	k := newVaultKey(slices.Clone(raw))
	if subtle.ConstantTimeCompare(k.id[:], id[:]) != 1 {
		k.Close()
		return nil, ref, fmt.Errorf("open vault key: it belongs to vault %s, not to %s: %w", k.id, id, ErrDamaged)
	}
	return k, ref, nil
}

// ID returns the vault id that the key commits to. It outlives Close.
func (k *VaultKey) ID() VaultID { return k.id }

// Wrap wraps the key under every wrapper.
func (k *VaultKey) Wrap(wrappers []kek.Wrapper) ([]kek.Wrapped, error) { return k.wrap(wrappers) }

// MAC authenticates msg as belonging at place, the object key it is kept under.
func (k *VaultKey) MAC(place string, msg []byte) (mac []byte, err error) {
	err = k.derived("coffer/1 record mac", func(key []byte) error {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(place))
		m.Write([]byte{0})
		m.Write(msg)
		mac = m.Sum(nil)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("authenticate %s: %w", place, err)
	}
	return mac, nil
}

// Verify checks a MAC. ErrDamaged if it does not hold.
func (k *VaultKey) Verify(place string, msg, mac []byte) error {
	want, err := k.MAC(place, msg)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, mac) {
		return fmt.Errorf("check %s: %w", place, ErrDamaged)
	}
	return nil
}

// ItemID returns the id of the item with that name. Two agents that share a vault
// agree on it without asking each other.
func (k *VaultKey) ItemID(name string) (id ItemID, err error) {
	err = k.derived("coffer/1 item id", func(key []byte) error {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(name))
		copy(id[:], m.Sum(nil))
		return nil
	})
	return id, err
}

// SealName hides an item's name for its key record.
func (k *VaultKey) SealName(id ItemID, name string) (sealed []byte, err error) {
	err = k.derived("coffer/1 item name", func(key []byte) error {
		sealed = newAEAD(key).Seal(nil, nil, []byte(name), id[:])
		return nil
	})
	return sealed, err
}

// OpenName is the inverse of SealName.
func (k *VaultKey) OpenName(id ItemID, sealed []byte) (string, error) {
	var name []byte
	err := k.derived("coffer/1 item name", func(key []byte) (err error) {
		if name, err = newAEAD(key).Open(nil, nil, sealed, id[:]); err != nil {
			return ErrDamaged
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("open name of item %s: %w", id, err)
	}
	return string(name), nil
}

// derived calls do with a key for one purpose, and zeroes it after.
func (k *VaultKey) derived(purpose string, do func(key []byte) error) error {
	return k.use(func(raw []byte) error {
		key := derive(raw, purpose, 32)
		defer clear(key)
		return do(key)
	})
}

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

func (m *material) wrap(wrappers []kek.Wrapper) (out []kek.Wrapped, err error) {
	err = m.use(func(key []byte) error {
		for _, w := range wrappers {
			wrapped, err := w.Wrap(key)
			if err != nil {
				return fmt.Errorf("wrap under key %s: %w", w.Ref().Name, err)
			}
			out = append(out, wrapped)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
