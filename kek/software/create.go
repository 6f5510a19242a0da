package software

import (
	"context"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cofferbackup/coffer/kek"
)

// How a new key is encrypted: PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC.
// OWASP's number of iterations of 2023; the salt is as long as FIPS 140 wants.
const (
	iterations = 600_000
	saltSize   = 16
	// minPassphrase keeps a key that is made here readable where FIPS 140 is
	// enforced.
	minPassphrase = fipsPassphrase
)

// CreateOptions say what key Create makes. The zero value is the usual one.
type CreateOptions struct {
	Bits   int  // of the RSA key; 0: kek.DefaultBits
	Hybrid bool // an ML-KEM-768 key beside it: kek.HybridMLKEM768
}

// Create makes a key and writes it to the file that uri names, encrypted if uri has
// a passphrase-source. It never overwrites: the error is then fs.ErrExist. The key
// is on disk, with its name, when it returns.
func Create(ctx context.Context, uri string, opts CreateOptions) error {
	f, err := parseURI(uri)
	if err != nil {
		return err
	}
	if opts.Bits == 0 {
		opts.Bits = kek.DefaultBits
	}
	if err := kek.CheckBits(opts.Bits); err != nil {
		return err
	}
	if _, err := os.Lstat(f.path); err == nil {
		return fmt.Errorf("%s is left as it is: %w", f.path, fs.ErrExist)
	}
	text, err := f.generate(opts)
	if err != nil {
		return err
	}
	defer clear(text)
	if err := ctx.Err(); err != nil {
		return err
	}
	return publish(f.path, text)
}

// generate returns a new key in PEM.
func (f file) generate(opts CreateOptions) ([]byte, error) {
	var passphrase []byte
	if !f.passphrase.IsZero() {
		var err error
		if passphrase, err = f.readPassphrase(); err != nil {
			return nil, err
		}
		defer clear(passphrase)
		if len(passphrase) < minPassphrase {
			return nil, fmt.Errorf("the passphrase in %s is shorter than %d bytes: choose a longer one", f.passphrase, minPassphrase)
		}
	}
	var priv private
	var err error
	if priv.rsa, err = rsa.GenerateKey(rand.Reader, opts.Bits); err != nil {
		return nil, fmt.Errorf("generate %d-bit RSA key: %w", opts.Bits, err)
	}
	defer priv.forget()
	der, err := x509.MarshalPKCS8PrivateKey(priv.rsa)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	text, err := seal(der, passphrase)
	if err != nil || !opts.Hybrid {
		return text, err
	}
	defer clear(text)
	if priv.mlkem, err = mlkem.GenerateKey768(); err != nil {
		return nil, fmt.Errorf("generate ML-KEM-768 key: %w", err)
	}
	second, err := seal(marshalMLKEM768(priv.mlkem), passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(second)
	return append(append(make([]byte, 0, len(text)+len(second)), text...), second...), nil
}

// seal returns the PEM block of a PrivateKeyInfo, encrypted if there is a
// passphrase. It zeroes der.
func seal(der, passphrase []byte) ([]byte, error) {
	defer clear(der)
	if passphrase == nil {
		return pem.EncodeToMemory(&pem.Block{Type: clearBlock, Bytes: der}), nil
	}
	encrypted, err := encrypt(der, passphrase)
	if err != nil {
		return nil, fmt.Errorf("encrypt key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: encryptedBlock, Bytes: encrypted}), nil
}

// publish writes a file that nobody sees until it is whole. A crash before the
// link leaves a file ".kek-*" beside it, which nothing reads; one after it leaves
// the key.
func publish(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".kek-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Link(tmp.Name(), path); err != nil { // unlike a rename, it never replaces
		return err
	}
	return syncDir(dir)
}
