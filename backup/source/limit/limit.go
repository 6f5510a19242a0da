// Package limit holds back what is read from a source: the content of its files.
package limit

import (
	"context"

	"github.com/cofferbackup/coffer/backup/source"
)

// Pace returns when n bytes may go, or ctx has ended.
type Pace func(ctx context.Context, n int) error

// piece is how much is read at once, so that a slow source is read evenly.
const piece = 64 << 10

// New returns the source with a limit, which it may share with others.
func New(inner source.Source, pace Pace) source.Source { return limited{inner, pace} }

type limited struct {
	source.Source
	pace Pace
}

// Open implements source.Source.
func (s limited) Open(ctx context.Context, report func(source.Skip)) (source.Session, error) {
	inner, err := s.Source.Open(ctx, report)
	if err != nil {
		return nil, err
	}
	return &session{Session: inner, pace: func(n int) error { return s.pace(ctx, n) }}, nil
}

type session struct {
	source.Session
	pace func(n int) error
}

// Root implements source.Session.
func (s *session) Root() source.Dir { return wrap(s.Session.Root(), s.pace) }

// dir is a directory with a limit.
type dir struct {
	inner
	pace func(n int) error
}

// inner is embedded under a name that is not that of a method.
type inner = source.Dir

// partial is a dir that can say whether it is whole.
type partial struct {
	dir
	partial func() bool
}

// Partial implements source.Partial.
func (d partial) Partial() bool { return d.partial() }

// wrap keeps what the directory can do.
func wrap(d source.Dir, pace func(n int) error) source.Dir {
	if p, ok := d.(source.Partial); ok {
		return partial{dir{d, pace}, p.Partial}
	}
	return dir{d, pace}
}

// Dir implements source.Dir.
func (d dir) Dir(ctx context.Context, name string) (source.Dir, error) {
	child, err := d.inner.Dir(ctx, name)
	if err != nil {
		return nil, err
	}
	return wrap(child, d.pace), nil
}

// Open implements source.Dir.
func (d dir) Open(ctx context.Context, name string) (source.File, error) {
	f, err := d.inner.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &file{File: f, pace: d.pace}, nil
}

type file struct {
	source.File
	pace func(n int) error
}

// Read implements source.File.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.File.Read(p[:min(len(p), piece)])
	if n > 0 {
		if perr := f.pace(n); perr != nil {
			return n, perr
		}
	}
	return n, err
}
