package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// ErrNotInPoint: the point has no entry of that path.
var ErrNotInPoint = errors.New("no such path in the point")

// ErrNotFile: the entry is not a regular file.
var ErrNotFile = errors.New("not a regular file")

// Entry is one entry of a point.
type Entry struct {
	Path string // absolute in the point; any bytes but 0
	Node *tree.Node
}

// Find returns the node of a path. ErrNotInPoint if there is none. The root has
// no node of its own and comes as an unnamed directory.
func Find(ctx context.Context, r *catalog.Reader, root []chunk.ID, path string) (*tree.Node, error) {
	node := &tree.Node{Type: tree.Dir, Trees: root}
	for name := range strings.SplitSeq(strings.TrimPrefix(clean(path), "/"), "/") {
		if name == "" {
			continue
		}
		next, err := child(ctx, r, node, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		node = next
	}
	return node, nil
}

func child(ctx context.Context, r *catalog.Reader, dir *tree.Node, name string) (*tree.Node, error) {
	if dir.Type == tree.Dir {
		for n, err := range r.Nodes(ctx, dir.Trees) {
			if err != nil {
				return nil, err
			}
			if n.Name == name {
				return n, nil
			}
			if n.Name > name {
				break
			}
		}
	}
	return nil, ErrNotInPoint
}

// List yields the entries below a directory of a point, parents first, names in
// order; with recurse 0 only its children, else so many levels more.
func List(ctx context.Context, r *catalog.Reader, trees []chunk.ID, path string, recurse int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) { list(ctx, r, trees, strings.TrimRight(path, "/"), recurse, yield) }
}

func list(ctx context.Context, r *catalog.Reader, trees []chunk.ID, path string, recurse int, yield func(Entry, error) bool) bool {
	for n, err := range r.Nodes(ctx, trees) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(Entry{}, err)
			return false
		}
		e := Entry{path + "/" + n.Name, n}
		if !yield(e, nil) {
			return false
		}
		if n.Type == tree.Dir && recurse > 0 && !list(ctx, r, n.Trees, e.Path, recurse-1, yield) {
			return false
		}
	}
	return true
}

// Cat writes the content of one file to w.
func Cat(ctx context.Context, r *catalog.Reader, root []chunk.ID, path string, w io.Writer) error {
	node, err := Find(ctx, r, root, path)
	if err != nil {
		return err
	}
	if node.Type != tree.File {
		kind := node.Type.String()
		if node.Type == tree.Dir {
			kind = "folder"
		}
		return fmt.Errorf("%s is a %s: %w", path, kind, ErrNotFile)
	}
	var zeros [64 << 10]byte
	var total uint64
	for e, err := range r.Extents(ctx, node.Content) {
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		total += e.Length
		if e.Kind == tree.Hole {
			for left := e.Length; left > 0; {
				n := min(left, uint64(len(zeros)))
				if _, err := w.Write(zeros[:n]); err != nil {
					return err
				}
				left -= n
			}
			continue
		}
		data, err := r.Chunk(ctx, e.ID, pack.Data)
		if err == nil && uint64(len(data)) != e.Length {
			err = crypt.ErrDamaged
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	if total != node.Size {
		return fmt.Errorf("%s: content has %d bytes instead of %d: %w", path, total, node.Size, crypt.ErrDamaged)
	}
	return nil
}

// Change is a difference between two points: Old is nil for what was added, New
// for what was removed.
type Change struct {
	Path     string
	Old, New *tree.Node
}

// Content tells whether the content or kind of the entry changed, not only its
// metadata.
func (c Change) Content() bool {
	return c.Old == nil || c.New == nil || c.Old.Type != c.New.Type || c.Old.Size != c.New.Size ||
		c.Old.Target != c.New.Target || c.Old.Device != c.New.Device || !equalExtents(c.Old.Content, c.New.Content)
}

func equalExtents(a, b []tree.Extent) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Diff yields what differs between two states of the directory at path, in order of
// path. Subtrees that are equal are not read.
func Diff(ctx context.Context, r *catalog.Reader, from, to []chunk.ID, path string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) { diff(ctx, r, from, to, strings.TrimRight(path, "/"), yield) }
}

func diff(ctx context.Context, r *catalog.Reader, from, to []chunk.ID, path string, yield func(Change, error) bool) bool {
	if len(from) == len(to) && equalIDs(from, to) {
		return true
	}
	left, stopLeft := iter.Pull2(r.Nodes(ctx, from))
	defer stopLeft()
	right, stopRight := iter.Pull2(r.Nodes(ctx, to))
	defer stopRight()
	a, errA, okA := left()
	b, errB, okB := right()
	for okA || okB {
		if err := errors.Join(errA, errB, ctx.Err()); err != nil {
			yield(Change{}, err)
			return false
		}
		var old, now *tree.Node
		if okA && (!okB || a.Name <= b.Name) {
			old = a
		}
		if okB && (!okA || b.Name <= a.Name) {
			now = b
		}
		if !change(ctx, r, path, old, now, yield) {
			return false
		}
		if old != nil {
			a, errA, okA = left()
		}
		if now != nil {
			b, errB, okB = right()
		}
	}
	return true
}

// change yields the difference of one entry and of what is below it.
func change(ctx context.Context, r *catalog.Reader, path string, old, now *tree.Node, yield func(Change, error) bool) bool {
	var from, to []chunk.ID
	c := Change{Old: old, New: now}
	for _, n := range []*tree.Node{old, now} {
		if n != nil {
			c.Path = path + "/" + n.Name
		}
	}
	if old != nil {
		from = old.Trees
	}
	if now != nil {
		to = now.Trees
	}
	if old == nil || now == nil || c.Content() || !sameMeta(old, now) {
		if !yield(c, nil) {
			return false
		}
	}
	return diff(ctx, r, from, to, c.Path, yield)
}

func equalIDs(a, b []chunk.ID) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
