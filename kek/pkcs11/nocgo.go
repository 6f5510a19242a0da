//go:build !(cgo && linux)

package pkcs11

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/kek"
)

// Pool opens nothing: this build has no PKCS#11.
type Pool struct{}

// NewPool returns a Pool whose every call says what is missing.
func NewPool(Config) *Pool { return &Pool{} }

func errLeftOut() error {
	return fmt.Errorf("%w: this build has no PKCS#11: use the package for Linux, built with cgo", kek.ErrUnsuitable)
}

// Versions returns kek.ErrUnsuitable.
func (*Pool) Versions(context.Context, string, string) ([]kek.Key, error) { return nil, errLeftOut() }

// Create returns kek.ErrUnsuitable.
func (*Pool) Create(context.Context, string, int) (kek.Ref, error) { return kek.Ref{}, errLeftOut() }

// Check returns steps that failed or were skipped.
func (*Pool) Check(context.Context, string) []kek.Step {
	return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, errLeftOut(), "install the package for Linux")})
}

// Close has nothing to release.
func (*Pool) Close() error { return nil }
