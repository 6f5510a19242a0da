// Package secret reads secrets that a config names and does not hold: a PIN, a
// passphrase. A reference is file:/path or env:NAME. A file must be private to
// its owner, and its owner this user or root.
package secret

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// MaxSize is more than any PIN or passphrase has.
const MaxSize = 4096

// Source is where a secret is. The zero Source is none.
type Source struct {
	kind, name string
}

// Parse reads a reference: file:/path, file:///path or env:NAME. Its errors do not
// repeat the text, which may be the secret itself, put there by mistake.
func Parse(ref string) (Source, error) {
	kind, name, ok := strings.Cut(ref, ":")
	if !ok {
		return Source{}, fmt.Errorf("not a reference to a secret: write file:/path or env:NAME")
	}
	switch kind {
	case "file":
		path := strings.TrimPrefix(name, "//")
		if !filepath.IsAbs(path) {
			return Source{}, fmt.Errorf("the file of a secret needs an absolute path: write file:/path")
		}
		return Source{kind: kind, name: path}, nil
	case "env":
		if name == "" || strings.ContainsAny(name, "= ") {
			return Source{}, fmt.Errorf("not the name of an environment variable: write env:NAME")
		}
		return Source{kind: kind, name: name}, nil
	}
	return Source{}, fmt.Errorf("not a reference to a secret: write file:/path or env:NAME")
}

// IsZero reports whether s names nothing.
func (s Source) IsZero() bool { return s == Source{} }

// String returns the reference, which is not secret.
func (s Source) String() string {
	if s.IsZero() {
		return ""
	}
	return s.kind + ":" + s.name
}

// Read returns the secret as it is now, without the line end that editors add. It
// is never empty. The caller owns and zeroes it.
func (s Source) Read() ([]byte, error) {
	text, err := s.read()
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) == 0 {
		return nil, fmt.Errorf("read secret %s: it is empty", s)
	}
	return text, nil
}

func (s Source) read() ([]byte, error) {
	switch s.kind {
	case "file":
		return ReadPrivate(s.name, MaxSize)
	case "env":
		value, ok := os.LookupEnv(s.name)
		if !ok {
			return nil, fmt.Errorf("read secret %s: %w", s, os.ErrNotExist)
		}
		return []byte(value), nil
	}
	return nil, fmt.Errorf("read secret: no reference is given")
}

// ReadPrivate returns the bytes of a file of at most limit bytes that only its
// owner can touch. A file that others can touch is a *ExposedError.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblocking, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(text)) > limit {
		clear(text)
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, limit)
	}
	return text, nil
}

// ExposedError is a secret's file that others than its owner can touch, or that
// belongs to someone else.
type ExposedError struct {
	Path   string
	Reason string // what is wrong and how to put it right
}

func (e *ExposedError) Error() string { return e.Path + " " + e.Reason }
