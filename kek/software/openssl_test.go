package software_test

import (
	"crypto/fips140"
	"os/exec"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/software"
)

// TestOpenSSLReads proves that the owner of a key needs nothing of ours to use it.
func TestOpenSSLReads(t *testing.T) {
	dir := t.TempDir()
	kektest.WriteFile(t, dir+"/pass", passphrase, 0o600)
	for _, query := range []string{"", "?passphrase-source=file:" + dir + "/pass"} {
		path := dir + "/made" + query[:min(len(query), 1)] + ".pem"
		key := create(t, "file://"+strings.ReplaceAll(path, "?", "%3F")+query, 2048)
		w, err := key.Wrap([]byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		kektest.WriteFile(t, dir+"/wrapped", string(w.Ciphertext), 0o600)
		out := openssl(t, "pkeyutl", "-decrypt", "-inkey", path, "-passin", "file:"+dir+"/pass", "-in", dir+"/wrapped",
			"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
		if out != "secret" {
			t.Errorf("openssl opens the wrapping to %q", out)
		}
	}
}

// TestReadsOpenSSL opens what openssl pkcs8 makes, as far as it is strong enough.
func TestReadsOpenSSL(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("openssl's salts are too short for FIPS 140")
	}
	dir := t.TempDir()
	kektest.WriteFile(t, dir+"/pass", passphrase, 0o600)
	create(t, "file://"+dir+"/key.pem", 2048)
	for _, test := range []struct {
		name, args string
		says       string // "": it opens
	}{
		{"default", "-topk8", ""},
		{"aes128", "-topk8 -v2 aes128", ""},
		{"aes256sha1", "-topk8 -v2 aes-256-cbc -v2prf hmacWithSHA1", ""},
		{"many", "-topk8 -v2 aes-256-cbc -iter 50000", ""},
		{"sha512", "-topk8 -v2prf hmacWithSHA512", "hmacWithSHA256"},
		{"des3", "-topk8 -v2 des3", "aes-256-cbc"},
		{"scrypt", "-topk8 -scrypt", "PBKDF2"},
		{"v1", "-topk8 -v1 PBE-SHA1-3DES", "PBES2"},
	} {
		path := dir + "/" + test.name + ".pem"
		args := append([]string{"pkcs8", "-in", dir + "/key.pem", "-out", path, "-passout", "file:" + dir + "/pass"}, strings.Fields(test.args)...)
		openssl(t, args...)
		key, err := software.Open(t.Context(), "main", "file://"+path+"?passphrase-source=file:"+dir+"/pass")
		if test.says == "" {
			if err == nil {
				err = key.Check(t.Context())
			}
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), kek.ErrUnsuitable.Error()) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: Open = %v, want it to say %s", test.name, err, test.says)
		}
	}
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		testkit.Missing(t, "openssl", "apt-get install openssl")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}
