package software

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/youmark/pkcs8"

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

// Create makes a key of so many bits (0: kek.DefaultBits) and writes it to the file
// that uri names, encrypted if uri has a passphrase-source. It never overwrites:
// the error is then fs.ErrExist. The key is on disk, with its name, when it
// returns.
func Create(ctx context.Context, uri string, bits int) error {
	f, err := parseURI(uri)
	if err != nil {
		return err
	}
	if bits == 0 {
		bits = kek.DefaultBits
	}
	if err := kek.CheckBits(bits); err != nil {
		return err
	}
	if _, err := os.Lstat(f.path); err == nil {
		return fmt.Errorf("create key: %s is there already, and is left as it is: %w", f.path, fs.ErrExist)
	}
	text, err := f.generate(bits)
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	defer clear(text)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	if err := publish(f.path, text); err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	return nil
}

// generate returns a new key in PEM.
func (f file) generate(bits int) ([]byte, error) {
	var passphrase []byte
	kind := "PRIVATE KEY"
	if !f.passphrase.IsZero() {
		var err error
		if passphrase, err = f.readPassphrase(); err != nil {
			return nil, err
		}
		defer clear(passphrase)
		if len(passphrase) < minPassphrase {
			return nil, fmt.Errorf("the passphrase in %s is shorter than %d bytes: choose a longer one", f.passphrase, minPassphrase)
		}
		kind = "ENCRYPTED PRIVATE KEY"
	}
	priv, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("generate %d-bit RSA key: %w", bits, err)
	}
	defer forget(priv)
	der, err := pkcs8.MarshalPrivateKey(priv, passphrase, &pkcs8.Opts{
		Cipher:  pkcs8.AES256CBC,
		KDFOpts: pkcs8.PBKDF2Opts{SaltSize: saltSize, IterationCount: iterations, HMACHash: crypto.SHA256},
	})
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
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
