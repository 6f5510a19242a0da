package kektest

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
)

// NewKey makes a key in a file, for tests of what uses keys. Nobody needs to close it.
func NewKey(t testing.TB) kek.Key {
	t.Helper()
	uri := "file://" + filepath.Join(t.TempDir(), "kek.pem")
	if err := software.Create(t.Context(), uri, software.CreateOptions{Bits: 2048}); err != nil {
		t.Fatal(err)
	}
	key, err := software.Open(t.Context(), "test", uri)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// PEM returns one block of PEM.
func PEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// PrivateKey reads the RSA key that is the first in a file.
func PrivateKey(t testing.TB, path string) *rsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode([]byte(ReadFile(t, path)))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.(*rsa.PrivateKey)
}

// ReadFile returns what is in a file.
func ReadFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// WriteFile writes a file that has just this mode, whatever the umask is.
func WriteFile(t testing.TB, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
