//go:build cgo && linux

package pkcs11_test

import (
	"os"
	"testing"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek/pkcs11"
)

// TestConformanceOwnToken is for owners of an HSM that we have never seen:
//
//	COFFER_TEST_HSM='pkcs11:token=T;object=any?module-path=/lib.so&pin-source=file:/pin' go test -run OwnToken ./kek/pkcs11
//
// It makes two keys on the token, runs the suite on them and deletes them.
func TestConformanceOwnToken(t *testing.T) {
	uri := os.Getenv("COFFER_TEST_HSM")
	if uri == "" {
		t.Skip("COFFER_TEST_HSM names no token of yours")
	}
	u, err := pkcs11.ParseURI(uri)
	must(t, err)
	pin, err := u.PIN.Read()
	must(t, err)
	tok := testkit.Token{Module: u.Module, Label: u.Token, PIN: string(pin), PINFile: t.TempDir() + "/pin"}
	tok.WritePIN(t, tok.PIN)
	t.Cleanup(func() {
		token(t, tok, func(c *crypto11.Context) {
			for _, label := range []string{"kek", "other"} {
				pairs, err := c.FindRSAKeyPairs(nil, []byte(keyPrefix+label))
				must(t, err)
				for _, pair := range pairs {
					must(t, pair.Delete())
				}
			}
		})
	})
	pool, _ := newPool(t)
	create(t, pool, tok.URI(keyPrefix+"kek")) // to learn which hash the token can do
	key := open(t, pool, tok.URI(keyPrefix+"kek"))
	t.Logf("%v with %v", key.Ref().Provider, key.Ref().Algorithm)
	conform(t, tok, key.Ref().Algorithm)
}
