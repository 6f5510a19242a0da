//go:build !linux

package dir

import (
	"errors"
	"fmt"
	"os"

	"github.com/cofferbackup/coffer/store"
)

// Only Linux has an immutable attribute that this package knows of.

func seal(*os.File) {}

func unseal(*os.File) {}

func protect(_ *os.File, r store.Retention) error {
	if r.Until.IsZero() {
		return nil
	}
	return fmt.Errorf("%w: a folder on this system cannot keep an object from being deleted; use a bucket with object lock", errors.ErrUnsupported)
}

func mark(f *os.File, r store.Retention) error { return protect(f, r) }

func keptOf(*os.File) (store.Retention, error) { return store.Retention{}, nil }

func keptAt(string) (store.Retention, error) { return store.Retention{}, nil }

func freeze(*os.File) error { return nil }

func thaw(*os.File) error { return nil }

func frozen(_ string, err error) error { return err }

func openLocked(path string) (*os.File, error) { return os.Open(path) }

func linked(*os.File) bool { return true }

func thawStale(*os.File) {}
