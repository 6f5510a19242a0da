package repair

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// salvage stores again what can still be had from the damaged packs that points need and
// is in no good one, under the generation that it is of: ids of chunks hang on that.
func (r *run) salvage(ctx context.Context) error {
	s := &salvager{run: r, reader: r.Item.NewReader(r.Index), compressor: chunk.NewCompressor(r.Level), index: r.indexWriter(), saved: make(map[chunk.ID]struct{})}
	for _, id := range r.needed {
		c, known, err := r.Index.Contents(ctx, id)
		if err == nil && !known {
			c, err = s.reader.Packs.Contents(ctx, id)
		}
		if err == nil {
			err = s.pack(ctx, c)
		}
		if err != nil && !catalog.Lost(err) {
			return fmt.Errorf("save what is left in pack %s: %w", id, err)
		}
	}
	if err := s.finish(ctx); err != nil {
		return fmt.Errorf("save what is left in damaged packs: %w", err)
	}
	if err := s.index.Flush(ctx); err != nil {
		return err
	}
	if s.packs > 0 {
		r.did("%s that damaged packs still gave, %s, stored in %s", control.Counted(len(s.saved), "chunk"), control.Size(int64(s.bytes)), control.Counted(s.packs, "new pack"))
	}
	return nil
}

// salvager fills packs with what is left.
type salvager struct {
	*run
	reader     *catalog.Reader
	compressor *chunk.Compressor
	builder    *pack.Builder // nil between packs
	generation uint32        // of the builder's pack
	index      catalog.IndexWriter
	packs      int // that were put
	saved      map[chunk.ID]struct{}
	bytes      int64

	raw     []byte // the frame that is open
	opened  error  // why it is not
	frame   pack.Frame
	out     []byte // what of it is saved
	scratch []byte
	memory  []byte
}

// pack saves what is left of one pack.
func (s *salvager) pack(ctx context.Context, c pack.Contents) error {
	at := -1
	for id, loc := range c.Locations {
		if at != int(loc.Frame) {
			if err := s.end(ctx, c.Generation); err != nil {
				return err
			}
			at = int(loc.Frame)
			s.raw, s.opened = s.reader.Packs.Frame(ctx, loc, s.raw)
			if s.opened != nil && !catalog.Lost(s.opened) {
				return s.opened
			}
			s.frame = pack.Frame{Type: loc.Type}
		}
		if s.opened != nil {
			continue
		}
		if err := s.chunk(ctx, id, loc); err != nil {
			return err
		}
	}
	return s.end(ctx, c.Generation)
}

// chunk takes a chunk of the open frame along, if it is right and in no good pack.
func (s *salvager) chunk(ctx context.Context, id chunk.ID, loc pack.Location) error {
	if _, done := s.saved[id]; done {
		return nil
	}
	places, err := s.Index.Places(ctx, id)
	if err != nil {
		return err
	}
	for _, other := range places {
		if !has(s.damaged, other.Pack) && !has(s.marked, other.Pack) {
			return nil
		}
	}
	data, err := s.reader.Cut(ctx, s.raw, loc, id)
	if err != nil {
		if catalog.Lost(err) {
			return nil
		}
		return err
	}
	s.out = append(s.out, data...)
	s.frame.Chunks = append(s.frame.Chunks, pack.Chunk{ID: id, Length: loc.Length})
	s.saved[id] = struct{}{}
	s.bytes += int64(len(data))
	return nil
}

// end seals what was taken of a frame into the current pack, or a new one.
func (s *salvager) end(ctx context.Context, generation uint32) error {
	if len(s.frame.Chunks) == 0 {
		return nil
	}
	if s.builder != nil && s.generation != generation {
		if err := s.finish(ctx); err != nil {
			return err
		}
	}
	body, codec := s.compressor.Compress(nil, s.out)
	s.frame.Codec, s.frame.Raw = codec, uint32(len(s.out))
	for {
		if s.builder == nil {
			secret, err := s.Item.Secret(ctx, generation)
			if err != nil {
				return err
			}
			s.builder, s.generation = pack.NewBuilder(secret, s.Item.ID(), generation, s.memory), generation
		}
		slot, ok := s.builder.Reserve(s.frame, len(body))
		if ok {
			var err error
			s.scratch, _, err = slot.Seal(body, s.scratch)
			s.out, s.frame.Chunks = s.out[:0], nil
			return err
		}
		if err := s.finish(ctx); err != nil {
			return err
		}
	}
}

// finish puts the current pack. A crash after it leaves a pack that no index names; the
// next repair finds it.
func (s *salvager) finish(ctx context.Context) error {
	if s.builder == nil {
		return nil
	}
	b := s.builder
	s.builder = nil
	b.Close()
	body, contents, err := b.Finish()
	if err != nil {
		return err
	}
	if err := s.Packs.Put(ctx, pack.Key(s.Item.ID(), contents.Pack), body, s.Options); err != nil {
		return err
	}
	s.memory = b.Buffer()
	s.packs++
	return s.index.Add(ctx, contents)
}
