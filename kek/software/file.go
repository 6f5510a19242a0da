package software

import (
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"path/filepath"

	"github.com/youmark/pkcs8"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/secret"
)

const (
	maxFile = 64 << 10
	// fipsPassphrase is the shortest HMAC key that GODEBUG=fips140=only lets
	// PBKDF2 have: 112 bits (NIST SP 800-131A).
	fipsPassphrase = 14
)

// file is where a key is and what opens it.
type file struct {
	path       string
	passphrase secret.Source // zero: none
}

func parseURI(uri string) (file, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return file{}, fmt.Errorf("key URI: %w", errors.Unwrap(err))
	}
	if u.Scheme != "file" || u.Opaque != "" || (u.Host != "" && u.Host != "localhost") || u.Fragment != "" || u.User != nil {
		return file{}, errors.New("key URI is not of the form file:///path/kek.pem")
	}
	path := filepath.FromSlash(u.Path)
	if len(path) > 3 && path[0] == '\\' && path[2] == ':' {
		path = path[1:] // file:///C:/kek.pem
	}
	if !filepath.IsAbs(path) {
		return file{}, errors.New("key URI has no absolute path: write file:///path/kek.pem")
	}
	f := file{path: filepath.Clean(path)}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return file{}, errors.New("key URI has a query that cannot be read")
	}
	for name, values := range query {
		switch {
		case name == "passphrase":
			return file{}, errors.New("key URI holds a passphrase: name its place instead, passphrase-source=file:/path or env:NAME")
		case name != "passphrase-source":
			return file{}, fmt.Errorf("key URI has an unknown attribute %q: only passphrase-source is known", name)
		case len(values) != 1:
			return file{}, errors.New("key URI has passphrase-source more than once")
		}
		if f.passphrase, err = secret.Parse(values[0]); err != nil {
			return file{}, fmt.Errorf("passphrase-source: %w", err)
		}
	}
	return f, nil
}

// public is the URI that records and people see.
func (f file) public() string {
	path := filepath.ToSlash(f.path)
	if path[0] != '/' {
		path = "/" + path
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// load reads the private key. The caller forgets it.
func (f file) load() (*rsa.PrivateKey, error) {
	text, err := secret.ReadPrivate(f.path, maxFile)
	if err != nil {
		return nil, f.explain(err)
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: %s is not PEM: want a PKCS#8 private key in PEM", kek.ErrUnsuitable, f.path)
	}
	defer clear(block.Bytes)
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		if parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, f.path, err)
		}
	case "ENCRYPTED PRIVATE KEY":
		if parsed, err = f.decrypt(block.Bytes); err != nil {
			return nil, err
		}
	case "RSA PRIVATE KEY":
		return nil, fmt.Errorf("%w: %s is PKCS#1: convert it to PKCS#8: openssl pkcs8 -topk8 -nocrypt -in %s -out NEW.pem", kek.ErrUnsuitable, f.path, f.path)
	default:
		return nil, fmt.Errorf("%w: %s holds a %s: want a PKCS#8 private key", kek.ErrUnsuitable, f.path, block.Type)
	}
	priv, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: the key in %s is not RSA", kek.ErrUnsuitable, f.path)
	}
	if err := kek.CheckRSA(&priv.PublicKey); err != nil {
		forget(priv)
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return priv, nil
}

// decrypt opens an EncryptedPrivateKeyInfo (RFC 5958, 3). CBC carries no
// checksum: a wrong passphrase and a damaged file look the same.
func (f file) decrypt(der []byte) (any, error) {
	if err := checkPBES2(der); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, f.path, err)
	}
	if f.passphrase.IsZero() {
		return nil, fmt.Errorf("%w: %s is encrypted: add ?passphrase-source=file:/path to its URI", kek.ErrDenied, f.path)
	}
	passphrase, err := f.readPassphrase()
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	parsed, _, err := pkcs8.ParsePrivateKey(der, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: the passphrase in %s does not open %s: correct it, or the file is damaged", kek.ErrDenied, f.passphrase, f.path)
	}
	return parsed, nil
}

func (f file) readPassphrase() ([]byte, error) {
	passphrase, err := f.passphrase.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: %s is encrypted and its passphrase cannot be read: %w", kek.ErrDenied, f.path, err)
	}
	if fips140.Enforced() && len(passphrase) < fipsPassphrase {
		clear(passphrase)
		return nil, fmt.Errorf("%w: the passphrase of %s is shorter than the %d bytes that FIPS 140 wants", kek.ErrUnsuitable, f.path, fipsPassphrase)
	}
	return passphrase, nil
}

// explain says what an error of reading the file means for the key.
func (f file) explain(err error) error {
	var exposed *secret.ExposedError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", kek.ErrMissing, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", kek.ErrDenied, err)
	case errors.As(err, &exposed):
		return fmt.Errorf("%w: %w", kek.ErrUnsuitable, err)
	}
	return fmt.Errorf("%w: %w", kek.ErrUnreachable, err)
}

// forget overwrites the private numbers that Go lets us reach.
func forget(priv *rsa.PrivateKey) {
	numbers := append([]*big.Int{priv.D, priv.Precomputed.Dp, priv.Precomputed.Dq, priv.Precomputed.Qinv}, priv.Primes...)
	for _, n := range numbers {
		if n != nil {
			clear(n.Bits())
		}
	}
}
