package agent

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore"
)

// open opens an item and one of its points, after a look at whether all that the
// point needs does open. to is where it would be restored to, "" if it is only read.
// The caller closes the item.
func (a *Agent) open(ctx context.Context, name, selector, to string) (*item, *catalog.Point, error) {
	it, p, _, err := a.openNoting(ctx, name, selector, to)
	return it, p, err
}

// openNoting is open for who has somebody to tell what PickReadable notes, and that the
// local index cannot be used.
func (a *Agent) openNoting(ctx context.Context, name, selector, to string) (*item, *catalog.Point, []string, error) {
	it, err := a.toRead(ctx, name)
	if err != nil {
		return nil, nil, nil, err
	}
	p, notes, err := a.pick(ctx, it, selector, to)
	if err != nil {
		it.close()
		return nil, nil, nil, err
	}
	return it, p, append(notes, it.without()...), nil
}

// pick reads the point that a selector means.
func (a *Agent) pick(ctx context.Context, it *item, selector, to string) (p *catalog.Point, notes []string, err error) {
	var other error
	notes, err = PickReadable(ctx, it.Item, selector, a.Clock(), func(name catalog.PointName) error {
		if other = a.preflight(ctx, it, name, to); other != nil {
			return nil // with an older point it would be no better
		}
		it.sync.Lock()
		defer it.sync.Unlock()
		if other = a.bringUpToRead(ctx, it); other != nil {
			return nil
		}
		p, err = it.point(ctx, name)
		return err
	})
	err = cmp.Or(other, err)
	for _, n := range notes {
		a.Log.Warn("latest point", "vault", it.vault.name, "item", it.Name(), "says", n)
	}
	return p, notes, err
}

func (a *Agent) itemNames(only string) []string {
	if only != "" {
		return []string{only}
	}
	return slices.Sorted(maps.Keys(a.settings().Items))
}

// Points implements control.Points.
func (a *Agent) Points(ctx context.Context, item string) ([]control.Point, error) {
	var out []control.Point
	for _, name := range a.itemNames(item) {
		before := len(out)
		err := a.eachPoint(ctx, name, func(p control.Point) error {
			out = append(out, p)
			return nil
		})
		if control.CodeOf(err) == control.CodeNotFound && item == "" {
			out = out[:before] // nothing there yet
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(out, func(x, y control.Point) int { return x.Time.Compare(y.Time) })
	return out, nil
}

// Point implements control.Points.
func (a *Agent) Point(ctx context.Context, item, selector string) (control.Point, error) {
	it, p, err := a.open(ctx, item, selector, "")
	if err != nil {
		return control.Point{}, err
	}
	defer it.close()
	fates, err := a.fates(ctx, it)
	if err != nil {
		return control.Point{}, err
	}
	out := a.wirePoint(it.vault.name, p)
	fates.of(p.Name, &out)
	for n, err := range it.reader.Nodes(ctx, p.Root) {
		if err != nil {
			return control.Point{}, Fault(err)
		}
		out.Roots = append(out.Roots, "/"+n.Name)
	}
	return out, nil
}

// maxLevels is more levels than any tree has.
const maxLevels = 1 << 30

// Entries implements control.Points.
func (a *Agent) Entries(ctx context.Context, req control.EntriesRequest) iter.Seq2[control.Entry, error] {
	return func(yield func(control.Entry, error) bool) {
		it, p, err := a.open(ctx, req.Item, req.Point, "")
		if err != nil {
			yield(control.Entry{}, err)
			return
		}
		defer it.close()
		node, err := restore.Find(ctx, it.reader, p.Root, req.Path)
		if err != nil {
			yield(control.Entry{}, Fault(err))
			return
		}
		if node.Type != tree.Dir {
			yield(entry(p, req.Path, node), nil)
			return
		}
		levels := 0
		if req.Recursive {
			levels = maxLevels
		}
		for e, err := range restore.List(ctx, it.reader, node.Trees, req.Path, levels) {
			if err != nil {
				yield(control.Entry{}, Fault(err))
				return
			}
			if !yield(entry(p, e.Path, e.Node), nil) {
				return
			}
		}
	}
}

func entry(p *catalog.Point, path string, n *tree.Node) control.Entry {
	return control.Entry{Path: path, Type: n.Type.String(), Mode: n.Mode, UID: n.UID, GID: n.GID,
		User: p.Users[n.UID], Group: p.Groups[n.GID], Size: int64(n.Size),
		MTime: time.Unix(n.MTime.Sec, int64(n.MTime.Nsec)).UTC(), Target: n.Target, Changing: n.Changing}
}

// Diff implements control.Points.
func (a *Agent) Diff(ctx context.Context, req control.DiffRequest) iter.Seq2[control.DiffEntry, error] {
	return func(yield func(control.DiffEntry, error) bool) {
		it, from, err := a.open(ctx, req.Item, req.From, "")
		if err != nil {
			yield(control.DiffEntry{}, err)
			return
		}
		defer it.close()
		to, _, err := a.pick(ctx, it, req.To, "")
		if err != nil {
			yield(control.DiffEntry{}, err)
			return
		}
		var trees [2][]chunk.ID
		for i, root := range [][]chunk.ID{from.Root, to.Root} {
			node, err := restore.Find(ctx, it.reader, root, req.Path)
			if err != nil {
				yield(control.DiffEntry{}, Fault(err))
				return
			}
			trees[i] = node.Trees
		}
		for c, err := range restore.Diff(ctx, it.reader, trees[0], trees[1], req.Path) {
			if err != nil {
				yield(control.DiffEntry{}, Fault(err))
				return
			}
			if !yield(difference(c), nil) {
				return
			}
		}
	}
}

func difference(c restore.Change) control.DiffEntry {
	d := control.DiffEntry{Path: c.Path, Change: control.Changed}
	switch {
	case c.Old == nil:
		d.Change, d.Type, d.NewSize = control.Added, c.New.Type.String(), int64(c.New.Size)
		return d
	case c.New == nil:
		d.Change, d.Type, d.OldSize = control.Removed, c.Old.Type.String(), int64(c.Old.Size)
		return d
	}
	d.Type, d.OldSize, d.NewSize = c.New.Type.String(), int64(c.Old.Size), int64(c.New.Size)
	for _, what := range []struct {
		differs bool
		name    string
	}{
		{c.Old.Type != c.New.Type, "type"},
		{c.Content() && c.Old.Type == c.New.Type && c.Old.Target == c.New.Target, "content"},
		{c.Old.Target != c.New.Target, "target"},
		{c.Old.Mode != c.New.Mode, "mode"},
		{c.Old.UID != c.New.UID || c.Old.GID != c.New.GID, "owner"},
		{c.Old.MTime != c.New.MTime, "mtime"},
		{!maps.EqualFunc(c.Old.Xattrs, c.New.Xattrs, bytes.Equal), "xattrs"},
	} {
		if what.differs {
			d.What = append(d.What, what.name)
		}
	}
	return d
}

// Content implements control.Points.
func (a *Agent) Content(ctx context.Context, req control.ContentRequest, w io.Writer) error {
	it, p, err := a.open(ctx, req.Item, req.Point, "")
	if err != nil {
		return err
	}
	defer it.close()
	e := audit.Event{Kind: audit.RestoreStarted, Vault: it.vault.name, Item: req.Item, Point: p.Name.String(), By: control.PeerFrom(ctx).String(),
		Fields: map[string]string{"path": req.Path, "target": "standard output"}}
	if err := a.record(ctx, e); err != nil {
		return err
	}
	return Fault(restore.Cat(ctx, it.reader, p.Root, req.Path, w))
}
