package dir

import "os"

// link gives the file its name and takes the one in .tmp away, unless the name
// is taken. A crash in the middle leaves the object under both; the next Open
// removes the one in .tmp.
func link(f *os.File, path string) error {
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	_ = os.Remove(f.Name())
	return nil
}
