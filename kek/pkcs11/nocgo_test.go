//go:build !(cgo && linux)

package pkcs11_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/pkcs11"
)

// TestLeftOut: a build without PKCS#11 says so.
func TestLeftOut(t *testing.T) {
	pool := pkcs11.NewPool(pkcs11.Config{})
	_, err1 := pool.Versions(t.Context(), "main", "pkcs11:token=a;object=b"+query)
	_, err2 := pool.Create(t.Context(), "pkcs11:token=a;object=b"+query, 0)
	for _, err := range []error{err1, err2} {
		if !errors.Is(err, kek.ErrUnsuitable) || !strings.Contains(err.Error(), "no PKCS#11") {
			t.Errorf("error is %v", err)
		}
	}
	if steps := pool.Check(t.Context(), "pkcs11:token=a;object=b"+query); len(steps) != 5 || steps[0].Verdict != kek.Failed || !strings.Contains(steps[0].Says, "no PKCS#11") {
		t.Errorf("Check = %+v", steps)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}
