package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// points checks the points, one after the other.
func (v *verify) points(ctx context.Context, names []catalog.PointName) error {
	for n, name := range names {
		v.faulty = 0
		p, err := v.Item.Point(ctx, name)
		switch {
		case errors.Is(err, catalog.ErrNoPoint) && !v.only: // a prune took it since the listing
			continue
		case err == nil:
			var newer bool
			if newer, err = v.newer(ctx, p); err == nil && newer {
				continue
			}
			if err == nil {
				err = v.point(ctx, n, p)
			}
		default:
			err = v.found(ctx, v.Item.PointKey(name), "", err)
		}
		if err != nil {
			return err
		}
		if v.faulty > 0 {
			v.report.Points = append(v.report.Points, name)
			v.harmed[name] = v.faulty
		}
		v.Progress.Points.Add(1)
	}
	return nil
}

// newer tells whether a point was made since the index was brought up.
func (v *verify) newer(ctx context.Context, p *catalog.Point) (bool, error) {
	if v.only || v.Knows == nil {
		return false, nil
	}
	for _, id := range v.repacks.PacksOf(p) {
		h := v.packs[id]
		if h == nil || !h.named {
			continue
		}
		if known, err := v.Knows(ctx, id); err != nil || !known {
			return err == nil, err
		}
	}
	return false, nil
}

// point checks that a point finds all it needs, in the packs that it needs by its
// list.
func (v *verify) point(ctx context.Context, n int, p *catalog.Point) error {
	packs := v.repacks.PacksOf(p)
	for _, id := range packs {
		v.needed[id] = struct{}{}
	}
	v.cover.begin(n, packs)
	key := v.Item.PointKey(p.Name)
	if _, err := v.tree(ctx, key, "", p.Root); err != nil {
		return err
	}
	return v.resolve(ctx, key)
}

// tree checks a directory and all below it. well tells that nothing is wrong there.
func (v *verify) tree(ctx context.Context, point store.Key, path string, trees []chunk.ID) (well bool, err error) {
	seen := true
	well = true
	note := func(path string, err error) error {
		well = well && err == nil
		return v.lost(ctx, point, path, err)
	}
	for _, id := range trees {
		if n, ok := v.seen[id]; !ok || !v.cover.includes(n) {
			seen = false
		}
		if err := note(path, v.ref(ctx, point, path, id, pack.Tree, 0)); err != nil {
			return false, err
		}
	}
	if !seen && well {
		for node, err := range v.Reader.Nodes(ctx, trees) {
			if err != nil {
				if err := note(path, err); err != nil {
					return false, err
				}
				break
			}
			below := path + "/" + node.Name
			if node.Type == tree.Dir {
				ok, err := v.tree(ctx, point, below, node.Trees)
				if err != nil {
					return false, err
				}
				well = well && ok
			} else if err := note(below, v.file(ctx, point, below, node)); err != nil {
				return false, err
			}
		}
	}
	for _, id := range trees {
		if well {
			v.seen[id] = v.cover.now
		} else {
			delete(v.seen, id) // the next point with it is told of as well
		}
	}
	return well, nil
}

func (v *verify) file(ctx context.Context, point store.Key, path string, n *tree.Node) error {
	if err := v.lists(ctx, point, path, n.Content); err != nil {
		return err
	}
	var size uint64
	for e, err := range v.Reader.Extents(ctx, n.Content) {
		if err != nil {
			return err
		}
		if e.Kind == tree.Content {
			if err := v.ref(ctx, point, path, e.ID, pack.Data, e.Length); err != nil {
				return err
			}
		}
		size += e.Length
	}
	if size != n.Size {
		return fmt.Errorf("content has %d bytes instead of %d: %w", size, n.Size, crypt.ErrDamaged)
	}
	v.Progress.Files.Add(1)
	return nil
}

// ref checks that a chunk that path needs can be had, and has the length that is
// expected (0: any). That the pack which gives it is one that the point keeps is left
// to resolve.
func (v *verify) ref(ctx context.Context, point store.Key, path string, id chunk.ID, typ pack.FrameType, length uint64) error {
	loc, err := v.place(ctx, id, typ)
	if err != nil {
		return err
	}
	if !v.cover.listed(loc.Pack) && v.cover.note(id, place{loc.Pack, path}) {
		if err := v.resolve(ctx, point); err != nil {
			return err
		}
	}
	if length != 0 && uint64(loc.Length) != length {
		return fmt.Errorf("chunk %s has %d bytes instead of %d: %w", id, loc.Length, length, crypt.ErrDamaged)
	}
	return nil
}

// place finds a chunk where it can be had: where a restore looks first, or else in
// another pack.
func (v *verify) place(ctx context.Context, id chunk.ID, typ pack.FrameType) (pack.Location, error) {
	loc, err := v.Reader.Find(ctx, id, typ)
	if err != nil || v.gives(loc, id) {
		return loc, err
	}
	if all, ok := v.Reader.Index.(catalog.Places); ok {
		places, err := all.Places(ctx, id)
		if err != nil {
			return loc, fmt.Errorf("look up chunk %s: %w", id, err)
		}
		for _, other := range places {
			if other.Type == typ && v.gives(other, id) {
				return other, nil
			}
		}
	}
	return loc, fmt.Errorf("chunk %s is in pack %s, which is damaged or gone: %w", id, loc.Pack, crypt.ErrDamaged)
}

// gives tells whether a chunk can be had at a place.
func (v *verify) gives(loc pack.Location, id chunk.ID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.packs[loc.Pack].has(id)
}

// lists checks the chunks that lists of extents are in. How deep they may be nested
// is Extents' to say.
func (v *verify) lists(ctx context.Context, point store.Key, path string, content []tree.Extent) error {
	for _, e := range content {
		if e.Kind != tree.Listed {
			continue
		}
		if err := v.ref(ctx, point, path, e.ID, pack.List, 0); err != nil {
			return err
		}
		raw, err := v.Reader.Chunk(ctx, e.ID, pack.List)
		if err != nil {
			return err
		}
		inner, err := tree.ParseExtents(raw)
		if err != nil {
			return fmt.Errorf("read list %s: %w", e.ID, err)
		}
		if err := v.lists(ctx, point, path, inner); err != nil {
			return err
		}
	}
	return nil
}
