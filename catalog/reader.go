package catalog

import (
	"container/list"
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// Lookup finds chunks. The local index implements it.
type Lookup interface {
	// Lookup tells where the chunk is; ok is false if no known pack has it.
	Lookup(ctx context.Context, id chunk.ID) (loc pack.Location, ok bool, err error)
}

// Reader reads single chunks of an item: trees, lists, and pieces of files. It
// remembers the last frames, because neighbours are asked for together. It is
// safe for concurrent use.
type Reader struct {
	Packs  *pack.Reader
	Index  Lookup
	item   *Item
	namers sync.Pool

	mu     sync.Mutex
	frames map[frameID]*list.Element // of *cachedFrame
	order  *list.List                // most recently used first
	bytes  int
}

type frameID struct {
	pack  pack.ID
	frame uint32
}

type cachedFrame struct {
	id   frameID
	load sync.Once
	raw  []byte
	err  error
	size int
}

// cacheBytes bounds the frames that a reader remembers.
const cacheBytes = 16 << 20

// NewReader returns a reader of the item's chunks.
func (it *Item) NewReader(index Lookup) *Reader {
	return &Reader{
		Packs: pack.NewReader(it.vault.objects, it, it.id), Index: index, item: it,
		frames: make(map[frameID]*list.Element), order: list.New(),
	}
}

// Find tells where a chunk of a type is. ErrDamaged if the item has no such chunk.
func (r *Reader) Find(ctx context.Context, id chunk.ID, typ pack.FrameType) (pack.Location, error) {
	loc, ok, err := r.Index.Lookup(ctx, id)
	if err != nil {
		return loc, fmt.Errorf("look up chunk %s: %w", id, err)
	}
	if !ok || loc.Type != typ {
		return loc, fmt.Errorf("chunk %s is in no pack of item %s: %w", id, r.item.name, crypt.ErrDamaged)
	}
	return loc, nil
}

// Chunk returns a chunk, checked against its id: from where it is found first, or if
// that is damaged or gone from another pack that has it. The caller must not change it.
func (r *Reader) Chunk(ctx context.Context, id chunk.ID, typ pack.FrameType) ([]byte, error) {
	loc, err := r.Find(ctx, id, typ)
	if err != nil {
		return nil, err
	}
	raw, err := r.frame(ctx, loc)
	if err == nil {
		raw, err = r.Cut(ctx, raw, loc, id)
	}
	if Lost(err) { // perhaps it was stored again since
		return r.Elsewhere(ctx, id, loc, err)
	}
	return raw, err
}

// Cut returns the chunk that is at loc in a decompressed frame, checked against
// its id.
func (r *Reader) Cut(ctx context.Context, raw []byte, loc pack.Location, id chunk.ID) ([]byte, error) {
	if uint64(loc.Offset)+uint64(loc.Length) > uint64(len(raw)) {
		return nil, fmt.Errorf("chunk %s is outside its frame: %w", id, crypt.ErrDamaged)
	}
	data := raw[loc.Offset : loc.Offset+loc.Length]
	secret, err := r.item.Secret(ctx, loc.Generation) // also of a frame that was read before it was closed
	if err != nil {
		return nil, err
	}
	namer, ok := r.namers.Get().(*namerOf)
	if !ok || namer.generation != loc.Generation {
		fresh, err := secret.Namer()
		if err != nil {
			return nil, err
		}
		namer = &namerOf{fresh, loc.Generation}
	}
	defer r.namers.Put(namer)
	if namer.ID(data) != id {
		return nil, fmt.Errorf("chunk %s: its content has another id: %w", id, crypt.ErrDamaged)
	}
	return data, nil
}

type namerOf struct {
	*crypt.Namer
	generation uint32
}

// frame returns a frame's decompressed bytes, from the cache if it is there. Who
// asks for a frame that is being read waits for it.
func (r *Reader) frame(ctx context.Context, loc pack.Location) ([]byte, error) {
	id := frameID{loc.Pack, loc.Frame}
	r.mu.Lock()
	e, ok := r.frames[id]
	if ok {
		r.order.MoveToFront(e)
	} else {
		e = r.order.PushFront(&cachedFrame{id: id, size: int(loc.Raw)})
		r.frames[id] = e
		r.bytes += int(loc.Raw)
		for r.bytes > cacheBytes && r.order.Len() > 1 {
			r.drop(r.order.Back())
		}
	}
	f := e.Value.(*cachedFrame)
	r.mu.Unlock()
	f.load.Do(func() { f.raw, f.err = r.Packs.Frame(ctx, loc, nil) })
	if f.err != nil {
		r.mu.Lock()
		if r.frames[id] == e {
			r.drop(e)
		}
		r.mu.Unlock()
	}
	return f.raw, f.err
}

func (r *Reader) drop(e *list.Element) {
	f := r.order.Remove(e).(*cachedFrame)
	delete(r.frames, f.id)
	r.bytes -= f.size
}

// Nodes yields the nodes of a directory in order. The nodes may be kept.
func (r *Reader) Nodes(ctx context.Context, trees []chunk.ID) iter.Seq2[*tree.Node, error] {
	return func(yield func(*tree.Node, error) bool) {
		last := ""
		for _, id := range trees {
			raw, err := r.Chunk(ctx, id, pack.Tree)
			if err != nil {
				yield(nil, fmt.Errorf("read directory: %w", err))
				return
			}
			nodes, err := tree.ParseNodes(raw)
			if err == nil && len(nodes) > 0 && nodes[0].Name <= last {
				err = tree.ErrFormat
			}
			if err != nil {
				yield(nil, fmt.Errorf("read directory %s: %w", id, err))
				return
			}
			for i := range nodes {
				if !yield(&nodes[i], nil) {
					return
				}
			}
			if len(nodes) > 0 {
				last = nodes[len(nodes)-1].Name
			}
		}
	}
}

// maxDepth bounds how deep lists may refer to lists: more than any file needs.
const maxDepth = 8

// Extents yields the data and the holes of a file in order, lists resolved.
func (r *Reader) Extents(ctx context.Context, content []tree.Extent) iter.Seq2[tree.Extent, error] {
	return func(yield func(tree.Extent, error) bool) { r.extents(ctx, content, maxDepth, yield) }
}

func (r *Reader) extents(ctx context.Context, content []tree.Extent, depth int, yield func(tree.Extent, error) bool) bool {
	for _, e := range content {
		if e.Kind != tree.Listed {
			if !yield(e, nil) {
				return false
			}
			continue
		}
		inner, err := r.list(ctx, e, depth)
		if err != nil {
			yield(tree.Extent{}, err)
			return false
		}
		if !r.extents(ctx, inner, depth-1, yield) {
			return false
		}
	}
	return true
}

func (r *Reader) list(ctx context.Context, e tree.Extent, depth int) ([]tree.Extent, error) {
	if depth == 0 {
		return nil, fmt.Errorf("read list %s: lists are nested too deeply: %w", e.ID, tree.ErrFormat)
	}
	raw, err := r.Chunk(ctx, e.ID, pack.List)
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	inner, err := tree.ParseExtents(raw)
	if err != nil {
		return nil, fmt.Errorf("read list %s: %w", e.ID, err)
	}
	var sum uint64
	for _, i := range inner {
		sum += i.Length
	}
	if sum != e.Length {
		return nil, fmt.Errorf("read list %s: it has %d bytes instead of %d: %w", e.ID, sum, e.Length, tree.ErrFormat)
	}
	return inner, nil
}
