package software_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/software"
)

const passphrase = "a long passphrase of a test"

func TestConformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	create(t, "file://"+path, 2048)
	create(t, "file://"+path+".other", 2048)
	kektest.Run(t, func(t *testing.T) kektest.Provider {
		return kektest.Provider{
			Key: open(t, "file://"+path), Other: open(t, "file://"+path+".other"),
			Provider: kek.Software, Algorithm: kek.OAEPSHA256,
			Secrets: numbers(t, path),
		}
	})
}

// TestEncrypted makes a key that has a passphrase, which costs time by intent.
func TestEncrypted(t *testing.T) {
	dir := t.TempDir()
	kektest.WriteFile(t, dir+"/pass", passphrase+"\n", 0o600)
	uri := "file://" + dir + "/kek.pem?passphrase-source=file:" + dir + "/pass"
	if err := create(t, uri, 2048).Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if text := kektest.ReadFile(t, dir+"/kek.pem"); !strings.HasPrefix(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n") {
		t.Errorf("the file begins %.40q", text)
	}
}

// TestPassphraseSources opens an encrypted key in every way that a URI can ask for.
func TestPassphraseSources(t *testing.T) {
	dir := t.TempDir()
	kektest.WriteFile(t, dir+"/pass", passphrase+"\n", 0o600)
	kektest.WriteFile(t, dir+"/kek.pem", encryptedKey(t), 0o600)
	t.Setenv("COFFER_TEST_PASSPHRASE", passphrase)
	for _, source := range []string{"file:" + dir + "/pass", "file://" + dir + "/pass", "env:COFFER_TEST_PASSPHRASE"} {
		key := open(t, "file://"+dir+"/kek.pem?passphrase-source="+source)
		if err := key.Check(t.Context()); err != nil {
			t.Errorf("Check with %s: %v", source, err)
		}
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kek.pem")
	key := create(t, "file://"+path, 0)
	if got := key.Ref().Bits; got != 3072 {
		t.Errorf("a key of the default size has %d bits", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	before := kektest.ReadFile(t, path)
	if err := software.Create(t.Context(), "file://"+path, software.CreateOptions{Bits: 2048}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a key = %v, want %v", err, fs.ErrExist)
	}
	if kektest.ReadFile(t, path) != before {
		t.Error("Create changed a key that was there")
	}
	if names, _ := filepath.Glob(dir + "/.kek-*"); len(names) > 0 {
		t.Errorf("Create left %v", names)
	}
	if err := software.Create(t.Context(), "file://"+path+".small", software.CreateOptions{Bits: 1024}); !errors.Is(err, kek.ErrUnsuitable) {
		t.Errorf("Create of 1024 bits = %v, want %v", err, kek.ErrUnsuitable)
	}
	kektest.WriteFile(t, dir+"/short", "thirteen byte", 0o600)
	err = software.Create(t.Context(), "file://"+path+".short?passphrase-source=file:"+dir+"/short", software.CreateOptions{Bits: 2048})
	if _, stat := os.Stat(path + ".short"); err == nil || stat == nil {
		t.Errorf("Create with a short passphrase = %v, and the file is there: %v", err, stat == nil)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := dir + "/good.pem"
	create(t, "file://"+good, 2048)
	kektest.WriteFile(t, dir+"/pass", passphrase, 0o600)
	kektest.WriteFile(t, dir+"/wrong", "not the passphrase at all", 0o600)
	kektest.WriteFile(t, dir+"/exposed", passphrase, 0o640)
	encrypted := dir + "/encrypted.pem"
	kektest.WriteFile(t, encrypted, encryptedKey(t), 0o600)
	kektest.WriteFile(t, dir+"/group.pem", kektest.ReadFile(t, good), 0o640)
	kektest.WriteFile(t, dir+"/world.pem", kektest.ReadFile(t, good), 0o604)
	kektest.WriteFile(t, dir+"/garbage.pem", "not a key", 0o600)
	kektest.WriteFile(t, dir+"/huge.pem", strings.Repeat("x", 1<<20), 0o600)
	kektest.WriteFile(t, dir+"/pkcs1.pem", kektest.PEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(kektest.PrivateKey(t, good))), 0o600)
	kektest.WriteFile(t, dir+"/broken.pem", kektest.PEM("PRIVATE KEY", []byte("broken")), 0o600)
	kektest.WriteFile(t, dir+"/brokenenc.pem", kektest.PEM("ENCRYPTED PRIVATE KEY", []byte("broken")), 0o600)
	kektest.WriteFile(t, dir+"/cert.pem", kektest.PEM("CERTIFICATE", []byte("x")), 0o600)
	kektest.WriteFile(t, dir+"/ec.pem", ecKey(t), 0o600)
	kektest.WriteFile(t, dir+"/1024.pem", kektest.ReadFile(t, "testdata/1024.pem"), 0o600)
	kektest.WriteFile(t, dir+"/8192.pem", kektest.ReadFile(t, "testdata/8192.pem"), 0o600)

	for _, test := range []struct {
		uri  string
		want error
		says string // the next step
	}{
		{"file://" + dir + "/none.pem", kek.ErrMissing, "none.pem"},
		{"file://" + dir + "/group.pem", kek.ErrUnsuitable, "chmod 600 " + dir + "/group.pem"},
		{"file://" + dir + "/world.pem", kek.ErrUnsuitable, "chmod 600"},
		{"file://" + dir + "/garbage.pem", kek.ErrUnsuitable, "PKCS#8"},
		{"file://" + dir + "/huge.pem", kek.ErrUnreachable, "larger than"},
		{"file://" + dir, kek.ErrUnreachable, "not a regular file"},
		{"file://" + dir + "/pkcs1.pem", kek.ErrUnsuitable, "openssl pkcs8 -topk8"},
		{"file://" + dir + "/broken.pem", kek.ErrUnsuitable, "broken.pem"},
		{"file://" + dir + "/brokenenc.pem", kek.ErrUnsuitable, "brokenenc.pem"},
		{"file://" + dir + "/cert.pem", kek.ErrUnsuitable, "CERTIFICATE"},
		{"file://" + dir + "/ec.pem", kek.ErrUnsuitable, "not RSA"},
		{"file://" + dir + "/1024.pem", kek.ErrUnsuitable, "use 2048, 3072 or 4096 bits"},
		{"file://" + dir + "/8192.pem", kek.ErrUnsuitable, "use 2048, 3072 or 4096 bits"},
		{"file://" + encrypted, kek.ErrDenied, "passphrase-source="},
		{"file://" + encrypted + "?passphrase-source=file:" + dir + "/wrong", kek.ErrDenied, "correct it"},
		{"file://" + encrypted + "?passphrase-source=file:" + dir + "/exposed", kek.ErrDenied, "chmod 600"},
		{"file://" + encrypted + "?passphrase-source=file:" + dir + "/none", kek.ErrDenied, "none"},
		{"file://" + encrypted + "?passphrase-source=env:COFFER_NO_SUCH", kek.ErrDenied, "env:COFFER_NO_SUCH"},
		{"file://" + good + "?passphrase=tiger", kek.ErrUnsuitable, "passphrase-source=file:/path"},
		{"file://" + good + "?passphrase-source=tiger", kek.ErrUnsuitable, "file:/path or env:NAME"},
		{"file://" + good + "?mode=0600", kek.ErrUnsuitable, "mode"},
		{"file://elsewhere" + good, kek.ErrUnsuitable, "file:///path"},
		{"file:kek.pem", kek.ErrUnsuitable, "file:///path"},
		{"kek.pem", kek.ErrUnsuitable, "file:///path"},
	} {
		_, err := software.Open(t.Context(), "main", test.uri)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("Open(%s) = %v; want %v and %q", strings.ReplaceAll(test.uri, dir, ""), err, test.want, test.says)
		} else if strings.Contains(err.Error(), "tiger") || strings.Contains(err.Error(), passphrase) {
			t.Errorf("Open tells a secret: %v", err)
		}
	}
}

// TestTakenAway holds the promise that a key without its file opens nothing.
func TestTakenAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	key := create(t, "file://"+path, 2048)
	w, err := key.Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	away := path + ".away"
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	if _, err := key.Unwrap(t.Context(), w); !errors.Is(err, kek.ErrMissing) {
		t.Errorf("Unwrap without the file = %v, want %v", err, kek.ErrMissing)
	}
	create(t, "file://"+path, 2048)
	if err := key.Check(t.Context()); !errors.Is(err, kek.ErrMissing) {
		t.Errorf("Check with another key in the file = %v, want %v", err, kek.ErrMissing)
	}
	if err := os.Rename(away, path); err != nil {
		t.Fatal(err)
	}
	if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap with the file back = %q, %v", secret, err)
	}
}

// TestOpensSHA1 reads what a token that can do no better has wrapped.
func TestOpensSHA1(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("FIPS 140 forbids SHA-1")
	}
	path := filepath.Join(t.TempDir(), "kek.pem")
	key := create(t, "file://"+path, 2048)
	w, err := key.Wrap([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	w.Algorithm = kek.OAEPSHA1
	w.Ciphertext, err = kek.WrapRSA(&kektest.PrivateKey(t, path).PublicKey, kek.OAEPSHA1, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap = %q, %v", secret, err)
	}
}

func create(t *testing.T, uri string, bits int) *software.Key {
	t.Helper()
	if err := software.Create(t.Context(), uri, software.CreateOptions{Bits: bits}); err != nil {
		t.Fatal(err)
	}
	return open(t, uri)
}

func open(t *testing.T, uri string) *software.Key {
	t.Helper()
	key, err := software.Open(t.Context(), "main", uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { key.Close() })
	return key
}

// numbers returns the private numbers of a key as they might be printed.
func numbers(t *testing.T, path string) []string {
	priv := kektest.PrivateKey(t, path)
	var out []string
	for _, n := range append([]*big.Int{priv.D}, priv.Primes...) {
		out = append(out, n.String(), hex.EncodeToString(n.Bytes()))
	}
	return out
}

// ecKey returns a key that may not be a KEK.
func ecKey(t *testing.T) string {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return kektest.PEM("PRIVATE KEY", der)
}

// encryptedKey returns a key under passphrase, with a salt of 16 bytes and few
// iterations.
func encryptedKey(t *testing.T) string { return kektest.ReadFile(t, "testdata/encrypted.pem") }
