package software

import (
	"bytes"
	"crypto/fips140"
	"crypto/mlkem"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"

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

// private is what a file holds.
type private struct {
	rsa   *rsa.PrivateKey
	mlkem *mlkem.DecapsulationKey768 // nil: the key is RSA alone
	// encrypted: under the passphrase.
	encrypted bool
}

// load reads the private key, which may be a KEK. The caller forgets it.
func (f file) load() (private, error) {
	text, err := f.read()
	if err != nil {
		return private{}, err
	}
	defer clear(text)
	priv, err := f.decode(text)
	if err != nil {
		return private{}, err
	}
	if err := kek.CheckRSA(&priv.rsa.PublicKey); err != nil {
		priv.forget()
		return private{}, fmt.Errorf("%s: %w", f.path, err)
	}
	return priv, nil
}

// read returns the text of the file. The caller zeroes it.
func (f file) read() ([]byte, error) {
	text, err := secret.ReadPrivate(f.path, maxFile)
	if err != nil {
		return nil, f.explain(err)
	}
	return text, nil
}

// decode reads the blocks of the file: an RSA key, and after it an ML-KEM-768 key
// if the KEK is a hybrid one. Anything that is not a private key may follow.
func (f file) decode(text []byte) (private, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return private{}, fmt.Errorf("%w: %s is not PEM: want a PKCS#8 private key in PEM", kek.ErrUnsuitable, f.path)
	}
	defer clear(block.Bytes)
	der, err := f.open(block)
	if err != nil {
		return private{}, err
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil && block.Type == encryptedBlock {
		return private{}, f.errPassphrase()
	}
	if err != nil {
		return private{}, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, f.path, err)
	}
	priv := private{encrypted: block.Type == encryptedBlock}
	var ok bool
	if priv.rsa, ok = parsed.(*rsa.PrivateKey); !ok {
		return private{}, fmt.Errorf("%w: the key in %s is not RSA", kek.ErrUnsuitable, f.path)
	}
	if priv.mlkem, err = f.second(block.Type, rest); err != nil {
		priv.forget()
		return private{}, err
	}
	return priv, nil
}

// second returns the ML-KEM-768 key that follows the RSA key in rest, or nil. It is
// encrypted if that one is: a passphrase for half of a key would protect neither.
func (f file) second(kind string, rest []byte) (*mlkem.DecapsulationKey768, error) {
	var found *mlkem.DecapsulationKey768
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			continue
		case block.Type != kind:
			return nil, fmt.Errorf("%w: %s holds a %s after a %s: both keys must be PKCS#8, and both encrypted or neither", kek.ErrUnsuitable, f.path, block.Type, kind)
		case found != nil:
			return nil, fmt.Errorf("%w: %s holds a third private key: leave the RSA key and one ML-KEM-768 key", kek.ErrUnsuitable, f.path)
		}
		der, err := f.open(block)
		clear(block.Bytes)
		if err != nil {
			return nil, err
		}
		other := !isMLKEM768(der)
		found, err = parseMLKEM768(der)
		clear(der)
		switch {
		case other:
			return nil, fmt.Errorf("%w: the second private key in %s is not an ML-KEM-768 key: remove it", kek.ErrUnsuitable, f.path)
		case err != nil:
			return nil, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, f.path, err)
		}
	}
	return found, nil
}

// The PEM blocks of PKCS#8 (RFC 7468, 10 and 11).
const (
	clearBlock     = "PRIVATE KEY"
	encryptedBlock = "ENCRYPTED PRIVATE KEY"
)

// open returns the PrivateKeyInfo of a block, decrypted. The caller zeroes it.
func (f file) open(block *pem.Block) ([]byte, error) {
	switch block.Type {
	case clearBlock:
		return bytes.Clone(block.Bytes), nil
	case encryptedBlock:
		return f.decrypt(block.Bytes)
	case "RSA PRIVATE KEY":
		return nil, fmt.Errorf("%w: %s is PKCS#1: convert it to PKCS#8: openssl pkcs8 -topk8 -nocrypt -in %s -out NEW.pem", kek.ErrUnsuitable, f.path, f.path)
	}
	return nil, fmt.Errorf("%w: %s holds a %s: want a PKCS#8 private key", kek.ErrUnsuitable, f.path, block.Type)
}

// decrypt opens an EncryptedPrivateKeyInfo (RFC 5958, 3).
func (f file) decrypt(der []byte) ([]byte, error) {
	scheme, err := parsePBES2(der)
	if err != nil {
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
	out, err := scheme.decrypt(passphrase)
	switch {
	case errors.Is(err, errPadding):
		return nil, f.errPassphrase()
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, f.path, err)
	}
	return out, nil
}

// errPassphrase: CBC carries no checksum, so a wrong passphrase and a damaged file
// look the same.
func (f file) errPassphrase() error {
	return fmt.Errorf("%w: the passphrase in %s does not open %s: correct it, or the file is damaged", kek.ErrDenied, f.passphrase, f.path)
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

// forget overwrites the private numbers that Go lets us reach: those of RSA.
func (p private) forget() {
	if p.rsa == nil {
		return
	}
	numbers := append([]*big.Int{p.rsa.D, p.rsa.Precomputed.Dp, p.rsa.Precomputed.Dq, p.rsa.Precomputed.Qinv}, p.rsa.Primes...)
	for _, n := range numbers {
		if n != nil {
			clear(n.Bits())
		}
	}
}
