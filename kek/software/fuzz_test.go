package software_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/software"
)

// FuzzOpen: a file that opens is a key that works; nothing panics.
func FuzzOpen(f *testing.F) {
	f.Setenv("COFFER_TEST_PASSPHRASE", passphrase)
	for _, name := range []string{"encrypted.pem", "1024.pem"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		block, _ := pem.Decode(text)
		f.Add(block.Type, block.Bytes)
	}
	f.Fuzz(func(t *testing.T, kind string, der []byte) {
		if iterations(der) > 2000 {
			t.Skip("slow, by intent")
		}
		path := filepath.Join(t.TempDir(), "kek.pem")
		kektest.WriteFile(t, path, kektest.PEM(kind, der), 0o600)
		key, err := software.Open(t.Context(), "main", "file://"+path+"?passphrase-source=env:COFFER_TEST_PASSPHRASE")
		if err != nil {
			return
		}
		if err := key.Check(t.Context()); err != nil {
			t.Errorf("a key that opens does not work: %v", err)
		}
	})
}

// FuzzSecond: whatever follows the RSA key, the key works or is refused.
func FuzzSecond(f *testing.F) {
	text, err := os.ReadFile("testdata/hybrid.pem")
	if err != nil {
		f.Fatal(err)
	}
	first, rest := pem.Decode(text)
	second, _ := pem.Decode(rest)
	f.Add(second.Type, second.Bytes)
	f.Add("CERTIFICATE", []byte("x"))
	f.Fuzz(func(t *testing.T, kind string, der []byte) {
		path := filepath.Join(t.TempDir(), "kek.pem")
		kektest.WriteFile(t, path, kektest.PEM(first.Type, first.Bytes)+kektest.PEM(kind, der), 0o600)
		key, err := software.Open(t.Context(), "main", "file://"+path)
		if err != nil {
			return
		}
		if err := key.Check(t.Context()); err != nil {
			t.Errorf("a key that opens does not work: %v", err)
		}
	})
}

// iterations returns those of PBKDF2 in an encrypted key, 0 if it is not one.
func iterations(der []byte) int {
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	var scheme struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	var kdf struct {
		Salt       []byte
		Iterations int
		Rest       asn1.RawValue `asn1:"optional"`
		More       asn1.RawValue `asn1:"optional"`
	}
	_, err1 := asn1.Unmarshal(der, &key)
	_, err2 := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &scheme)
	_, err3 := asn1.Unmarshal(scheme.KDF.Parameters.FullBytes, &kdf)
	if err1 != nil || err2 != nil || err3 != nil {
		return 0
	}
	return kdf.Iterations
}
