// Package durable keeps small files of the agent's own state: written whole or
// not at all, told apart from what a bad disk made of them, and held by one process
// at a time.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrLocked: another process holds the lock.
var ErrLocked = errors.New("held by another process")

// Errors of a host's own state, whatever it is kept with.
var (
	// ErrState: what is kept on the host's own disk could not be read or written. A Fault
	// is it.
	ErrState = errors.New("state of the host")
	// ErrDamaged: a file does not hold what was written to it.
	ErrDamaged = errors.New("damaged")
)

// Fault is an error of a file of the host's own state. Its text is that of Err.
type Fault struct {
	Path string
	Err  error
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns Err.
func (f *Fault) Unwrap() error { return f.Err }

// Is tells that it is ErrState.
func (f *Fault) Is(target error) bool { return target == ErrState }

// AsideSuffix ends the names of files that were set aside.
const AsideSuffix = ".damaged"

// SetAside renames a damaged file, so that another can take its place and somebody can
// look at it. The one that was set aside before it goes.
func SetAside(path string) error {
	if err := os.Rename(path, path+AsideSuffix); err != nil {
		return &Fault{path, fmt.Errorf("set aside: %w", err)}
	}
	// A crash here leaves either name, and who finds the first does it again.
	if err := syncDir(filepath.Dir(path)); err != nil {
		return &Fault{path, fmt.Errorf("set aside %s: %w", path, err)}
	}
	return nil
}

// WriteFile replaces the file at path with data, mode 0600. After a crash at any
// moment the file has either its old content or the new. An error is a Fault.
func WriteFile(path string, data []byte) error {
	if err := writeFile(path, data); err != nil {
		return &Fault{path, err}
	}
	return nil
}

func writeFile(path string, data []byte) (err error) {
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

// spareSuffix ends the name of the file that Update writes to next.
const spareSuffix = ".spare"

// Update is WriteFile that keeps the room of the old file, in a spare one beside it, for
// the next time: once it was done, it is done on a full disk too, where the system can
// exchange two files and the file system writes in place.
func Update(path string, data []byte) error {
	spare := path + spareSuffix
	err := overwrite(spare, data)
	if err == nil {
		// A crash here leaves the old file, and a spare that nobody reads.
		err = exchange(spare, path)
	}
	if err == nil {
		if err = syncDir(filepath.Dir(path)); err != nil {
			return &Fault{path, err}
		}
		return nil
	}
	if err := WriteFile(path, data); err != nil {
		return err
	}
	// The next one is written like this one if there is no room for a spare now.
	_ = writeFile(spare, data)
	return nil
}

// overwrite writes to a file that is there, and gives back none of its room before.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Reserve sees that the next size bytes from off on can be written to a file though the
// disk fills up, as far as its file system can promise that. The size of the file stays.
// errors.ErrUnsupported where it cannot be asked for.
func Reserve(f *os.File, off, size int64) error { return reserve(f, off, size) }

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
