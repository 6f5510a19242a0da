package prune

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// liveness is which frames points need: one bit for each frame of each pack. Trees and
// lists that were walked are known by their places, and not walked again.
type liveness struct {
	run    *run
	reader *catalog.Reader
	packs  map[pack.ID]*livePack
	walked map[chunkPlace]struct{} // trees and lists
}

type livePack struct {
	number uint32
	frames []uint64 // bits
}

// chunkPlace is a chunk, by where it is.
type chunkPlace struct {
	pack, frame, offset uint32
}

// maxDepth bounds how deep directories and lists may be: more than any system has.
const maxDepth = 4096

// alive walks the trees of points and notes every frame that is needed.
func (r *run) alive(ctx context.Context, points []*catalog.Point) (*liveness, error) {
	l := &liveness{run: r, reader: r.Item.NewReader(r.Index), packs: make(map[pack.ID]*livePack), walked: make(map[chunkPlace]struct{})}
	for _, p := range points {
		if err := l.dir(ctx, p.Root, 0); err != nil {
			return nil, fmt.Errorf("walk point %s: %w", p.Name, err)
		}
	}
	return l, nil
}

// note notes that a chunk is needed, in every pack that has it: a point may lean on
// another than the one where it is found first. fresh tells that it was not walked
// before.
func (l *liveness) note(ctx context.Context, id chunk.ID, typ pack.FrameType) (fresh bool, err error) {
	places, err := l.run.Index.Places(ctx, id)
	if err != nil {
		return false, fmt.Errorf("look up chunk %s: %w", id, err)
	}
	for _, loc := range places {
		if loc.Type != typ {
			continue
		}
		p, ok := l.packs[loc.Pack]
		if !ok {
			p = &livePack{number: uint32(len(l.packs))}
			l.packs[loc.Pack] = p
		}
		for int(loc.Frame/64) >= len(p.frames) {
			p.frames = append(p.frames, 0)
		}
		p.frames[loc.Frame/64] |= 1 << (loc.Frame % 64)
		place := chunkPlace{p.number, loc.Frame, loc.Offset}
		if _, walked := l.walked[place]; !walked && typ != pack.Data {
			l.walked[place] = struct{}{}
			fresh = true
		}
	}
	if len(places) == 0 {
		return false, fmt.Errorf("chunk %s is in no pack: %w", id, crypt.ErrDamaged)
	}
	return fresh, nil
}

// dir notes a directory, given its tree chunks, and all below it.
func (l *liveness) dir(ctx context.Context, trees []chunk.ID, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directories are nested too deeply: %w", tree.ErrFormat)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, id := range trees {
		fresh, err := l.note(ctx, id, pack.Tree)
		if err != nil {
			return err
		}
		if !fresh {
			continue
		}
		raw, err := l.reader.Chunk(ctx, id, pack.Tree)
		if err != nil {
			return err
		}
		l.run.Progress.Read.Add(int64(len(raw)))
		nodes, err := tree.ParseNodes(raw)
		if err != nil {
			return fmt.Errorf("read directory %s: %w", id, err)
		}
		for i := range nodes {
			n := &nodes[i]
			if n.Type == tree.Dir {
				err = l.dir(ctx, n.Trees, depth+1)
			} else {
				err = l.content(ctx, n.Content, depth+1)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// content notes what a file, or a list of its extents, refers to.
func (l *liveness) content(ctx context.Context, extents []tree.Extent, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("lists are nested too deeply: %w", tree.ErrFormat)
	}
	for _, e := range extents {
		switch e.Kind {
		case tree.Content:
			if _, err := l.note(ctx, e.ID, pack.Data); err != nil {
				return err
			}
		case tree.Listed:
			fresh, err := l.note(ctx, e.ID, pack.List)
			if err != nil {
				return err
			}
			if !fresh {
				continue
			}
			raw, err := l.reader.Chunk(ctx, e.ID, pack.List)
			if err != nil {
				return err
			}
			l.run.Progress.Read.Add(int64(len(raw)))
			inner, err := tree.ParseExtents(raw)
			if err == nil {
				err = l.content(ctx, inner, depth+1)
			}
			if err != nil {
				return fmt.Errorf("read list %s: %w", e.ID, err)
			}
		}
	}
	return nil
}

func (l *liveness) has(id pack.ID, frame uint32) bool {
	p, ok := l.packs[id]
	return ok && int(frame/64) < len(p.frames) && p.frames[frame/64]&(1<<(frame%64)) != 0
}

// frames tells of each frame of a pack whether it is needed.
func (l *liveness) frames(c pack.Contents) []bool {
	live := make([]bool, len(c.Frames))
	for i := range c.Frames {
		live[i] = l.has(c.Pack, uint32(i))
	}
	return live
}
