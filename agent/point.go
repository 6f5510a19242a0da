package agent

import (
	"bytes"
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore"
)

func (a *Agent) itemNames(only string) []string {
	if only != "" {
		return []string{only}
	}
	return slices.Sorted(maps.Keys(a.settings().Items))
}

// Points implements control.Points.
func (a *Agent) Points(ctx context.Context, req control.PointsRequest) iter.Seq2[control.Point, error] {
	return func(yield func(control.Point, error) bool) {
		for _, name := range a.itemNames(req.Item) {
			for p, err := range a.points.Each(ctx, name, req.Last) {
				if control.CodeOf(err) == control.CodeNotFound && req.Item == "" {
					break // nothing there yet
				}
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
}

// Point implements control.Points.
func (a *Agent) Point(ctx context.Context, item, selector string) (control.Point, error) {
	it, p, err := a.points.Open(ctx, item, selector, "")
	if err != nil {
		return control.Point{}, err
	}
	defer it.Close()
	fates, err := a.points.Fates(ctx, it)
	if err != nil {
		return control.Point{}, err
	}
	out := point.Wire(it.Vault.Name, p)
	fates.Of(p.Name, &out)
	for n, err := range it.Reader.Nodes(ctx, p.Root) {
		if err != nil {
			return control.Point{}, fault.Of(err)
		}
		out.Roots = append(out.Roots, "/"+n.Name)
	}
	return out, nil
}

// namesOf are those that a point has in commands.
func namesOf(p *catalog.Point) fault.Names { return fault.Names{Item: p.Item, Point: p.Name.String()} }

// maxLevels is more levels than any tree has.
const maxLevels = 1 << 30

// Entries implements control.Points.
func (a *Agent) Entries(ctx context.Context, req control.EntriesRequest) iter.Seq2[control.Entry, error] {
	return func(yield func(control.Entry, error) bool) {
		it, p, err := a.points.Open(ctx, req.Item, req.Point, "")
		if err != nil {
			yield(control.Entry{}, err)
			return
		}
		defer it.Close()
		node, err := restore.Find(ctx, it.Reader, p.Root, req.Path)
		if err != nil {
			yield(control.Entry{}, namesOf(p).Of(err))
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
		for e, err := range restore.List(ctx, it.Reader, node.Trees, req.Path, levels) {
			if err != nil {
				yield(control.Entry{}, fault.Of(err))
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
		it, from, err := a.points.Open(ctx, req.Item, req.From, "")
		if err != nil {
			yield(control.DiffEntry{}, err)
			return
		}
		defer it.Close()
		to, _, err := a.points.Pick(ctx, it, req.To, "")
		if err != nil {
			yield(control.DiffEntry{}, err)
			return
		}
		var trees [2][]chunk.ID
		for i, root := range [][]chunk.ID{from.Root, to.Root} {
			node, err := restore.Find(ctx, it.Reader, root, req.Path)
			if err != nil {
				yield(control.DiffEntry{}, fault.Of(err))
				return
			}
			trees[i] = node.Trees
		}
		for c, err := range restore.Diff(ctx, it.Reader, trees[0], trees[1], req.Path) {
			if err != nil {
				yield(control.DiffEntry{}, fault.Of(err))
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
	it, p, err := a.points.Open(ctx, req.Item, req.Point, "")
	if err != nil {
		return err
	}
	defer it.Close()
	e := audit.Event{Kind: audit.RestoreStarted, Vault: it.Vault.Name, Item: req.Item, Point: p.Name.String(), By: control.PeerFrom(ctx).String(),
		Fields: map[string]string{"path": req.Path, "target": "standard output"}}
	if err := a.record(ctx, e); err != nil {
		return err
	}
	return namesOf(p).Of(restore.Cat(ctx, it.Reader, p.Root, req.Path, w))
}
