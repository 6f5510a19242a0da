package keyvault_test

import (
	"crypto/rsa"
	"fmt"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// TestConformance runs the suite through the real client of Azure.
func TestConformance(t *testing.T) {
	for _, hsm := range []bool{false, true} {
		for _, bits := range []int{2048, 3072} {
			for _, kind := range []keyvault.Kind{keyvault.Secret, keyvault.Certificate} {
				service := "KeyVault"
				if hsm {
					service = "ManagedHSM"
				}
				t.Run(fmt.Sprintf("%s/%d/%s", service, bits, kind), func(t *testing.T) { conform(t, hsm, bits, kind) })
			}
		}
	}
}

func conform(t *testing.T, hsm bool, bits int, kind keyvault.Kind) {
	b := newBench(t, kvtest.Options{ManagedHSM: hsm})
	if kind == keyvault.Certificate {
		b.useCertificate(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	}
	b.server.CreateKey(vaultName, "kek", kvtest.KeyOptions{Bits: bits})
	b.server.CreateKey(vaultName, "other", kvtest.KeyOptions{Bits: bits})
	private, ok := b.server.Material(vaultName, "kek", "").(*rsa.PrivateKey)
	if !ok {
		t.Fatal("the key is not RSA")
	}
	kektest.Run(t, func(t *testing.T) kektest.Provider {
		return kektest.Provider{
			Key: b.open(t, b.server.KeyURI(vaultName, "kek", ""))[0], Other: b.open(t, b.server.KeyURI(vaultName, "other", ""))[0],
			Provider: kek.KeyVault, Algorithm: kek.OAEPSHA256,
			Secrets: []string{password, private.D.String(), fmt.Sprintf("%x", private.D)},
		}
	})
}
