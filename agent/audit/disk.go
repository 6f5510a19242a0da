package audit

import (
	"io"
	"os"

	"github.com/cofferbackup/coffer/internal/durable"
)

// disk is all that a log changes in its folder.
type disk interface {
	// Replace writes a whole file, as durable.WriteFile does.
	Replace(path string, data []byte) error
	// Update does the same, and on a full disk too (durable.Update).
	Update(path string, data []byte) error
	// Open opens a file to write to it.
	Open(path string) (file, error)
	// Seal makes a file read-only.
	Seal(path string) error
}

// file is a file of the log. It is written at its end only.
type file interface {
	io.WriterAt
	Truncate(size int64) error
	// Reserve keeps room for bytes that are not written yet (durable.Reserve).
	Reserve(off, size int64) error
	Sync() error
	Close() error
}

type osDisk struct{}

func (osDisk) Replace(path string, data []byte) error { return durable.WriteFile(path, data) }
func (osDisk) Update(path string, data []byte) error  { return durable.Update(path, data) }
func (osDisk) Seal(path string) error                 { return os.Chmod(path, 0o400) }

func (osDisk) Open(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

func (f osFile) Reserve(off, size int64) error { return durable.Reserve(f.File, off, size) }
