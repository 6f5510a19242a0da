package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/restore/target"
)

// viewer is a directory that can be looked at without being made ready to write.
type viewer interface {
	target.Dir
	view(name string) (viewer, error)
}

// drySink is a session that changes nothing.
type drySink struct {
	real *sink // nil if the target is not there
}

func openDry(cfg Config, opts target.Options) (target.Sink, error) {
	real, err := openThere(cfg, opts)
	if errors.Is(err, fs.ErrNotExist) {
		return drySink{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open target %s: %w", cfg.Path, err)
	}
	return drySink{real}, nil
}

func (s drySink) Root() target.Dir {
	if s.real == nil {
		return &dryDir{}
	}
	return &dryDir{real: s.real.viewRoot()}
}

func (s drySink) Finish(ctx context.Context) error { return ctx.Err() }

func (s drySink) Close() error {
	if s.real == nil {
		return nil
	}
	return s.real.Close()
}

// dryDir is a directory of which some entries are taken to be removed. Without a
// real one it is taken to have been made, and is empty.
type dryDir struct {
	real viewer

	mu      sync.Mutex
	removed map[string]bool
}

func (d *dryDir) gone(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.real == nil || d.removed[name]
}

func (d *dryDir) Look(name string) (*tree.Node, error) {
	if err := checkName(name); err != nil || d.gone(name) {
		return nil, err
	}
	return d.real.Look(name)
}

func (d *dryDir) Names() ([]string, error) {
	if d.real == nil {
		return nil, nil
	}
	names, err := d.real.Names()
	return slices.DeleteFunc(names, d.gone), err
}

func (d *dryDir) Dir(name string) (target.Dir, error) {
	there, err := d.Look(name)
	if err != nil {
		return nil, err
	}
	if there == nil {
		return &dryDir{}, nil
	}
	real, err := d.real.view(name)
	if err != nil {
		return nil, err
	}
	return &dryDir{real: real}, nil
}

func (d *dryDir) Existing(name string) (target.Existing, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if d.gone(name) {
		return nil, fmt.Errorf("open: %w", fs.ErrNotExist)
	}
	return d.real.Existing(name)
}

// vacant says whether a name could be given to something that is no directory.
func (d *dryDir) vacant(name string) error {
	there, err := d.Look(name)
	if err == nil && there != nil && there.Type == tree.Dir {
		err = target.ErrInTheWay
	}
	return err
}

func (d *dryDir) Create(node *tree.Node) (target.File, error) {
	if err := checkName(node.Name); err != nil {
		return nil, err
	}
	return dryFile{d, node.Name}, nil
}

func (d *dryDir) Make(node *tree.Node) error { return d.vacant(node.Name) }

func (d *dryDir) Link(name string, _ target.Dir, old string) error {
	return errors.Join(checkName(old), d.vacant(name))
}

func (d *dryDir) SetMeta(node *tree.Node) error { return checkName(node.Name) }

func (d *dryDir) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed == nil {
		d.removed = make(map[string]bool)
	}
	d.removed[name] = true
	return nil
}

func (d *dryDir) Finish(*tree.Node) error {
	if d.real == nil {
		return nil
	}
	return d.real.Finish(nil)
}

// dryFile is a file that is not written.
type dryFile struct {
	d    *dryDir
	name string
}

func (f dryFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (f dryFile) Reuse(target.Existing, int64, int64) error { return nil }

func (f dryFile) Commit() error { return f.d.vacant(f.name) }

func (f dryFile) Abort() {}
