//go:build cgo && linux

package pkcs11

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferbackup/coffer/kek"
)

// key is one version of a key in a token.
type key struct {
	token     *token
	ref       kek.Ref
	pub       *rsa.PublicKey
	id, label []byte
	cautions  []string
	// canary is a random secret that was wrapped when the key was opened. That
	// it still opens tells a healthy token from a sick one.
	canary, wrapped []byte

	mu     sync.Mutex
	closed bool
	conn   *conn                    // the connection that priv is good for
	priv   crypto11.SignerDecrypter // a handle, not the numbers
}

func (k *key) Ref() kek.Ref { return k.ref }

// Cautions says what is to be known of a key that may be used.
func (k *key) Cautions() []string { return append([]string(nil), k.cautions...) }

func (k *key) Wrap(secret []byte) (kek.Wrapped, error) {
	return kek.WrapFor(k.ref, kek.Hybrid{RSA: k.pub}, secret)
}

func (k *key) Unwrap(ctx context.Context, w kek.Wrapped) ([]byte, error) {
	if err := kek.CheckWrapped(k.ref, w); err != nil {
		return nil, err
	}
	if k.isClosed() {
		return nil, k.errClosed()
	}
	ctx, cancel := context.WithTimeout(ctx, k.token.cfg.CallWait)
	defer cancel()
	return k.token.use(ctx, "unwrap", func(c *conn) ([]byte, error) {
		return k.decrypt(c, w.Algorithm, w.Ciphertext)
	})
}

// Check looks for the key anew: a token may go on decrypting with a handle after the
// key was deleted.
func (k *key) Check(ctx context.Context) error {
	if k.isClosed() {
		return k.errClosed()
	}
	ctx, cancel := context.WithTimeout(ctx, k.token.cfg.CallWait)
	defer cancel()
	secret, err := k.token.use(ctx, "check", func(c *conn) ([]byte, error) {
		if _, err := k.look(c); err != nil {
			return nil, err
		}
		return k.decrypt(c, k.ref.Algorithm, k.wrapped)
	})
	if err != nil {
		return err
	}
	defer clear(secret)
	if !bytes.Equal(secret, k.canary) {
		return fmt.Errorf("%w: %s opens what it wrapped to something else", kek.ErrUnsuitable, k.token)
	}
	return nil
}

func (k *key) errClosed() error {
	return fmt.Errorf("%w: key %s is closed", kek.ErrUnreachable, k.ref.Name)
}

func (k *key) Close() error {
	k.mu.Lock()
	was := k.closed
	k.closed = true
	k.conn, k.priv = nil, nil
	k.mu.Unlock()
	if was {
		return nil
	}
	return k.token.release(k.token.cfg.CloseWait)
}

func (k *key) isClosed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closed
}

func (k *key) String() string { return k.ref.LogValue().String() }

// Format writes String, whatever the verb: what hangs below knows the PIN.
func (k *key) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

func (k *key) LogValue() slog.Value { return k.ref.LogValue() }

// decrypt asks the token. An answer that may mean a sick token as well as a damaged
// ciphertext is settled by the canary: if that opens, and the ciphertext once more
// does not, it is the ciphertext.
func (k *key) decrypt(c *conn, alg kek.Algorithm, ciphertext []byte) ([]byte, error) {
	priv, err := k.handle(c)
	if err != nil {
		return nil, err
	}
	secret, err := decryptOAEP(priv, alg, ciphertext)
	if err == nil {
		return secret, nil
	}
	f := c.faultOf(err)
	known := f.class == incapable && alg == k.ref.Algorithm // it can, so it means something else
	if !known && !(f.class == sick && ambiguous(f.code)) {
		return nil, f
	}
	canary, err := decryptOAEP(priv, k.ref.Algorithm, k.wrapped)
	if err != nil {
		return nil, c.faultOf(err)
	}
	defer clear(canary)
	if secret, err = decryptOAEP(priv, alg, ciphertext); err == nil {
		return secret, nil
	}
	if bytes.Equal(canary, k.canary) {
		f.class = damaged
	}
	return nil, f
}

func decryptOAEP(priv crypto11.SignerDecrypter, alg kek.Algorithm, ciphertext []byte) ([]byte, error) {
	hash, err := alg.Hash()
	if err != nil {
		return nil, err
	}
	return priv.Decrypt(nil, ciphertext, &rsa.OAEPOptions{Hash: hash}) // without options it would be PKCS#1 v1.5
}

// handle returns the key on connection c. Handles die with their connection.
func (k *key) handle(c *conn) (crypto11.SignerDecrypter, error) {
	k.mu.Lock()
	if k.priv != nil && k.conn == c {
		defer k.mu.Unlock()
		return k.priv, nil
	}
	k.mu.Unlock()
	return k.look(c)
}

// look asks the token for the key, on connection c.
func (k *key) look(c *conn) (crypto11.SignerDecrypter, error) {
	pairs, err := findPairs(c, k.id, k.label)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pair := range pairs {
		if pub, ok := pair.Public().(*rsa.PublicKey); ok && pub.Equal(k.pub) {
			k.conn, k.priv = c, pair
			return pair, nil
		}
	}
	k.conn, k.priv = nil, nil
	return nil, fmt.Errorf("%w: %s has no key %q with id %x any more: put the key back, or link another that opens what it wrapped", kek.ErrMissing, k.token, k.label, k.id)
}

func findPairs(c *conn, id, label []byte) ([]crypto11.SignerDecrypter, error) {
	want, err := attributes(id, label)
	if err == nil {
		err = want.Set(crypto11.CkaKeyType, keyTypeRSA) // else it stops at the first key of another type
	}
	if err != nil {
		return nil, err
	}
	pairs, err := c.ctx.FindKeyRSAPairsWithAttributes(want)
	if err != nil {
		return nil, c.faultOf(fmt.Errorf("find key: %w", err))
	}
	return pairs, nil
}

const keyTypeRSA = 0 // CKK_RSA

func attributes(id, label []byte) (crypto11.AttributeSet, error) {
	set := crypto11.NewAttributeSet()
	var errs []error
	if len(id) > 0 {
		errs = append(errs, set.Set(crypto11.CkaId, id))
	}
	if len(label) > 0 {
		errs = append(errs, set.Set(crypto11.CkaLabel, label))
	}
	return set, errors.Join(errs...)
}

// version returns the name of a key's version.
func version(id []byte) string { return hex.EncodeToString(id) }
