package software_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/software"
)

func TestConformanceHybrid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	createHybrid(t, "file://"+path)
	createHybrid(t, "file://"+path+".other")
	kektest.Run(t, func(t *testing.T) kektest.Provider {
		return kektest.Provider{
			Key: open(t, "file://"+path), Other: open(t, "file://"+path+".other"),
			Provider: kek.Software, Algorithm: kek.HybridMLKEM768,
			Secrets: append(numbers(t, path), hex.EncodeToString(seed(t, path))),
		}
	})
}

// TestHybridEncrypted: both blocks are under the passphrase.
func TestHybridEncrypted(t *testing.T) {
	dir := t.TempDir()
	kektest.WriteFile(t, dir+"/pass", passphrase+"\n", 0o600)
	uri := "file://" + dir + "/kek.pem?passphrase-source=file:" + dir + "/pass"
	key := createHybrid(t, uri)
	if err := key.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	text := kektest.ReadFile(t, dir+"/kek.pem")
	if n := strings.Count(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----"); n != 2 || strings.Contains(text, "BEGIN PRIVATE") {
		t.Errorf("%d blocks are encrypted:\n%s", n, text)
	}
	kektest.WriteFile(t, dir+"/pass", "not the passphrase at all", 0o600)
	if err := key.Check(t.Context()); !errors.Is(err, kek.ErrDenied) {
		t.Errorf("Check with a wrong passphrase = %v, want %v", err, kek.ErrDenied)
	}
}

// TestHybridFingerprint computes it with openssl's words: SHA-256 of both public
// keys in DER, RSA first.
func TestHybridFingerprint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	key := createHybrid(t, "file://"+path)
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	first, rest := pem.Decode(public)
	second, rest := pem.Decode(rest)
	if first == nil || second == nil || len(rest) > 0 {
		t.Fatalf("Public is not two blocks:\n%s", public)
	}
	if got, want := key.Ref().Fingerprint, sha256.Sum256(append(first.Bytes, second.Bytes...)); got != want {
		t.Errorf("fingerprint is %v, want %x", got, want)
	}
	if alone, err := kek.FingerprintOf(&kektest.PrivateKey(t, path).PublicKey); err != nil || alone == key.Ref().Fingerprint {
		t.Errorf("the RSA half alone has the same fingerprint, %v", err)
	}
}

// TestHybridAndItsHalf: a hybrid key and the same RSA key alone are two keys, and
// neither opens what the other wrapped.
func TestHybridAndItsHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	both := createHybrid(t, "file://"+path)
	block, _ := pem.Decode([]byte(kektest.ReadFile(t, path)))
	kektest.WriteFile(t, path+".half", kektest.PEM(block.Type, block.Bytes), 0o600)
	half := open(t, "file://"+path+".half")
	if half.Ref().Algorithm != kek.OAEPSHA256 || half.Ref().Fingerprint == both.Ref().Fingerprint {
		t.Errorf("the half is %+v, the whole %+v", half.Ref(), both.Ref())
	}
	for _, pair := range [][2]*software.Key{{both, half}, {half, both}} {
		w, err := pair[0].Wrap([]byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair[1].Unwrap(t.Context(), w); !errors.Is(err, kek.ErrWrongKey) {
			t.Errorf("Unwrap by the other = %v, want %v", err, kek.ErrWrongKey)
		}
	}
	kektest.WriteFile(t, path, kektest.ReadFile(t, path+".half"), 0o600) // the ML-KEM block is lost
	if err := both.Check(t.Context()); !errors.Is(err, kek.ErrMissing) {
		t.Errorf("Check without the ML-KEM block = %v, want %v", err, kek.ErrMissing)
	}
}

// TestHybridNeedsBoth: who has one private half and the public ones opens nothing.
func TestHybridNeedsBoth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	createHybrid(t, "file://"+path)
	createHybrid(t, "file://"+path+".thief")
	blocks, thiefs := strings.SplitAfter(kektest.ReadFile(t, path), "-----END PRIVATE KEY-----\n"), strings.SplitAfter(kektest.ReadFile(t, path+".thief"), "-----END PRIVATE KEY-----\n")
	w, err := open(t, "file://"+path).Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"RSA": blocks[0] + thiefs[1], "ML-KEM": thiefs[0] + blocks[1]} {
		kektest.WriteFile(t, path+".stolen", text, 0o600)
		thief := open(t, "file://"+path+".stolen")
		w.Fingerprint = thief.Ref().Fingerprint
		if secret, err := thief.Unwrap(t.Context(), w); !errors.Is(err, kek.ErrWrongKey) {
			t.Errorf("Unwrap with the %s half alone = %q, %v", name, secret, err)
		}
	}
}

func TestHybridRefuses(t *testing.T) {
	dir := t.TempDir()
	kektest.WriteFile(t, dir+"/pass", passphrase, 0o600)
	createHybrid(t, "file://"+dir+"/kek.pem")
	blocks := strings.SplitAfter(kektest.ReadFile(t, dir+"/kek.pem"), "-----END PRIVATE KEY-----\n")
	rsaBlock, mlkemBlock := blocks[0], blocks[1]
	der := func(text string) []byte { block, _ := pem.Decode([]byte(text)); return block.Bytes }
	spoiled := bytes.Clone(der(mlkemBlock))
	spoiled[20] ^= 1 // the seed's tag
	for name, test := range map[string]struct{ text, says string }{
		"two RSA keys":       {rsaBlock + rsaBlock, "not an ML-KEM-768 key"},
		"an EC key":          {rsaBlock + ecKey(t), "not an ML-KEM-768 key"},
		"three keys":         {rsaBlock + mlkemBlock + mlkemBlock, "third private key"},
		"the wrong order":    {mlkemBlock + rsaBlock, "kek.pem"},
		"ML-KEM alone":       {mlkemBlock, "kek.pem"},
		"a spoiled seed":     {rsaBlock + kektest.PEM("PRIVATE KEY", spoiled), "RFC 9935"},
		"a short seed":       {rsaBlock + kektest.PEM("PRIVATE KEY", der(mlkemBlock)[:80]), "ML-KEM"},
		"a long seed":        {rsaBlock + kektest.PEM("PRIVATE KEY", append(der(mlkemBlock), 0)), "ML-KEM"},
		"half in the clear":  {encryptedKey(t) + mlkemBlock, "both encrypted or neither"},
		"half encrypted":     {rsaBlock + encryptedKey(t), "both encrypted or neither"},
		"PKCS#1 as a second": {rsaBlock + kektest.PEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(kektest.PrivateKey(t, dir+"/kek.pem"))), "both keys must be PKCS#8"},
	} {
		kektest.WriteFile(t, dir+"/kek.pem", test.text, 0o600)
		_, err := software.Open(t.Context(), "main", "file://"+dir+"/kek.pem?passphrase-source=file:"+dir+"/pass")
		if !errors.Is(err, kek.ErrUnsuitable) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("Open of %s = %v, want %v and %q", name, err, kek.ErrUnsuitable, test.says)
		}
	}
	kektest.WriteFile(t, dir+"/kek.pem", rsaBlock+kektest.PEM("CERTIFICATE", []byte("x"))+mlkemBlock, 0o600)
	if key := open(t, "file://"+dir+"/kek.pem"); key.Ref().Algorithm != kek.HybridMLKEM768 {
		t.Errorf("with a certificate in between the key is of %v", key.Ref().Algorithm)
	}
}

// TestReadsRFC9935 opens the example of RFC 9935 (C.1.2), and the form with both
// seed and numbers that OpenSSL 3.5 writes.
func TestReadsRFC9935(t *testing.T) {
	const example = `-----BEGIN PRIVATE KEY-----
MFQCAQAwCwYJYIZIAWUDBAQCBEKAQAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZ
GhscHR4fICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=
-----END PRIVATE KEY-----
`
	dir := t.TempDir()
	create(t, "file://"+dir+"/kek.pem", 2048)
	rsaBlock := kektest.ReadFile(t, dir+"/kek.pem")
	kektest.WriteFile(t, dir+"/kek.pem", rsaBlock+example, 0o600)
	seedForm := open(t, "file://"+dir+"/kek.pem")
	counting := make([]byte, mlkem.SeedSize)
	for i := range counting {
		counting[i] = byte(i)
	}
	want, err := mlkem.NewDecapsulationKey768(counting)
	if err != nil {
		t.Fatal(err)
	}
	public, err := seedForm.Public()
	if err != nil {
		t.Fatal(err)
	}
	_, rest := pem.Decode(public)
	block, _ := pem.Decode(rest)
	if got, err := kek.ParseMLKEM768(block.Bytes); err != nil || !bytes.Equal(got.Bytes(), want.EncapsulationKey().Bytes()) {
		t.Errorf("the public half of the example is another: %v", err)
	}

	both := bothForm(counting, want)
	kektest.WriteFile(t, dir+"/kek.pem", rsaBlock+kektest.PEM("PRIVATE KEY", both), 0o600)
	if key := open(t, "file://"+dir+"/kek.pem"); key.Ref().Fingerprint != seedForm.Ref().Fingerprint {
		t.Error("the form with both seed and numbers is another key")
	} else if err := key.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	both[len(both)-1] ^= 1
	kektest.WriteFile(t, dir+"/kek.pem", rsaBlock+kektest.PEM("PRIVATE KEY", both), 0o600)
	if _, err := software.Open(t.Context(), "main", "file://"+dir+"/kek.pem"); !errors.Is(err, kek.ErrUnsuitable) {
		t.Errorf("Open of a key whose seed and numbers differ = %v, want %v", err, kek.ErrUnsuitable)
	}
}

// TestReadsOpenSSLMLKEM opens what openssl genpkey makes, where it can.
func TestReadsOpenSSLMLKEM(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		testkit.Missing(t, "openssl", "apt-get install openssl")
	}
	dir := t.TempDir()
	if err := exec.Command(path, "genpkey", "-algorithm", "ML-KEM-768", "-out", dir+"/mlkem.pem").Run(); err != nil {
		t.Skip("this openssl is older than 3.5 and knows no ML-KEM")
	}
	create(t, "file://"+dir+"/kek.pem", 2048)
	kektest.WriteFile(t, dir+"/kek.pem", kektest.ReadFile(t, dir+"/kek.pem")+kektest.ReadFile(t, dir+"/mlkem.pem"), 0o600)
	if err := open(t, "file://"+dir+"/kek.pem").Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// bothForm returns a key as RFC 9935, 6 has it with seed and expanded key. The
// numbers in between are never read.
func bothForm(seed []byte, key *mlkem.DecapsulationKey768) []byte {
	expanded := make([]byte, 2400)
	_, _ = rand.Read(expanded)
	copy(expanded[1152:], key.EncapsulationKey().Bytes())
	copy(expanded[2368:], seed[32:])
	der := []byte("\x30\x82\x09\xbe\x02\x01\x00\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x04\x02\x04\x82\x09\xaa\x30\x82\x09\xa6\x04\x40")
	der = append(append(der, seed...), "\x04\x82\x09\x60"...)
	return append(der, expanded...)
}

func createHybrid(t *testing.T, uri string) *software.Key {
	t.Helper()
	if err := software.Create(t.Context(), uri, software.CreateOptions{Bits: 2048, Hybrid: true}); err != nil {
		t.Fatal(err)
	}
	return open(t, uri)
}

// seed returns the seed of a hybrid key.
func seed(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest := pem.Decode(text)
	block, _ := pem.Decode(rest)
	return block.Bytes[len(block.Bytes)-mlkem.SeedSize:]
}

// TestHybridVector opens a wrapping of the first version that made any.
func TestHybridVector(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	kektest.WriteFile(t, path, kektest.ReadFile(t, "testdata/hybrid.pem"), 0o600)
	key := open(t, "file://"+path)
	if got, want := key.Ref().Fingerprint.String(), strings.TrimSpace(kektest.ReadFile(t, "testdata/hybrid.fingerprint")); got != want {
		t.Errorf("fingerprint is %s, want %s", got, want)
	}
	ciphertext, err := hex.DecodeString(strings.ReplaceAll(kektest.ReadFile(t, "testdata/hybrid.wrapped"), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Unwrap(t.Context(), kek.Wrapped{
		Fingerprint: key.Ref().Fingerprint, Algorithm: kek.HybridMLKEM768, Ciphertext: ciphertext,
	})
	if err != nil || string(secret) != "the secret of a test vector" {
		t.Errorf("Unwrap = %q, %v", secret, err)
	}
}

// TestHybridOpensElsewhere opens a wrapping with nothing of ours, as docs/format.md
// describes it.
func TestHybridOpensElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	key := createHybrid(t, "file://"+path)
	w, err := key.Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	dk, err := mlkem.NewDecapsulationKey768(seed(t, path))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.DecryptOAEP(sha256.New(), nil, kektest.PrivateKey(t, path), w.Ciphertext[:256], nil)
	if err != nil || len(r) != 32 {
		t.Fatalf("RSA opens to %d bytes, %v", len(r), err)
	}
	m, err := dk.Decapsulate(w.Ciphertext[256 : 256+1088])
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := key.Ref().Fingerprint
	info := "coffer/1 hybrid RSA-OAEP-256+ML-KEM-768" + string(fingerprint[:]) + string(w.Ciphertext[:256+1088])
	if got := openGCM(t, append(r, m...), info, w.Ciphertext[256+1088:]); got != "secret" {
		t.Errorf("it opens to %q", got)
	}
}

// openGCM opens nonce, ciphertext and tag under the key that HKDF gives.
func openGCM(t *testing.T, input []byte, info string, sealed []byte) string {
	t.Helper()
	key, err := hkdf.Key(sha256.New, input, nil, info, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := aead.Open(nil, nil, sealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(secret)
}
