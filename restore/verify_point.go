package restore

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// point checks that a point finds all it needs, in the packs that it lists.
func (v *verify) point(ctx context.Context, p *catalog.Point) error {
	key := v.Item.PointKey(p.Name)
	for _, id := range p.Packs {
		if _, ok := v.good[id]; !ok {
			if err := v.found(ctx, key, "", fmt.Errorf("it needs pack %s, which is damaged, gone or in no index: %w", id, crypt.ErrDamaged)); err != nil {
				return err
			}
		}
	}
	if err := v.tree(ctx, key, "", p.Root); err != nil {
		return err
	}
	return v.resolve(ctx)
}

func (v *verify) tree(ctx context.Context, point store.Key, path string, trees []chunk.ID) error {
	fresh := false
	for _, id := range trees {
		if n, ok := v.seen[id]; !ok || !v.cover.includes(n) {
			v.seen[id] = v.cover.now
			fresh = true
		}
		if err := v.lost(ctx, point, path, v.ref(ctx, path, id, pack.Tree, 0)); err != nil {
			return err
		}
	}
	if !fresh && len(trees) > 0 {
		return nil
	}
	for n, err := range v.Reader.Nodes(ctx, trees) {
		if err != nil {
			return v.lost(ctx, point, path, err)
		}
		if n.Type == tree.Dir {
			if err := v.tree(ctx, point, path+"/"+n.Name, n.Trees); err != nil {
				return err
			}
			continue
		}
		if err := v.lost(ctx, point, path+"/"+n.Name, v.file(ctx, path+"/"+n.Name, n)); err != nil {
			return err
		}
	}
	return nil
}

func (v *verify) file(ctx context.Context, path string, n *tree.Node) error {
	if err := v.lists(ctx, path, n.Content); err != nil {
		return err
	}
	var size uint64
	for e, err := range v.Reader.Extents(ctx, n.Content) {
		if err != nil {
			return err
		}
		if e.Kind == tree.Content {
			if err := v.ref(ctx, path, e.ID, pack.Data, e.Length); err != nil {
				return err
			}
		}
		size += e.Length
	}
	v.Progress.Files.Add(1)
	if size != n.Size {
		return fmt.Errorf("content has %d bytes instead of %d: %w", size, n.Size, crypt.ErrDamaged)
	}
	return nil
}

// ref checks that a chunk that path needs is known, has the length that is expected
// (0: any), and is in a good pack. That the point lists that pack, or another that
// has the chunk, is left to resolve.
func (v *verify) ref(ctx context.Context, path string, id chunk.ID, typ pack.FrameType, length uint64) error {
	loc, ok, err := v.Reader.Index.Lookup(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("look up chunk %s: %w", id, err)
	case !ok || loc.Type != typ:
		return fmt.Errorf("chunk %s is in no pack: %w", id, crypt.ErrDamaged)
	}
	if !v.cover.listed(loc.Pack) {
		if v.cover.note(id, place{loc.Pack, path}) {
			if err := v.resolve(ctx); err != nil {
				return err
			}
		}
		if v.needed != nil { // only packs that are listed were verified
			return nil
		}
	}
	if length != 0 && uint64(loc.Length) != length {
		return fmt.Errorf("chunk %s has %d bytes instead of %d: %w", id, loc.Length, length, crypt.ErrDamaged)
	}
	if _, ok := v.good[loc.Pack]; !ok {
		return fmt.Errorf("chunk %s is in pack %s, which is damaged: %w", id, loc.Pack, crypt.ErrDamaged)
	}
	return nil
}

// lists checks the chunks that lists of extents are in. How deep they may be nested
// is Extents' to say.
func (v *verify) lists(ctx context.Context, path string, content []tree.Extent) error {
	for _, e := range content {
		if e.Kind != tree.Listed {
			continue
		}
		if err := v.ref(ctx, path, e.ID, pack.List, 0); err != nil {
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
		if err := v.lists(ctx, path, inner); err != nil {
			return err
		}
	}
	return nil
}
