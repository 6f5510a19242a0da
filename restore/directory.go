package restore

import (
	"context"
	"sync/atomic"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/restore/target"
)

// directory is a directory of the target. It is finished, with its own times and
// mode, when the walk has left it and the last file in it is complete.
type directory struct {
	target.Dir            // nil until something is restored into it
	node       *tree.Node // nil: its metadata stays as it is
	parent     *directory
	path       string
	partial    bool // the point does not know all that was in it
	fresh      bool // it was not there: nothing is in it but what this restore makes
	users      atomic.Int32
}

// look tells what is there under a name of the directory.
func (d *directory) look(name string) (*tree.Node, error) {
	if d.Dir == nil || d.fresh {
		return nil, nil
	}
	return d.Look(name)
}

// open makes a directory that is only on the way to what was chosen, now that
// something was.
func (d *directory) open() error {
	if d.Dir != nil {
		return nil
	}
	err := d.parent.open()
	if err == nil {
		d.Dir, err = d.parent.Dir.Dir(d.node.Name)
	}
	return err
}

// finish gives up one use of a directory; the last one closes it and gives it its
// metadata.
func (r *run) finish(ctx context.Context, d *directory) error {
	for d != nil && d.users.Add(-1) == 0 {
		if d.Dir != nil {
			node := d.node
			if r.DryRun {
				node = nil
			}
			if err := r.fault(ctx, d.path, d.Dir.Finish(node)); err != nil {
				return err
			}
		}
		d = d.parent
	}
	return nil
}
