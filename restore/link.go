package restore

import (
	"context"
	"errors"
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
	ok      bool // valid once settled
	waiting []linkName
}

// linkName is a name that waits for the first.
type linkName struct {
	dir  *directory
	name string
	path string
}

var errFirstName = errors.New("another name of the same file could not be restored")

// link makes the node a further name of a file that was met before. done is false
// if this is the first name.
func (p *planner) link(ctx context.Context, d *directory, path string, node *tree.Node) (done bool, err error) {
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
	n := linkName{d, node.Name, path}
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

// settle makes the names that waited for a file, whose directory is still open.
func (r *run) settle(ctx context.Context, l *linked, ok bool) error {
	if l == nil {
		return nil
	}
	r.mu.Lock()
	l.settled, l.ok = true, ok
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
	if l.ok {
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
	from, err := r.openDir(l.dir.path)
	if err != nil {
		return err
	}
	defer from.Finish(nil)
	return n.dir.Link(n.name, from, l.name)
}

// openDir opens a directory that was restored before.
func (r *run) openDir(path string) (target.Dir, error) {
	dir := r.sink.Root()
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if name == "" {
			continue
		}
		next, err := dir.Dir(name)
		if finishErr := dir.Finish(nil); err == nil {
			err = finishErr
		}
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}
