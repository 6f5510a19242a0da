//go:build cgo && linux

package pkcs11

import (
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"
	"github.com/thales-e-security/pool"

	"github.com/cofferbackup/coffer/kek"
)

// fault is the answer of a token that did not do what it was asked.
type fault struct {
	class class
	code  uint // CKR_*, 0 if the error is not the token's
	err   error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// faultOf says what err, which a call on c returned, means.
func (c *conn) faultOf(err error) *fault {
	if code, ok := codeOf(err); ok {
		return &fault{class: classify(code), code: code, err: err}
	}
	switch {
	case c.closing.Load():
		return &fault{class: sick, err: err}
	case errors.Is(err, pool.ErrTimeout):
		return &fault{class: busy, err: fmt.Errorf("no session became free: %w", err)}
	}
	return &fault{class: incapable, err: err} // crypto11's own: it makes no sense of what the token says
}

func codeOf(err error) (uint, bool) {
	var code p11.Error
	if !errors.As(err, &code) {
		return 0, false
	}
	return uint(code), true
}

// explain turns a fault into an error of the contract. Others pass.
func (t *token) explain(err error) error {
	var f *fault
	if !errors.As(err, &f) {
		return err
	}
	switch f.class {
	case damaged:
		return fmt.Errorf("%w: %s says it is not its: %w", kek.ErrWrongKey, t, f)
	case incapable:
		return fmt.Errorf("%w: %s cannot do it: %w", kek.ErrUnsuitable, t, f)
	case refused:
		return fmt.Errorf("%w: %s: %w", kek.ErrDenied, t, f)
	}
	return fmt.Errorf("%w: %s: %w", kek.ErrUnreachable, t, f)
}
