package escrow

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/cofferbackup/coffer/kek"
)

const maxFile = 64 << 10

// read returns the text of the file, which nobody but its owner may write.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblocking, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", kek.ErrMissing, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: %w", kek.ErrDenied, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", kek.ErrUnreachable, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kek.ErrUnreachable, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", kek.ErrUnsuitable, path)
	}
	if next := exposed(info); next != "" {
		return nil, fmt.Errorf("%w: %s %w: %s", kek.ErrUnsuitable, path, errExposed, next)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", kek.ErrUnreachable, path, err)
	}
	if len(text) > maxFile {
		clear(text)
		return nil, fmt.Errorf("%w: %s is larger than %d bytes: want a public key in PEM", kek.ErrUnsuitable, path, maxFile)
	}
	return text, nil
}

// What makes a file one that must not be used, though it can be read.
var (
	errPrivate = errors.New("HOLDS A PRIVATE KEY, which belongs in a safe and not on this host")
	errExposed = errors.New("can be written by others than its owner, who could put their own key there")
)

// parse reads the keys in the file. It zeroes text, which may hold what it should
// not.
func parse(path string, text []byte) (kek.Hybrid, error) {
	defer clear(text)
	if strings.Contains(string(text), "PRIVATE KEY-----") { // in a block that is damaged, too
		return kek.Hybrid{}, fmt.Errorf("%w: %s %w: move it there, overwrite it here, and put its public half in its place: openssl pkey -in PRIVATE.pem -pubout -out %s; if anyone could have read it, make a new key", kek.ErrUnsuitable, path, errPrivate, path)
	}
	var pub kek.Hybrid
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if mlkem, err := kek.ParseMLKEM768(block.Bytes); err == nil && block.Type == "PUBLIC KEY" {
			if pub.RSA == nil || pub.MLKEM != nil {
				return kek.Hybrid{}, fmt.Errorf("%w: %s: an ML-KEM-768 key comes once, after the RSA key", kek.ErrUnsuitable, path)
			}
			pub.MLKEM = mlkem
			continue
		}
		key, err := parseBlock(block)
		if err != nil {
			return kek.Hybrid{}, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, path, err)
		}
		if pub.RSA != nil {
			return kek.Hybrid{}, fmt.Errorf("%w: %s holds more than one key: leave the one whose private half you keep", kek.ErrUnsuitable, path)
		}
		pub.RSA = key
	}
	if pub.RSA == nil {
		return kek.Hybrid{}, fmt.Errorf("%w: %s holds no PEM block: want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", kek.ErrUnsuitable, path)
	}
	return pub, nil
}

func parseBlock(block *pem.Block) (*rsa.PublicKey, error) {
	var parsed any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		parsed, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			parsed = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("it holds a %q: want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", block.Type, err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("its key is not RSA: an escrow key is RSA, and ML-KEM-768 beside it at most")
	}
	return key, nil
}
