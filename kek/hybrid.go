package kek

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// Parts of a wrapping of HybridMLKEM768 besides the RSA ciphertext and the secret.
const (
	sharedSize     = 32
	nonceSize      = 12
	tagSize        = 16
	hybridOverhead = mlkem.CiphertextSize768 + nonceSize + tagSize
	hybridInfo     = "coffer/1 hybrid RSA-OAEP-256+ML-KEM-768"
)

// Hybrid is the public half of a hybrid key: an RSA key and an ML-KEM-768 key
// (FIPS 203). What it wraps opens only with both private halves, so it stays closed
// to whoever breaks one of the two schemes, or steals one of the two keys.
//
// A wrapping is, with no lengths in between, for the RSA half gives the first:
//
//	RSA ciphertext       as long as the modulus: RSA-OAEP-256 of 32 random bytes, r
//	ML-KEM ciphertext    1088 bytes, of a shared key, m
//	nonce                12 random bytes
//	sealed               AES-256-GCM of the secret, and its tag of 16 bytes
//
// The AES key is HKDF-SHA256 (RFC 5869) with the input r || m, no salt, and the
// info "coffer/1 hybrid RSA-OAEP-256+ML-KEM-768" || fingerprint || RSA ciphertext ||
// ML-KEM ciphertext. So a part of one wrapping fits no other, under no other key.
type Hybrid struct {
	RSA   *rsa.PublicKey
	MLKEM *mlkem.EncapsulationKey768
}

// Fingerprint returns the identity of the pair: SHA-256 of the DER
// SubjectPublicKeyInfo of the RSA half followed by that of the ML-KEM half
// (RFC 9935, 4). It is not the fingerprint of either half.
func (h Hybrid) Fingerprint() (Fingerprint, error) {
	der, err := x509.MarshalPKIXPublicKey(h.RSA)
	if err != nil {
		return Fingerprint{}, fmt.Errorf("encode public key: %w", err)
	}
	return sha256.Sum256(append(der, MarshalMLKEM768(h.MLKEM)...)), nil
}

// Wrap encrypts secret under both halves, as HybridMLKEM768 says.
func (h Hybrid) Wrap(secret []byte) ([]byte, error) {
	if err := checkSecret(secret); err != nil {
		return nil, err
	}
	fingerprint, err := h.Fingerprint()
	if err != nil {
		return nil, err
	}
	shared := make([]byte, sharedSize, 2*sharedSize) // and ML-KEM's after it
	defer clear(shared[:2*sharedSize])
	if _, err := rand.Read(shared); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	out, err := WrapRSA(h.RSA, OAEPSHA256, shared)
	if err != nil {
		return nil, err
	}
	m, ciphertext := h.MLKEM.Encapsulate()
	defer clear(m)
	out = append(out, ciphertext...)
	aead, err := hybridCipher(append(shared, m...), fingerprint, out)
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, nil, secret, nil), nil
}

// Unwrap opens what Wrap made, with the private halves behind openRSA, which undoes
// RSA-OAEP-256, and decapsulate, which undoes ML-KEM. An error of openRSA is
// returned as it is. Its results are zeroed. The caller owns and zeroes the secret.
func (h Hybrid) Unwrap(wrapped []byte, openRSA, decapsulate func(ciphertext []byte) ([]byte, error)) ([]byte, error) {
	size := h.RSA.Size()
	if n := len(wrapped) - size - hybridOverhead; n < 1 || n > MaxSecret {
		return nil, errLength(len(wrapped))
	}
	fingerprint, err := h.Fingerprint()
	if err != nil {
		return nil, err
	}
	end := size + mlkem.CiphertextSize768
	r, err := openRSA(wrapped[:size])
	if err != nil {
		return nil, err
	}
	defer clear(r)
	m, err := decapsulate(wrapped[size:end])
	if err != nil {
		return nil, fmt.Errorf("%w: open with ML-KEM-768: %w", ErrWrongKey, err)
	}
	defer clear(m)
	if len(r) != sharedSize || len(m) != sharedSize {
		return nil, fmt.Errorf("%w: what its halves open to is too short or too long", ErrWrongKey)
	}
	shared := append(make([]byte, 0, 2*sharedSize), r...)
	shared = append(shared, m...)
	defer clear(shared)
	aead, err := hybridCipher(shared, fingerprint, wrapped[:end])
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, wrapped[end:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: it is damaged", ErrWrongKey)
	}
	return secret, nil
}

// hybridCipher returns the cipher of one wrapping. Its nonce is random only because
// FIPS 140 allows no other: the key is used once.
func hybridCipher(shared []byte, fingerprint Fingerprint, ciphertexts []byte) (cipher.AEAD, error) {
	info := append([]byte(hybridInfo), fingerprint[:]...)
	key, err := hkdf.Key(sha256.New, shared, nil, string(append(info, ciphertexts...)), 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a wrapping: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the cipher of a wrapping: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make the cipher of a wrapping: %w", err)
	}
	return aead, nil
}

// prefixMLKEM768 is a SubjectPublicKeyInfo up to the key: id-alg-ml-kem-768
// (2.16.840.1.101.3.4.4.2) without parameters, and a bit string of 1184 bytes.
const prefixMLKEM768 = "\x30\x82\x04\xb2" + "\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x04\x02" + "\x03\x82\x04\xa1\x00"

// MarshalMLKEM768 returns the DER SubjectPublicKeyInfo of a key (RFC 9935, 4), as it
// is in a PEM block "PUBLIC KEY".
func MarshalMLKEM768(key *mlkem.EncapsulationKey768) []byte {
	return append([]byte(prefixMLKEM768), key.Bytes()...)
}

// ParseMLKEM768 reads what MarshalMLKEM768 returns. Everything else, keys of other
// kinds too, is ErrUnsuitable.
func ParseMLKEM768(der []byte) (*mlkem.EncapsulationKey768, error) {
	key, ok := bytes.CutPrefix(der, []byte(prefixMLKEM768))
	if !ok {
		return nil, fmt.Errorf("%w: not an ML-KEM-768 public key", ErrUnsuitable)
	}
	parsed, err := mlkem.NewEncapsulationKey768(key)
	if err != nil {
		return nil, fmt.Errorf("%w: ML-KEM-768 public key: %w", ErrUnsuitable, err)
	}
	return parsed, nil
}
