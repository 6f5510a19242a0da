package dir

import (
	"io/fs"
	"os"
	"path/filepath"
)

// OpenLinking opens the store as on a file system that cannot rename without
// replacing.
func OpenLinking(root string) (*Store, error) {
	s, err := Open(root)
	if err == nil {
		s.place = link
	}
	return s, err
}

// ThawAll lets go of everything below root, so that it can be removed.
func ThawAll(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return thaw(f)
	})
}
