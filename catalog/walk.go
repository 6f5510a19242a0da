package catalog

import (
	"context"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// Count returns how many entries a node is, itself included. What cannot be read
// is not counted.
func (r *Reader) Count(ctx context.Context, n *tree.Node) uint64 {
	count := uint64(1)
	for child, err := range r.Nodes(ctx, n.Trees) {
		if err != nil {
			return count
		}
		if child.Type == tree.Dir {
			count += r.Count(ctx, child)
		} else {
			count++
		}
	}
	return count
}

// PacksOf returns the packs that hold the tree whose root has these tree chunks,
// and everything below it.
func (r *Reader) PacksOf(ctx context.Context, root []chunk.ID) (map[pack.ID]struct{}, error) {
	packs := make(map[pack.ID]struct{})
	return packs, r.packsOf(ctx, root, packs)
}

func (r *Reader) packsOf(ctx context.Context, trees []chunk.ID, packs map[pack.ID]struct{}) error {
	note := func(id chunk.ID, typ pack.FrameType) error {
		loc, err := r.Find(ctx, id, typ)
		packs[loc.Pack] = struct{}{}
		return err
	}
	for _, id := range trees {
		if err := note(id, pack.Tree); err != nil {
			return err
		}
	}
	for n, err := range r.Nodes(ctx, trees) {
		if err == nil && n.Type == tree.Dir {
			err = r.packsOf(ctx, n.Trees, packs)
		} else if err == nil {
			err = r.refs(ctx, n.Content, maxDepth, note)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Refs calls note for every chunk that content refers to, lists included. An error of
// note ends it.
func (r *Reader) Refs(ctx context.Context, content []tree.Extent, note func(chunk.ID, pack.FrameType) error) error {
	return r.refs(ctx, content, maxDepth, note)
}

// refs calls note for every chunk that content refers to, lists included.
func (r *Reader) refs(ctx context.Context, content []tree.Extent, depth int, note func(chunk.ID, pack.FrameType) error) error {
	for _, e := range content {
		switch e.Kind {
		case tree.Content:
			if err := note(e.ID, pack.Data); err != nil {
				return err
			}
		case tree.Listed:
			if err := note(e.ID, pack.List); err != nil {
				return err
			}
			inner, err := r.list(ctx, e, depth)
			if err == nil {
				err = r.refs(ctx, inner, depth-1, note)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
