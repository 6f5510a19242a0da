package software_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/software"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	create(t, "file://"+dir+"/kek.pem", 2048)
	good := kektest.ReadFile(t, dir+"/kek.pem")
	createHybrid(t, "file://"+dir+"/hybrid.pem")
	kektest.WriteFile(t, dir+"/pass", passphrase, 0o600)
	kektest.WriteFile(t, dir+"/wrong", "not the passphrase at all", 0o600)
	kektest.WriteFile(t, dir+"/encrypted.pem", encryptedKey(t), 0o600)
	kektest.WriteFile(t, dir+"/group.pem", good, 0o640)
	kektest.WriteFile(t, dir+"/garbage.pem", "not a key", 0o600)
	kektest.WriteFile(t, dir+"/ec.pem", ecKey(t), 0o600)
	kektest.WriteFile(t, dir+"/small.pem", kektest.ReadFile(t, "testdata/1024.pem"), 0o600)
	for _, test := range []struct{ name, want, says string }{
		{"/kek.pem", "ppwpp", "a software key: whoever reads this file opens every backup"},
		{"/kek.pem", "ppwpp", "RSA, 2048 bits, exponent 65537"},
		{"/kek.pem", "ppwpp", "with RSA-OAEP-256"},
		{"/hybrid.pem", "ppwpp", "with RSA-OAEP-256+ML-KEM-768"},
		{"/encrypted.pem?passphrase-source=file:" + dir + "/pass", "ppwpp", "and its passphrase"},
		{"/encrypted.pem?passphrase-source=file:" + dir + "/wrong", "fssss", "right passphrase"},
		{"/kek.pem?passphrase-source=file:" + dir + "/pass", "ppwpp", "it is not encrypted"},
		{"/encrypted.pem", "fssss", "passphrase-source="},
		{"/none.pem", "fssss", "put the file back"},
		{"/group.pem", "fssss", "chmod 600"},
		{"/garbage.pem", "pfsss", "not PEM"},
		{"/ec.pem", "pfsss", "not RSA"},
		{"/small.pem", "ppwfs", "1024-bit RSA"},
		{"/kek.pem?mode=1", "fssss", "correct the key's uri"},
	} {
		steps := software.Check(t.Context(), "file://"+dir+test.name)
		if got := kektest.Verdicts(t, steps); got != test.want {
			t.Errorf("Check of %s = %s, want %s: %+v", test.name, got, test.want, steps)
		}
		if text := fmt.Sprint(steps); !strings.Contains(text, test.says) {
			t.Errorf("Check of %s does not say %q: %s", test.name, test.says, text)
		} else if strings.Contains(text, passphrase) || strings.Contains(text, kek.ErrUnsuitable.Error()) {
			t.Errorf("Check of %s says too much: %s", test.name, text)
		}
	}
}

func TestCheckCancelled(t *testing.T) {
	path := t.TempDir() + "/kek.pem"
	create(t, "file://"+path, 2048)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := kektest.Verdicts(t, software.Check(ctx, "file://"+path)); got != "fssss" {
		t.Errorf("Check after cancel = %s", got)
	}
}

func TestInspect(t *testing.T) {
	path := t.TempDir() + "/kek.pem"
	var key kek.Inspector = create(t, "file://"+path, 2048)
	facts, err := key.Inspect(t.Context())
	if err != nil || facts.Hardware != kek.No || facts.MayUnwrap != kek.Yes || facts.PurgeProtection != kek.No || !facts.Created.IsZero() {
		t.Errorf("Inspect = %+v, %v", facts, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := key.Inspect(t.Context()); err == nil {
		t.Error("Inspect knows facts of a key that is gone")
	}
}
