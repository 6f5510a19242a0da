package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/store/pack"
)

// plan walks the point and decides what to write. Everything but the content of
// files happens here, in order.
func (r *run) plan(ctx context.Context) error {
	if err := r.Select.Check(); err != nil {
		return err
	}
	p := &planner{run: r, batch: new(batch)}
	root := &directory{Dir: r.sink.Root(), partial: true}
	root.users.Add(1)
	if err := p.dir(ctx, root, r.Point.Root, r.Select.match("") == yes); err != nil {
		return err
	}
	return p.send(ctx)
}

// planner is the walk's state.
type planner struct {
	*run
	batch *batch
}

// dir plans a directory whose target is open, and gives up the caller's use of it.
func (p *planner) dir(ctx context.Context, d *directory, trees []chunk.ID, whole bool) error {
	wanted := make(map[string]struct{})
	known := true // all that should be in it
	for node, err := range p.Reader.Nodes(ctx, trees) {
		if err != nil {
			if !catalog.Lost(err) || d.parent == nil {
				return fmt.Errorf("%s/: %w", d.path, err)
			}
			p.skip(d.path, err.Error())
			known = false
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		path := d.path + "/" + node.Name
		chosen := yes
		if !whole {
			chosen = p.Select.match(path)
		}
		if p.Delete {
			wanted[node.Name] = struct{}{}
		}
		if chosen == no || chosen == below && node.Type != tree.Dir {
			continue
		}
		if chosen == yes {
			p.mu.Lock()
			p.matched = true
			p.mu.Unlock()
		}
		if err := p.node(ctx, d, path, node, chosen == yes); err != nil {
			return err
		}
	}
	if p.Delete && whole && known && !d.partial {
		if err := p.remove(ctx, d, wanted); err != nil {
			return err
		}
	}
	if d.Dir != nil {
		p.Progress.Dirs.Add(1)
	}
	return p.finish(ctx, d)
}

// node plans one entry.
func (p *planner) node(ctx context.Context, d *directory, path string, node *tree.Node, whole bool) error {
	if node.Type == tree.Dir {
		return p.subdir(ctx, d, path, node, whole)
	}
	there, err := d.look(node.Name)
	if err == nil {
		err = d.open()
	}
	if err != nil {
		return p.fault(ctx, path, err)
	}
	if there != nil && p.Overwrite == Never {
		p.Progress.Kept.Add(1)
		return nil
	}
	if there != nil && there.Type == tree.Dir {
		if !p.Delete {
			return p.fault(ctx, path, errors.New("a directory is in its place; restore with --delete to replace it"))
		}
		if err := p.removeOne(d, node.Name); err != nil {
			return p.fault(ctx, path, err)
		}
		there = nil
	}
	if node.Link != nil {
		if done, err := p.link(ctx, d, path, node, there); done {
			return err
		}
	}
	if node.Type != tree.File {
		p.Progress.Others.Add(1)
		if there != nil && sameSpecial(there, node) {
			p.Progress.Kept.Add(1)
			return nil
		}
		if p.DryRun {
			return nil
		}
		return p.fault(ctx, path, d.Make(node))
	}
	return p.file(ctx, d, path, node, there)
}

// subdir plans a directory below d.
func (p *planner) subdir(ctx context.Context, d *directory, path string, node *tree.Node, whole bool) error {
	there, err := d.look(node.Name)
	if err == nil && there != nil && there.Type != tree.Dir {
		if p.Overwrite == Never {
			p.Progress.Kept.Add(1)
			return nil
		}
		err = errors.New("something that is not a directory is in its place; restore with --delete to replace it")
		if p.Delete {
			err = p.removeOne(d, node.Name)
		}
	}
	if err != nil {
		return p.fault(ctx, path, err)
	}
	child := &directory{node: node, parent: d, path: path, partial: node.Partial, fresh: there == nil || there.Type != tree.Dir}
	if whole || !child.fresh {
		if err := child.open(); err != nil {
			return p.fault(ctx, path, err)
		}
	}
	if !child.fresh && (!whole || node.Partial || p.Overwrite == Never) {
		child.node = nil // only on the way to what was chosen, and already there
	}
	d.users.Add(1)
	child.users.Add(1)
	return p.dir(ctx, child, node.Trees, whole)
}

// file plans a regular file: leaves it, takes over what is already right, and asks
// for the rest.
func (p *planner) file(ctx context.Context, d *directory, path string, node, there *tree.Node) error {
	p.Progress.Bytes.Add(node.Size)
	f := &file{dir: d, node: node, path: path, link: p.linkOf(node)}
	keep := there != nil && there.Type == tree.File && there.Size == node.Size && !shared(there, node)
	if keep && p.Overwrite == IfDifferent && there.MTime == node.MTime {
		return p.keep(ctx, f, there)
	}
	d.users.Add(1)
	f.pending.Store(1) // the plan itself
	if there != nil && there.Type == tree.File && (there.Size > 0 || node.Size == 0) {
		same, err := p.compare(ctx, f)
		if err != nil {
			return err
		}
		if same && keep {
			f.abort()
			return errors.Join(p.keep(ctx, f, there), p.finish(ctx, d))
		}
	} else if err := p.ask(ctx, f); err != nil {
		return err
	}
	return p.complete(ctx, f)
}

// keep leaves a file whose content is right and gives it the node's metadata.
func (p *planner) keep(ctx context.Context, f *file, there *tree.Node) error {
	p.Progress.Files.Add(1)
	p.Progress.Kept.Add(1)
	if !p.DryRun && !sameMeta(there, f.node) {
		if err := p.fault(ctx, f.path, f.dir.SetMeta(f.node)); err != nil {
			return err
		}
	}
	return p.settle(ctx, f.link, true, there.Link)
}

// shared tells whether a file that is there cannot be given the node's metadata,
// because it has other names, which may belong to other files of the point or to
// nobody here.
func shared(there, node *tree.Node) bool { return there.Link != nil && !sameMeta(there, node) }

// ask asks for all of a file's content.
func (p *planner) ask(ctx context.Context, f *file) error {
	at := uint64(0)
	for e, err := range p.Reader.Extents(ctx, f.node.Content) {
		if err != nil {
			return p.badFile(ctx, f, err)
		}
		if e.Kind == tree.Content {
			if err := p.want(ctx, f, e, at); err != nil {
				return err
			}
		}
		at += e.Length
	}
	return p.checkSize(ctx, f, at)
}

func (p *planner) checkSize(ctx context.Context, f *file, at uint64) error {
	if at == f.node.Size {
		return nil
	}
	return p.badFile(ctx, f, fmt.Errorf("content has %d bytes instead of %d: %w", at, f.node.Size, crypt.ErrDamaged))
}

// want asks for one chunk of a file.
func (p *planner) want(ctx context.Context, f *file, e tree.Extent, at uint64) error {
	loc, err := p.Reader.Find(ctx, e.ID, pack.Data)
	if err == nil && uint64(loc.Length) != e.Length {
		err = fmt.Errorf("chunk %s has %d bytes instead of %d: %w", e.ID, loc.Length, e.Length, crypt.ErrDamaged)
	}
	if err != nil {
		return p.badFile(ctx, f, err)
	}
	f.pending.Add(1)
	if p.batch.add(want{file: f, id: e.ID, loc: loc, at: int64(at)}) {
		return p.send(ctx)
	}
	return nil
}

// compare takes over what an existing file has right, and asks for the rest. same
// says that it asked for nothing.
func (p *planner) compare(ctx context.Context, f *file) (same bool, err error) {
	old, err := f.dir.Existing(f.node.Name)
	if err != nil {
		return false, p.ask(ctx, f)
	}
	f.old = old
	at, buf := uint64(0), []byte(nil)
	same = true
	for e, err := range p.Reader.Extents(ctx, f.node.Content) {
		if err != nil {
			return false, p.badFile(ctx, f, err)
		}
		right := false
		if right, buf, err = p.holds(ctx, old, e, at, buf); err != nil {
			return false, p.badFile(ctx, f, err)
		}
		switch {
		case right:
			f.reuse = append(f.reuse, span{int64(at), int64(e.Length)})
		case e.Kind == tree.Content:
			same = false
			if err := p.want(ctx, f, e, at); err != nil {
				return false, err
			}
		default:
			same = false
		}
		at += e.Length
	}
	if len(f.reuse) == 0 { // of no more use, and there may be many of them
		f.old = nil
		old.Close() // it was only read
	}
	return same, p.checkSize(ctx, f, at)
}

// holds tells whether an existing file has an extent's content at its place.
func (p *planner) holds(ctx context.Context, old target.Existing, e tree.Extent, at uint64, buf []byte) (bool, []byte, error) {
	if e.Kind != tree.Content {
		ok, err := zeroAt(old, at, e.Length)
		return ok, buf, err
	}
	if uint64(cap(buf)) < e.Length {
		buf = make([]byte, e.Length)
	}
	buf = buf[:e.Length]
	if n, err := old.ReadAt(buf, int64(at)); n < len(buf) {
		_ = err // shorter, or not readable: it is written anew
		return false, buf, nil
	}
	loc, err := p.Reader.Find(ctx, e.ID, pack.Data)
	if err != nil {
		return false, buf, err
	}
	loc.Offset = 0
	_, err = p.Reader.Cut(ctx, buf, loc, e.ID)
	if errors.Is(err, crypt.ErrDamaged) {
		return false, buf, nil
	}
	return err == nil, buf, err
}

// badFile ends the writing of a file that the vault cannot give. The rest of the
// point goes on, unless it could not be given either.
func (p *planner) badFile(ctx context.Context, f *file, err error) error {
	f.fail(err)
	if !catalog.Lost(err) || ctx.Err() != nil {
		return err
	}
	return nil
}

// send gives the batch to the scheduler.
func (p *planner) send(ctx context.Context) error {
	if len(p.batch.wants) == 0 {
		return nil
	}
	select {
	case p.batches <- p.batch:
		p.batch = new(batch)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove removes what the point does not have.
func (p *planner) remove(ctx context.Context, d *directory, wanted map[string]struct{}) error {
	names, err := d.Names()
	if err != nil {
		return p.fault(ctx, d.path, err)
	}
	for _, name := range names {
		if _, ok := wanted[name]; ok {
			continue
		}
		if err := p.fault(ctx, d.path+"/"+name, p.removeOne(d, name)); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) removeOne(d *directory, name string) error {
	if err := d.Remove(name); err != nil {
		return err
	}
	p.Progress.Deleted.Add(1)
	return nil
}
