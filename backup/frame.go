package backup

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// frameSize is about how much plaintext shares a frame, in bytes. Larger ones
// compress little better and cost a restore of a single file more.
const frameSize = 1 << 20

// pools bound the memory of a backup. Whoever takes a buffer puts it back.
type pools struct {
	frames, chunks chan []byte
}

// frameRoom is how much a frame buffer holds: frames are cut before they exceed it.
const frameRoom = frameSize + smallSize/2

func newPools(workers, walkers int) pools {
	p := pools{
		// A walker may hold one of each type while it wants another.
		frames: make(chan []byte, 3*walkers+workers+1),
		chunks: make(chan []byte, workers+3),
	}
	for range cap(p.frames) {
		p.frames <- nil // made when first taken
	}
	for range cap(p.chunks) {
		p.chunks <- nil
	}
	return p
}

func (p pools) chunk(ctx context.Context) ([]byte, error) {
	return take(ctx, p.chunks, chunkRoom)
}

// chunkRoom is the size of the largest chunk of a large file.
var chunkRoom = chunk.NewContentDefined(0x3DA3358B4DC173).Max()

func (p pools) putChunk(b []byte) { p.chunks <- b[:0] }

func take(ctx context.Context, pool chan []byte, size int) ([]byte, error) {
	select {
	case b := <-pool:
		if b == nil {
			b = make([]byte, 0, size)
		}
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// task is a frame for a worker: gathered chunks that are named and known to be
// new, or one large chunk that is not named yet.
type task struct {
	typ    pack.FrameType
	raw    []byte
	chunks []pack.Chunk    // gathered
	named  chan<- chunk.ID // one large chunk: where its id goes; has room for it
}

func (r *run) submit(ctx context.Context, t task) error {
	select {
	case r.work <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gather collects small new chunks into a frame.
type gather struct {
	walker *walker
	typ    pack.FrameType
	raw    []byte
	chunks []pack.Chunk
}

// gather returns the walker's frame of a type, with room for n bytes if a frame
// has so much.
func (w *walker) gather(ctx context.Context, typ pack.FrameType, n int) (*gather, error) {
	g := w.gathers[typ]
	if g == nil {
		g = &gather{walker: w, typ: typ}
		w.gathers[typ] = g
	}
	if len(g.raw) > 0 && len(g.raw)+n > frameRoom {
		if err := g.flush(ctx); err != nil {
			return nil, err
		}
	}
	if g.raw == nil {
		raw, err := take(ctx, w.run.pools.frames, frameRoom)
		if err != nil {
			return nil, err
		}
		g.raw = raw
	}
	return g, nil
}

// space is where the next n bytes go; take then says how many of them it were.
func (g *gather) space(n int) []byte { return g.raw[len(g.raw) : len(g.raw)+n] }

// take names the next n bytes and keeps them unless the vault has them.
func (g *gather) take(ctx context.Context, n int) (chunk.ID, error) {
	data := g.space(n)
	id := g.walker.namer.ID(data)
	fresh, err := g.walker.run.claim(ctx, id, n)
	if err != nil || !fresh {
		return id, err
	}
	g.raw = g.raw[:len(g.raw)+n]
	g.chunks = append(g.chunks, pack.Chunk{ID: id, Length: uint32(n)})
	if len(g.raw) >= frameSize {
		err = g.flush(ctx)
	}
	return id, err
}

// flush sends the frame on its way. A nil or empty gather has nothing to send.
func (g *gather) flush(ctx context.Context) error {
	if g == nil || len(g.raw) == 0 {
		return nil
	}
	t := task{typ: g.typ, raw: g.raw, chunks: g.chunks}
	g.raw, g.chunks = nil, make([]pack.Chunk, 0, len(g.chunks))
	return g.walker.run.submit(ctx, t)
}

// save names a small chunk and keeps it unless the vault has it. It does not keep
// data.
func (h *holder) save(ctx context.Context, typ pack.FrameType, data []byte) (chunk.ID, error) {
	if len(data) > frameRoom { // a directory of giants: a frame of its own
		id := h.namer.ID(data)
		fresh, err := h.run.claim(ctx, id, len(data))
		if err != nil || !fresh {
			return id, err
		}
		return id, h.run.submit(ctx, task{typ: typ, raw: append([]byte(nil), data...),
			chunks: []pack.Chunk{{ID: id, Length: uint32(len(data))}}})
	}
	g, err := h.gather(ctx, typ, len(data))
	if err != nil {
		return chunk.ID{}, err
	}
	copy(g.space(len(data)), data)
	return g.take(ctx, len(data))
}

// worker compresses and seals frames.
type worker struct {
	run        *run
	namer      *crypt.Namer
	compressor *chunk.Compressor
	compressed []byte
	opened     []byte

	decompressor *chunk.Decompressor // to look at what was compressed; nil at the fastest level
	raw          []byte
}

func newWorker(r *run) (*worker, error) {
	namer, err := r.secret.Namer()
	if err != nil {
		return nil, err
	}
	w := &worker{run: r, namer: namer, compressor: chunk.NewCompressor(r.Level)}
	if r.Level != chunk.Fastest {
		w.decompressor = chunk.NewDecompressor()
	}
	return w, nil
}

func (w *worker) work(ctx context.Context) error {
	for t := range w.run.work {
		if err := w.frame(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// frame carries one frame into a pack: known? -> compress -> seal.
func (w *worker) frame(ctx context.Context, t task) error {
	r := w.run
	defer r.pools.put(t)
	if t.named != nil {
		id := w.namer.ID(t.raw)
		t.named <- id
		fresh, err := r.claim(ctx, id, len(t.raw))
		if err != nil || !fresh {
			return err
		}
		t.chunks = []pack.Chunk{{ID: id, Length: uint32(len(t.raw))}}
	}
	if cap(w.compressed) < len(t.raw) {
		w.compressed = make([]byte, 0, len(t.raw)+len(t.raw)/64)
	}
	body, codec := w.compressor.Compress(w.compressed, t.raw)
	if err := w.decompresses(body, codec, t.raw); err != nil {
		return err
	}
	f := pack.Frame{Type: t.typ, Codec: codec, Raw: uint32(len(t.raw)), Chunks: t.chunks}
	slot, err := r.packer.reserve(ctx, f, len(body))
	if err != nil {
		return err
	}
	opened, last, err := slot.Seal(body, w.opened)
	w.opened = opened
	if err != nil || !last {
		return err
	}
	return r.packer.ship(ctx, slot.Pack())
}

// decompresses checks that a frame decompresses to what it was. The fastest level
// does without: there the check would cost a fifth of a backup's time.
func (w *worker) decompresses(body []byte, codec chunk.Codec, raw []byte) error {
	if w.decompressor == nil || codec == chunk.Stored {
		return nil
	}
	out, err := w.decompressor.Decompress(w.raw, body, codec, len(raw))
	if err == nil && !bytes.Equal(out, raw) {
		err = chunk.ErrSize
	}
	if err != nil {
		return fmt.Errorf("frame does not decompress to what was compressed, so nothing of it was stored: back up with compression: fastest, and report it: %w", err)
	}
	w.raw = out
	return nil
}

func (p pools) put(t task) {
	switch {
	case t.named != nil:
		p.chunks <- t.raw[:0]
	case cap(t.raw) == frameRoom:
		p.frames <- t.raw[:0]
	}
}

// claims are the chunks that are on their way: claimed by whoever met them first
// and not in the local index yet.
type claims struct {
	shards [64]struct {
		mu  sync.Mutex
		ids map[chunk.ID]struct{}
	}
}

func newClaims() *claims {
	c := new(claims)
	for i := range c.shards {
		c.shards[i].ids = make(map[chunk.ID]struct{})
	}
	return c
}

// claim tells whether a chunk of n bytes is new, and if so, that the caller is
// the one to store it.
func (r *run) claim(ctx context.Context, id chunk.ID, n int) (fresh bool, err error) {
	s := &r.claims.shards[id[0]%64]
	s.mu.Lock()
	_, pending := s.ids[id]
	s.mu.Unlock()
	if pending {
		return false, nil
	}
	loc, known, err := r.find(ctx, id)
	if err != nil {
		return false, err
	}
	if known {
		r.packer.use(loc.Pack)
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, pending := s.ids[id]; pending {
		return false, nil
	}
	s.ids[id] = struct{}{}
	r.Progress.New.Add(uint64(n))
	return true, nil
}

// settle forgets claims whose chunks the local index has now.
func (c *claims) settle(contents []pack.Contents) {
	for _, p := range contents {
		for _, f := range p.Frames {
			for i := range f.Chunks {
				id := f.Chunks[i].ID
				s := &c.shards[id[0]%64]
				s.mu.Lock()
				delete(s.ids, id)
				s.mu.Unlock()
			}
		}
	}
}
