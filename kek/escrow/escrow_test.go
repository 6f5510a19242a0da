package escrow_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os/exec"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/escrow"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/software"
)

// safe makes a key pair: the path of the private half, which is in a safe, and the
// text of the public one.
func safe(t *testing.T, opts software.CreateOptions) (path, public string) {
	t.Helper()
	path = t.TempDir() + "/escrow-private.pem"
	if err := software.Create(t.Context(), "file://"+path, opts); err != nil {
		t.Fatal(err)
	}
	key, err := software.Open(t.Context(), "safe", "file://"+path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	return path, string(text)
}

// TestRescue: what the public half wraps in an agent, the private half opens on a
// bare machine, found by its fingerprint.
func TestRescue(t *testing.T) {
	for name, test := range map[string]struct {
		opts software.CreateOptions
		want kek.Algorithm
	}{
		"RSA":    {software.CreateOptions{Bits: 2048}, kek.OAEPSHA256},
		"hybrid": {software.CreateOptions{Bits: 2048, Hybrid: true}, kek.HybridMLKEM768},
	} {
		t.Run(name, func(t *testing.T) {
			private, public := safe(t, test.opts)
			path := t.TempDir() + "/escrow key.pem"
			kektest.WriteFile(t, path, public, 0o644)
			var wrapper kek.Wrapper = open(t, path)
			ref := wrapper.Ref()
			if ref.Name != "safe" || ref.Provider != kek.Escrow || ref.URI != "escrow:escrow%20key.pem" || ref.Bits != 2048 || ref.Algorithm != test.want {
				t.Errorf("Ref is %+v", ref)
			}
			w, err := wrapper.Wrap([]byte("secret"))
			if err != nil {
				t.Fatal(err)
			}
			if w.Provider != kek.Escrow || w.URI != ref.URI || w.Fingerprint != ref.Fingerprint || w.Algorithm != ref.Algorithm {
				t.Errorf("the wrapping says %+v, its key %+v", w, ref)
			}
			key, err := software.Open(t.Context(), "rescue", "file://"+private)
			if err != nil {
				t.Fatal(err)
			}
			secret, _, err := kek.NewRing(key).Unwrap(t.Context(), []kek.Wrapped{w})
			if err != nil || string(secret) != "secret" {
				t.Errorf("Unwrap = %q, %v", secret, err)
			}
			for _, size := range []int{0, kek.MaxSecret + 1} {
				if _, err := wrapper.Wrap(make([]byte, size)); err == nil {
					t.Errorf("Wrap took %d bytes", size)
				}
			}
		})
	}
}

// TestOpenSSL does what the package comment says.
func TestOpenSSL(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("openssl's salts are too short for FIPS 140")
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		testkit.Missing(t, "openssl", "apt-get install openssl")
	}
	dir := t.TempDir()
	kektest.WriteFile(t, dir+"/pass", "a long passphrase of a test", 0o600)
	for _, args := range [][]string{
		{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-aes-256-cbc", "-pass", "file:" + dir + "/pass", "-out", dir + "/private.pem"},
		{"pkey", "-in", dir + "/private.pem", "-passin", "file:" + dir + "/pass", "-pubout", "-out", dir + "/escrow.pem"},
	} {
		if out, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	w, err := open(t, dir+"/escrow.pem").Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := software.Open(t.Context(), "rescue", "file://"+dir+"/private.pem?passphrase-source=file:"+dir+"/pass")
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := key.Unwrap(t.Context(), w); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap = %q, %v", secret, err)
	}
}

// TestForms reads one key in every form that it may have.
func TestForms(t *testing.T) {
	private, public := safe(t, software.CreateOptions{Bits: 2048})
	priv := kektest.PrivateKey(t, private)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "escrow"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	want, err := kek.FingerprintOf(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"PUBLIC KEY":     public,
		"RSA PUBLIC KEY": kektest.PEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&priv.PublicKey)),
		"CERTIFICATE":    "some text before it\n" + kektest.PEM("CERTIFICATE", cert), // its dates are long past
	} {
		path := t.TempDir() + "/escrow.pem"
		kektest.WriteFile(t, path, text, 0o644)
		if got := open(t, path).Ref().Fingerprint; got != want {
			t.Errorf("%s: fingerprint is %v, want %v", name, got, want)
		}
	}
}

func TestRefuses(t *testing.T) {
	private, public := safe(t, software.CreateOptions{Bits: 2048})
	_, other := safe(t, software.CreateOptions{Bits: 2048})
	_, hybrid := safe(t, software.CreateOptions{Bits: 2048, Hybrid: true})
	mlkemBlock := strings.SplitAfter(hybrid, "-----END PUBLIC KEY-----\n")[1]
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small.N = new(big.Int).Rsh(small.N, 1024)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, test := range []struct {
		text  string
		mode  fs.FileMode
		want  error
		says  string
		stage string // verdicts of Check
	}{
		{kektest.ReadFile(t, private), 0o600, kek.ErrUnsuitable, "HOLDS A PRIVATE KEY", "ppfss"},
		{public + kektest.ReadFile(t, private), 0o644, kek.ErrUnsuitable, "belongs in a safe", "ppfss"},
		{"-----BEGIN OPENSSH PRIVATE KEY-----\nx", 0o644, kek.ErrUnsuitable, "HOLDS A PRIVATE KEY", "ppfss"},
		{kektest.PEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(kektest.PrivateKey(t, private))), 0o644, kek.ErrUnsuitable, "-pubout", "ppfss"},
		{public, 0o664, kek.ErrUnsuitable, "chmod 644", "ppfss"},
		{public, 0o646, kek.ErrUnsuitable, "their own key", "ppfss"},
		{public + other, 0o644, kek.ErrUnsuitable, "more than one key", "pppfs"},
		{mlkemBlock, 0o644, kek.ErrUnsuitable, "after the RSA key", "pppfs"},
		{hybrid + mlkemBlock, 0o644, kek.ErrUnsuitable, "comes once", "pppfs"},
		{public + kektest.PEM("PUBLIC KEY", []byte("broken")), 0o644, kek.ErrUnsuitable, "PUBLIC KEY", "pppfs"},
		{kektest.PEM("PUBLIC KEY", spki(t, &ec.PublicKey)), 0o644, kek.ErrUnsuitable, "not RSA", "pppfs"},
		{kektest.PEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&small.PublicKey)), 0o644, kek.ErrUnsuitable, "1024-bit", "pppfs"},
		{kektest.PEM("CERTIFICATE REQUEST", []byte("x")), 0o644, kek.ErrUnsuitable, "CERTIFICATE REQUEST", "pppfs"},
		{"no PEM", 0o644, kek.ErrUnsuitable, "no PEM block", "pppfs"},
		{strings.Repeat("x", 1<<20), 0o644, kek.ErrUnsuitable, "larger than", "pppfs"},
	} {
		path := fmt.Sprintf("%s/%d.pem", dir, i)
		kektest.WriteFile(t, path, test.text, test.mode)
		_, err := escrow.Open(t.Context(), "safe", path)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%d: Open = %v; want %v and %q", i, err, test.want, test.says)
		}
		if got := kektest.Verdicts(t, escrow.Check(t.Context(), path)); got != test.stage {
			t.Errorf("%d: Check = %s, want %s", i, got, test.stage)
		}
	}
	for path, want := range map[string]error{dir + "/none.pem": kek.ErrMissing, dir: kek.ErrUnsuitable} {
		if _, err := escrow.Open(t.Context(), "safe", path); !errors.Is(err, want) {
			t.Errorf("Open(%s) = %v, want %v", path, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	_, public := safe(t, software.CreateOptions{Bits: 2048, Hybrid: true})
	path := t.TempDir() + "/escrow.pem"
	kektest.WriteFile(t, path, public, 0o644)
	steps := escrow.Check(t.Context(), path)
	if got := kektest.Verdicts(t, steps); got != "ppppw" {
		t.Errorf("Check = %s: %+v", got, steps)
	}
	if fingerprint := open(t, path).Ref().Fingerprint.String(); !strings.Contains(steps[3].Says, fingerprint) {
		t.Errorf("the key step does not name the fingerprint, to compare with the safe: %s", steps[3].Says)
	}
	if got := kektest.Verdicts(t, escrow.Check(t.Context(), path+".none")); got != "fssss" {
		t.Errorf("Check without the file = %s", got)
	}
}

// FuzzOpen: no file makes it panic, and what opens wraps.
func FuzzOpen(f *testing.F) {
	key, err := mlkem.GenerateKey768()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte(kektest.PEM("PUBLIC KEY", kek.MarshalMLKEM768(key.EncapsulationKey()))))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := t.TempDir() + "/escrow.pem"
		kektest.WriteFile(t, path, string(text), 0o644)
		k, err := escrow.Open(t.Context(), "safe", path)
		if err != nil {
			return
		}
		if _, err := k.Wrap([]byte("secret")); err != nil {
			t.Errorf("a key that opens does not wrap: %v", err)
		}
	})
}

func open(t *testing.T, path string) *escrow.Key {
	t.Helper()
	key, err := escrow.Open(t.Context(), "safe", path)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func spki(t *testing.T, pub any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
