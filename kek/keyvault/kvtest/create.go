package kvtest

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"math/big"
	"slices"
)

// create makes a key or a new version.
func (c *call) create() (any, error) {
	o := c.body.options()
	switch c.body.Type {
	case "RSA", "RSA-HSM":
		o.Bits = cmp.Or(o.Bits, 2048)
		if o.Bits != 2048 && o.Bits != 3072 && o.Bits != 4096 {
			return nil, badParameter("Property key_size has invalid value %d", o.Bits)
		}
	case "EC", "EC-HSM":
	default:
		return nil, badParameter("Property kty has invalid value %q", c.body.Type)
	}
	if c.vault.hsm && !o.Hardware {
		return nil, badParameter("Property kty has invalid value %q: a Managed HSM has keys in hardware only", c.body.Type)
	}
	return c.made(o)
}

// importKey makes a version of a key that the client sends. Only RSA keys.
func (c *call) importKey() (any, error) {
	sent := c.body.Key
	if sent == nil || sent.Type != "RSA" && sent.Type != "RSA-HSM" {
		return nil, badParameter("Property key has invalid value: this server imports RSA keys")
	}
	o := c.body.options()
	o.Hardware = o.Hardware || sent.Type == "RSA-HSM"
	o.Ops = slices.Concat(o.Ops, sent.Ops)
	e := new(big.Int).SetBytes(sent.E)
	if !e.IsInt64() || e.Int64() >= 1<<31 {
		return nil, badParameter("Property e has invalid value")
	}
	private := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).SetBytes(sent.N), E: int(e.Int64())},
		D:         new(big.Int).SetBytes(sent.D),
		Primes:    []*big.Int{new(big.Int).SetBytes(sent.P), new(big.Int).SetBytes(sent.Q)},
	}
	if err := private.Validate(); err != nil {
		return nil, badParameter("Property key has invalid value: %v", err)
	}
	private.Precompute()
	o.Material = crypto.Signer(private)
	return c.made(o)
}

// rotate makes a new version like the newest.
func (c *call) rotate() (any, error) {
	c.s.mu.Lock()
	k, _, err := c.find()
	unready := err == nil && c.vault.hsm && k.policy == nil
	c.s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case unready:
		return nil, badParameter("Key %s has no rotation policy: a Managed HSM rotates only keys that have one", c.key)
	}
	v, err := c.s.rotate(c.vault.name, c.key)
	if err != nil {
		return nil, err
	}
	return c.show(v)
}

// made makes a version and answers with it.
func (c *call) made(o KeyOptions) (any, error) {
	v, err := c.s.createKey(c.vault.name, c.key, o)
	if err != nil {
		return nil, err
	}
	return c.show(v)
}

func (c *call) show(v *version) (any, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	k, _, err := c.find()
	if err != nil {
		return nil, err
	}
	return c.bundle(k, v), nil
}

// update changes one version and answers as if the change showed already.
func (c *call) update() (any, error) {
	c.s.mu.Lock()
	k, v, err := c.find()
	if err != nil {
		c.s.mu.Unlock()
		return nil, err
	}
	u, id := c.body.update(), v.id
	after, named := *v, *k
	after.change(u, c.s.opts.Clock())
	if u.Tags != nil {
		named.tags = u.Tags
	}
	out := c.bundle(&named, &after)
	c.s.mu.Unlock()
	if err := c.s.update(c.vault.name, c.key, id, u); err != nil {
		return nil, err
	}
	return out, nil
}
