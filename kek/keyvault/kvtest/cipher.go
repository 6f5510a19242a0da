package kvtest

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"hash"
	"slices"
)

// Algorithms of wrapping and encryption, which are the same for RSA.
const (
	oaep256 = "RSA-OAEP-256"
	oaep    = "RSA-OAEP" // SHA-1
	pkcs1   = "RSA1_5"
)

// result is the answer of wrap, unwrap, encrypt and decrypt.
type result struct {
	ID    string `json:"kid"`
	Value octets `json:"value"`
}

// cipher wraps, unwraps, encrypts or decrypts. The work itself is done without the
// lock.
func (c *call) cipher() (any, error) {
	private, id, err := c.usable()
	if err != nil {
		return nil, err
	}
	alg := c.body.Algorithm
	if alg != oaep256 && alg != oaep && alg != pkcs1 {
		return nil, badParameter("Property alg has invalid value %q", alg)
	}
	if len(c.body.Value) == 0 {
		return nil, badParameter("Property value must be specified")
	}
	var out []byte
	fips140.WithoutEnforcement(func() { // the service has its own module, which takes them all
		if c.op == OpWrap || c.op == OpEncrypt {
			out, err = encrypt(alg, &private.PublicKey, c.body.Value)
		} else {
			out, err = decrypt(alg, private, c.body.Value)
		}
	})
	if err != nil {
		return nil, badParameter("The parameter is incorrect.\r\n")
	}
	return result{ID: id, Value: out}, nil
}

// usable finds the version that the operation may use, as it is now: enabled, inside
// its dates unless it opens what is old, and with the operation among its own.
func (c *call) usable() (*rsa.PrivateKey, string, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.settle()
	k, v, err := c.find()
	if err != nil {
		return nil, "", err
	}
	now, protects := c.s.opts.Clock(), c.op == OpWrap || c.op == OpEncrypt
	switch {
	case !v.enabled && !(protects && c.s.opts.DisabledWraps):
		return nil, "", forbidden("KeyDisabled", "Operation %s is not allowed on a disabled key.", c.op)
	case protects && !v.expires.IsZero() && !now.Before(v.expires):
		return nil, "", forbidden("KeyExpired", "Operation %s is not allowed on an expired key.", c.op)
	case protects && now.Before(v.notBefore):
		return nil, "", forbidden("KeyNotYetValid", "Operation %s is not allowed on a key that is not yet valid.", c.op)
	case !slices.Contains(v.ops, string(c.op)):
		return nil, "", forbidden("KeyOperationForbidden", "Operation %s is not permitted on this key.", c.op)
	}
	private := v.rsa()
	if private == nil {
		return nil, "", badParameter("Key and encryption algorithm are incompatible. Key %s is of type '%s', and algorithm '%s' can only be used with a key of type 'RSA' or 'RSA-HSM'.",
			v.web(c.base, k.name).ID, v.kty(), c.body.Algorithm)
	}
	return private, v.web(c.base, k.name).ID, nil
}

func hashOf(alg string) hash.Hash {
	if alg == oaep {
		return sha1.New()
	}
	return sha256.New()
}

func encrypt(alg string, to *rsa.PublicKey, value []byte) ([]byte, error) {
	if alg == pkcs1 {
		//lint:ignore SA1019 the service still offers it
		return rsa.EncryptPKCS1v15(rand.Reader, to, value)
	}
	return rsa.EncryptOAEP(hashOf(alg), rand.Reader, to, value, nil)
}

func decrypt(alg string, with *rsa.PrivateKey, value []byte) ([]byte, error) {
	if alg == pkcs1 {
		//lint:ignore SA1019 the service still offers it
		return rsa.DecryptPKCS1v15(rand.Reader, with, value)
	}
	return rsa.DecryptOAEP(hashOf(alg), rand.Reader, with, value, nil)
}
