//go:build !linux

package dir

import (
	"errors"
	"os"
)

// place gives the file its name instead of the one in .tmp, unless that is taken.
func place(f *os.File, path string) error {
	// Windows links no file that is open for writing.
	if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return link(f, path)
}
