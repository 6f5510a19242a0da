//go:build !unix

package audit

import (
	"errors"
	"fmt"
)

// Syslog returns errors.ErrUnsupported: this system has no syslog.
func Syslog() (Sink, error) {
	return nil, fmt.Errorf("write to the system's log: %w", errors.ErrUnsupported)
}
