package kvtest

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"fmt"
	"sync"
)

// Pool gives out RSA keys, each once: first those it was made with, then new ones.
// Making a key takes from a tenth of a second to many seconds.
type Pool struct {
	mu   sync.Mutex
	keys map[int][]*rsa.PrivateKey
}

// NewPool returns a pool that begins with keys.
func NewPool(keys ...*rsa.PrivateKey) *Pool {
	p := &Pool{keys: make(map[int][]*rsa.PrivateKey)}
	for _, key := range keys {
		p.keys[key.N.BitLen()] = append(p.keys[key.N.BitLen()], key)
	}
	return p
}

// RSA returns a key of so many bits that it has returned to nobody else.
func (p *Pool) RSA(bits int) (*rsa.PrivateKey, error) {
	p.mu.Lock()
	if ready := p.keys[bits]; len(ready) > 0 {
		p.keys[bits] = ready[1:]
		p.mu.Unlock()
		return ready[0], nil
	}
	p.mu.Unlock()
	var key *rsa.PrivateKey
	var err error
	fips140.WithoutEnforcement(func() { key, err = rsa.GenerateKey(rand.Reader, bits) }) // 1024 bits, for tests of refusals
	if err != nil {
		return nil, fmt.Errorf("generate %d-bit RSA key: %w", bits, err)
	}
	return key, nil
}

//go:embed testdata/keys.pem
var publishedKeys []byte

// testKeys is the pool of published keys. There is one in a process, so that two
// servers of one test never hold the same key unless they are given it.
var testKeys = sync.OnceValues(func() (*Pool, error) {
	var keys []*rsa.PrivateKey
	for rest := publishedKeys; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return NewPool(keys...), nil
		}
		var parsed any
		var err error
		fips140.WithoutEnforcement(func() { parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes) })
		if err != nil {
			return nil, fmt.Errorf("read test key: %w", err)
		}
		key, ok := parsed.(*rsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("read test key: it is %T, not RSA", parsed)
		}
		keys = append(keys, key)
	}
})
