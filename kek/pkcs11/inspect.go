//go:build cgo && linux

package pkcs11

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferbackup/coffer/kek"
)

// candidate is a key pair on a token that a URI matches.
type candidate struct {
	pair      crypto11.SignerDecrypter
	id, label []byte
}

// find returns the keys that u matches, the newest first, each inspected.
func (t *token) find(c *conn, u URI, name string) ([]*key, error) {
	found, err := t.candidates(c, u)
	if err != nil {
		return nil, err
	}
	var keys []*key
	for i, one := range found {
		k, err := t.inspect(c, one)
		if i > 0 && errors.Is(err, kek.ErrUnsuitable) {
			t.cfg.Log.Warn("older version of a key left out", slog.String("key", name), slog.String("version", version(one.id)), slog.Any("error", err))
			continue
		}
		if err != nil {
			return nil, err
		}
		k.ref.Name, k.ref.URI = name, u.String()
		for _, caution := range k.cautions {
			t.cfg.Log.Warn("key has a flaw", slog.Any("key", k.ref), slog.String("flaw", caution))
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// candidates returns what u matches, the newest first, and at least one.
func (t *token) candidates(c *conn, u URI) ([]candidate, error) {
	pairs, err := findPairs(c, u.ID, []byte(u.Object))
	if err != nil {
		return nil, err
	}
	if len(pairs) == 0 {
		return nil, t.whyNone(c, u)
	}
	var found []candidate
	for _, pair := range pairs {
		one := candidate{pair: pair}
		if one.id, err = c.read(pair, crypto11.CkaId); err != nil {
			return nil, err
		}
		if one.label, err = c.read(pair, crypto11.CkaLabel); err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	slices.SortFunc(found, func(a, b candidate) int { return compareIDs(b.id, a.id) })
	return found, nil
}

// whyNone tells a key that is not there from one that cannot be used.
func (t *token) whyNone(c *conn, u URI) error {
	want, err := attributes(u.ID, []byte(u.Object))
	if err != nil {
		return err
	}
	halves, err := c.ctx.FindPrivateKeysWithAttributes(want)
	if f := (*fault)(nil); err != nil {
		if f = c.faultOf(err); f.class != incapable {
			return f
		}
	}
	if err == nil && len(halves) == 0 {
		return fmt.Errorf("%w: %s has no private key for %s", kek.ErrMissing, t, u)
	}
	rsaOnly := slices.ContainsFunc(halves, func(k crypto11.PrivateKey) bool { return k.KeyType() == keyTypeRSA })
	if err == nil && rsaOnly {
		return fmt.Errorf("%w: %s has the private half of %s and not the public one: put the public key object back", kek.ErrUnsuitable, t, u)
	}
	return fmt.Errorf("%w: %s on %s is not an RSA key", kek.ErrUnsuitable, u, t)
}

// inspect checks that a key pair may be a KEK and that it works.
func (t *token) inspect(c *conn, one candidate) (*key, error) {
	k, err := t.describe(one)
	if err != nil {
		return nil, err
	}
	if err := t.mayDecrypt(c, one); err != nil {
		return nil, err
	}
	if k.cautions, err = t.staysInside(c, one); err != nil {
		return nil, err
	}
	return k, k.prepare(c, one)
}

// describe checks what the public half of a pair is.
func (t *token) describe(one candidate) (*key, error) {
	pub, ok := one.pair.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: the public half of key %q is not RSA", kek.ErrUnsuitable, one.label)
	}
	if len(one.id) == 0 {
		return nil, fmt.Errorf("%w: key %q on %s has no CKA_ID, so its public half cannot be told: give both halves an id", kek.ErrUnsuitable, one.label, t)
	}
	if err := kek.CheckRSA(pub); err != nil {
		return nil, fmt.Errorf("key %q on %s: %w", one.label, t, err)
	}
	fingerprint, err := kek.FingerprintOf(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: key %q: %w", kek.ErrUnsuitable, one.label, err)
	}
	k := &key{token: t, pub: pub, id: one.id, label: one.label}
	k.ref = kek.Ref{Provider: kek.PKCS11, Version: version(one.id), Bits: pub.N.BitLen(), Fingerprint: fingerprint}
	return k, nil
}

// prepare makes the canary of a key, and with it the test that the key works.
func (k *key) prepare(c *conn, one candidate) error {
	k.conn, k.priv, k.canary = c, one.pair, make([]byte, 32)
	if _, err := rand.Read(k.canary); err != nil {
		return fmt.Errorf("%w: make a canary: %w", kek.ErrUnreachable, err)
	}
	return k.negotiate(c)
}

func (t *token) mayDecrypt(c *conn, one candidate) error {
	return t.require(c, one, crypto11.CkaDecrypt, 1, "may not decrypt (CKA_DECRYPT is not set)")
}

// staysInside refuses a key whose private numbers can leave the token, and returns
// what else is to be known of them. That a key was outside once is only a caution:
// NSS says so of keys that it has made itself.
func (t *token) staysInside(c *conn, one candidate) ([]string, error) {
	err := t.require(c, one, crypto11.CkaSensitive, 1, "can be read in the clear (CKA_SENSITIVE is not set)")
	if err == nil {
		err = t.require(c, one, crypto11.CkaExtractable, 0, "can be taken out of the token (CKA_EXTRACTABLE is set)")
	}
	if err != nil {
		return nil, err
	}
	var cautions []string
	for _, flaw := range []struct {
		attribute crypto11.AttributeType
		says      string
	}{
		{crypto11.CkaPrivate, "whoever reaches the token can use this key without a PIN (CKA_PRIVATE is 0)"},
		{crypto11.CkaLocal, "the token does not say that it made this key itself (CKA_LOCAL is 0): a copy may exist outside"},
		{crypto11.CkaNeverExtractable, "the key could once be taken out of the token (CKA_NEVER_EXTRACTABLE is 0)"},
	} {
		if value, err := c.read(one.pair, flaw.attribute); err == nil && bytes.Equal(value, []byte{0}) {
			cautions = append(cautions, flaw.says)
		}
	}
	return cautions, nil
}

// require refuses a key unless an attribute of its private half has a value.
func (t *token) require(c *conn, one candidate, attribute crypto11.AttributeType, want byte, otherwise string) error {
	value, err := c.read(one.pair, attribute)
	if err != nil {
		return err
	}
	if !bytes.Equal(value, []byte{want}) {
		return fmt.Errorf("%w: key %q on %s %s", kek.ErrUnsuitable, one.label, t, otherwise)
	}
	return nil
}

// read returns the value of an attribute of the private half.
func (c *conn) read(pair crypto11.SignerDecrypter, attribute crypto11.AttributeType) ([]byte, error) {
	value, err := c.ctx.GetAttribute(pair, attribute)
	if err != nil {
		return nil, c.faultOf(fmt.Errorf("read attribute %#x: %w", attribute, err))
	}
	if value == nil {
		return nil, nil
	}
	return value.Value, nil
}

// negotiate wraps the canary here and opens it there: with SHA-256, and with SHA-1
// if the token answers that it cannot, or shows that it cannot by opening SHA-1
// only. It also proves that the public half belongs to the private one.
func (k *key) negotiate(c *conn) error {
	first := k.try(c, kek.OAEPSHA256)
	var f *fault
	if first == nil || !errors.As(first, &f) || (f.class != incapable && f.class != damaged) {
		return first
	}
	second := k.try(c, kek.OAEPSHA1)
	if second == nil || !errors.As(second, &f) || f.class == sick || f.class == busy {
		return second
	}
	return fmt.Errorf("%w: key %q on %s does not open what its public half wraps, with %v (%v) or with %v (%v)",
		kek.ErrUnsuitable, k.label, k.token, kek.OAEPSHA256, first, kek.OAEPSHA1, second)
}

func (k *key) try(c *conn, alg kek.Algorithm) error {
	wrapped, err := kek.WrapRSA(k.pub, alg, k.canary)
	if err != nil {
		return err
	}
	secret, err := decryptOAEP(k.priv, alg, wrapped)
	if err != nil {
		return c.faultOf(err)
	}
	defer clear(secret)
	if !bytes.Equal(secret, k.canary) {
		return &fault{class: damaged, err: errors.New("the secret that came back is another")}
	}
	k.ref.Algorithm, k.wrapped = alg, wrapped
	return nil
}
