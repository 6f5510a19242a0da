package restore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/restore/target"
)

// link identifies the names of one file in a point.
type link = tree.Inode

// linked is a file of several names. The first name that the walk meets is
// restored as a file, the others become links to it once it is there.
type linked struct {
	dir     *directory // of the first name
	name    string
	settled bool
	ok      bool        // valid once settled
	kept    *tree.Inode // the file that was there, if it has more names and was left
	waiting []linkName
}

// linkName is a name that waits for the first.
type linkName struct {
	dir   *directory
	name  string
	path  string
	there *tree.Inode // what has the name now, if that has more names
}

var errFirstName = errors.New("another name of the same file could not be restored")

// link makes the node a further name of a file that was met before, in place of
// what is there. done is false if this is the first name.
func (p *planner) link(ctx context.Context, d *directory, path string, node, there *tree.Node) (done bool, err error) {
	if node.Type != tree.File {
		return false, nil
	}
	p.mu.Lock()
	l, ok := p.links[*node.Link]
	if !ok {
		p.links[*node.Link] = &linked{dir: d, name: node.Name}
		p.mu.Unlock()
		return false, nil
	}
	d.users.Add(1)
	n := linkName{dir: d, name: node.Name, path: path}
	if there != nil {
		n.there = there.Link
	}
	if !l.settled {
		l.waiting = append(l.waiting, n)
		p.mu.Unlock()
		return true, nil
	}
	p.mu.Unlock()
	return true, p.linkName(ctx, l, n)
}

// linkOf returns the state of a node's further names, or nil.
func (p *planner) linkOf(node *tree.Node) *linked {
	if node.Link == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[*node.Link]
}

// settle makes the names that waited for a file, whose directory is still open. kept
// is the file if it is the one that was there and has more names.
func (r *run) settle(ctx context.Context, l *linked, ok bool, kept *tree.Inode) error {
	if l == nil {
		return nil
	}
	r.mu.Lock()
	l.settled, l.ok, l.kept = true, ok, kept
	waiting := l.waiting
	l.waiting = nil
	r.mu.Unlock()
	for _, n := range waiting {
		if err := r.linkName(ctx, l, n); err != nil {
			return err
		}
	}
	return nil
}

// linkName makes one further name and gives up the use of its directory.
func (r *run) linkName(ctx context.Context, l *linked, n linkName) error {
	r.Progress.Others.Add(1)
	err := errFirstName
	switch {
	case l.ok && l.kept != nil && n.there != nil && *l.kept == *n.there:
		r.Progress.Kept.Add(1) // it is a name of that file already
		err = nil
	case l.ok:
		err = r.makeLink(l, n)
	}
	if err := r.fault(ctx, n.path, err); err != nil {
		return err
	}
	return r.finish(ctx, n.dir)
}

func (r *run) makeLink(l *linked, n linkName) error {
	if r.DryRun {
		return nil
	}
	if l.dir == n.dir {
		return n.dir.Link(n.name, n.dir.Dir, l.name)
	}
	way, err := r.openWay(l.dir.path)
	if err == nil {
		err = n.dir.Link(n.name, way[len(way)-1], l.name)
	}
	for _, d := range slices.Backward(way) {
		err = errors.Join(err, d.Finish(nil))
	}
	return err
}

// openWay opens a directory that was restored before, and those above it, the root
// first. What it returns must be finished, also after an error.
func (r *run) openWay(path string) ([]target.Dir, error) {
	way := []target.Dir{r.sink.Root()}
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if name == "" {
			continue
		}
		next, err := way[len(way)-1].Dir(name)
		if err != nil {
			return way, err
		}
		way = append(way, next)
	}
	return way, nil
}
