package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// health is what is known of a pack.
type health struct {
	named bool   // by an index that opens
	index string // the last that named it
	there bool   // in the listing
	err   error  // what is wrong with it
	// lost are the chunks that cannot be had from a pack that is damaged; nil: all.
	lost map[chunk.ID]struct{}
}

// has tells whether a chunk that the pack should have can be had from it.
func (h *health) has(id chunk.ID) bool {
	if h == nil {
		return false
	}
	if h.err == nil {
		return true
	}
	_, gone := h.lost[id]
	return h.lost != nil && !gone
}

// packWork is a pack to look into, and what an index says of it, if one does.
type packWork struct {
	id   pack.ID
	want *pack.Contents
}

// readPacks verifies every index object and every pack that is named or there.
func (v *verify) readPacks(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan packWork)
	group.Go(func() error {
		defer close(work)
		return v.listPacks(ctx, func(w packWork) error {
			select {
			case work <- w:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			w := packVerifier{verify: v}
			for next := range work {
				if err := w.look(ctx, next); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// listPacks lists packs, reads the indexes, and sends what is to be looked into.
func (v *verify) listPacks(ctx context.Context, send func(packWork) error) error {
	// Indexes before packs: whatever an index names was put before it, so a pack that
	// is named and not listed is gone, and not merely newer than the listing.
	var unlisted []packWork
	for name, err := range v.Item.Indexes(ctx) {
		if err != nil {
			return err
		}
		contents, err := v.Item.Index(ctx, name)
		if errors.Is(err, store.ErrNotExist) { // a prune wrote it anew since the listing
			continue
		}
		if err != nil {
			if ctx.Err() != nil || passing(err) {
				return err
			}
			v.mu.Lock()
			v.report.Indexes = append(v.report.Indexes, name)
			v.indexes = append(v.indexes, Finding{Object: v.Item.IndexKey(name), Err: err})
			v.mu.Unlock()
			continue
		}
		for i := range contents {
			id := contents[i].Pack
			v.name(id, name)
			switch {
			case v.only && !v.needs(id):
			case v.chosen(id):
				if err := send(packWork{id, &contents[i]}); err != nil {
					return err
				}
			default:
				unlisted = append(unlisted, packWork{id: id})
			}
		}
	}
	unnamed, err := v.listed(ctx)
	if err != nil {
		return err
	}
	for _, w := range unlisted {
		v.mu.Lock()
		if h := v.packs[w.id]; !h.there && h.err == nil {
			h.err = fmt.Errorf("pack %s: %w", w.id, store.ErrNotExist)
		}
		v.mu.Unlock()
	}
	for _, id := range unnamed {
		if v.chosen(id) && (!v.only || v.needs(id)) {
			if err := send(packWork{id: id}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *verify) needs(id pack.ID) bool {
	_, ok := v.needed[id]
	return ok
}

func (v *verify) chosen(id pack.ID) bool { return v.Read == nil || v.Read(id) }

// name notes that an index names a pack.
func (v *verify) name(id pack.ID, index string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h, ok := v.packs[id]
	if !ok {
		h = new(health)
		v.packs[id] = h
	}
	h.named, h.index = true, index
}

// listed notes the packs that are there, and returns those that no index names.
func (v *verify) listed(ctx context.Context) (unnamed []pack.ID, err error) {
	for id, err := range v.Item.Packs(ctx) {
		if err != nil {
			return nil, err
		}
		v.mu.Lock()
		h, ok := v.packs[id]
		if !ok {
			h = new(health)
			v.packs[id] = h
			unnamed = append(unnamed, id)
		}
		h.there = true
		v.mu.Unlock()
	}
	return unnamed, nil
}

// packVerifier is a goroutine's memory for verifying packs.
type packVerifier struct {
	*verify
	object, raw []byte
}

// look looks into one pack and notes how it is.
func (w *packVerifier) look(ctx context.Context, next packWork) error {
	lost, err := w.pack(ctx, next)
	if err != nil && (ctx.Err() != nil || passing(err)) {
		return err
	}
	w.mu.Lock()
	h := w.packs[next.id]
	if err != nil && h.err == nil { // a pack may be named twice
		h.err, h.lost = err, lost
	}
	w.mu.Unlock()
	w.Progress.Packs.Add(1)
	if w.Checked != nil && (err != nil || !w.Structure) {
		w.Checked(next.id, err)
	}
	return nil
}

// pack verifies one pack against what an index says of it. With an error it returns
// the chunks that cannot be had from it; nil for all of them.
func (w *packVerifier) pack(ctx context.Context, next packWork) (map[chunk.ID]struct{}, error) {
	have, err := w.Reader.Packs.Contents(ctx, next.id)
	if err == nil && next.want != nil && !have.Equal(*next.want) {
		err = fmt.Errorf("pack and index contradict each other: %w", crypt.ErrDamaged)
	}
	if err != nil && next.want == nil || w.Structure {
		return nil, err
	}
	if next.want != nil {
		have = *next.want
	}
	object, rerr := w.read(ctx, next.id)
	if rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	if err == nil {
		_, err = pack.Scrub(object)
	}
	lost, ferr := w.frames(ctx, have, object)
	switch {
	case ferr != nil:
		return nil, ferr
	case lost != nil:
		return lost.ids, cmp.Or(err, lost.err)
	}
	return make(map[chunk.ID]struct{}), err
}

// read reads a pack.
func (w *packVerifier) read(ctx context.Context, id pack.ID) ([]byte, error) {
	key := pack.Key(w.Item.ID(), id)
	info, err := w.Objects.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if info.Size > store.MaxObject {
		return nil, fmt.Errorf("it has %d bytes: %w", info.Size, crypt.ErrDamaged)
	}
	if int64(cap(w.object)) < info.Size {
		w.object = make([]byte, max(info.Size, pack.TargetSize+1<<20))
	}
	object := w.object[:info.Size]
	if err := w.Objects.Get(ctx, key, object, 0); err != nil {
		return nil, err
	}
	w.Progress.Bytes.Add(uint64(len(object)))
	return object, nil
}

// lostChunks are those that a pack does not give, and why the first does not.
type lostChunks struct {
	ids map[chunk.ID]struct{}
	err error
}

// frames opens every frame of a pack and checks every chunk in it. It returns nil if
// all are right. It overwrites object.
func (w *packVerifier) frames(ctx context.Context, c pack.Contents, object []byte) (*lostChunks, error) {
	var out *lostChunks
	var raw []byte
	var opened error
	frame := -1
	for id, loc := range c.Locations {
		if int(loc.Frame) != frame {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			frame = int(loc.Frame)
			if raw, opened = w.open(ctx, loc, object); opened != nil && passing(opened) {
				return nil, opened
			}
		}
		err := opened
		if err == nil {
			_, err = w.Reader.Cut(ctx, raw, loc, id)
		}
		if err == nil {
			w.Progress.Chunks.Add(1)
			continue
		}
		if out == nil {
			out = &lostChunks{ids: make(map[chunk.ID]struct{}), err: err}
		}
		out.ids[id] = struct{}{}
	}
	return out, nil
}

// open opens a frame of an object.
func (w *packVerifier) open(ctx context.Context, loc pack.Location, object []byte) ([]byte, error) {
	if uint64(loc.At)+uint64(loc.Stored) > uint64(len(object)) {
		return nil, fmt.Errorf("frame %d of pack %s: %w", loc.Frame, loc.Pack, store.ErrShort)
	}
	raw, err := w.Reader.Packs.Open(ctx, loc, object[loc.At:loc.At+loc.Stored], w.raw)
	if err == nil {
		w.raw = raw
	}
	return raw, err
}
