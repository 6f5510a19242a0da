// Package discard is a target that writes nowhere. Verify is a restore to it: all
// is read, opened and checked, and nothing is kept.
package discard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/restore/target"
)

// Target is empty and takes everything.
type Target struct{}

// Open never fails but for ctx.
func (Target) Open(ctx context.Context, _ target.Options) (target.Sink, error) {
	return sink{}, ctx.Err()
}

type sink struct{}

func (sink) Root() target.Dir                 { return dir{} }
func (sink) Finish(ctx context.Context) error { return ctx.Err() }
func (sink) Close() error                     { return nil }

// dir is any directory: nothing is ever in it.
type dir struct{}

func (dir) Look(string) (*tree.Node, error)        { return nil, nil }
func (dir) Names() ([]string, error)               { return nil, nil }
func (dir) Dir(string) (target.Dir, error)         { return dir{}, nil }
func (dir) Create(*tree.Node) (target.File, error) { return file{}, nil }
func (dir) Make(*tree.Node) error                  { return nil }
func (dir) Link(string, target.Dir, string) error  { return nil }
func (dir) SetMeta(*tree.Node) error               { return nil }
func (dir) Remove(string) error                    { return nil }
func (dir) Finish(*tree.Node) error                { return nil }

func (dir) Existing(name string) (target.Existing, error) {
	return nil, fmt.Errorf("open %q: %w", name, fs.ErrNotExist)
}

type file struct{}

func (file) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (file) Commit() error                          { return nil }
func (file) Abort()                                 {}

func (file) Reuse(target.Existing, int64, int64) error { return errors.ErrUnsupported }
