// Package durable keeps small files of the agent's own state: written whole or
// not at all, and held by one process at a time.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrLocked: another process holds the lock.
var ErrLocked = errors.New("held by another process")

// WriteFile replaces the file at path with data, mode 0600. After a crash at any
// moment the file has either its old content or the new.
func WriteFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	// A crash here leaves a file with a name that nobody reads.
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// Lock takes the lock file at path for this process, until Close or the end of
// the process. ErrLocked if another process has it.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}
