package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// worn is a pack of which little is needed.
type worn struct {
	contents   pack.Contents
	live       []bool // by frame
	need, size int64  // bytes
}

// repack rewrites packs of which little is needed, the worst first, and writes down for
// which points the new ones stand for them. The old ones are marked from then on.
//
// It is a session of its own: whoever would mark the new packs as nobody's waits until
// it is decided, and the record decides it with the put that makes it count. Nothing is
// rewritten unless points have gone since: only then is there something to gain.
func (r *run) repack(ctx context.Context) error {
	if r.RepackBelow <= 0 || r.DryRun || len(r.seen.removed) == 0 {
		return nil
	}
	points, err := r.keptPoints(ctx)
	var found []worn
	if err == nil && len(points) > 0 {
		found, err = r.worst(ctx, points)
	}
	if err == nil && len(found) > 0 {
		err = r.replace(ctx, points, found)
	}
	switch {
	case errors.Is(err, catalog.ErrVoided), errors.Is(err, store.ErrNotExist):
		r.Log.Warn("packs not rewritten: another prune was at them", "item", r.Item.Name(), "err", err)
		return nil
	case catalog.Unreadable(err): // nothing is lost by not doing it
		r.Log.Warn("packs not rewritten: something that a point needs cannot be read; see coffer verify", "item", r.Item.Name(), "err", err)
		return nil
	case err != nil:
		return fmt.Errorf("repack: %w", err)
	}
	return r.again(ctx)
}

// replace rewrites packs, as a session.
func (r *run) replace(ctx context.Context, points []*catalog.Point, found []worn) error {
	session := catalog.NewSession(r.now, r.Host)
	_, _, id, err := catalog.ParsePointName(string(session.Name))
	if err != nil {
		return err
	}
	// A crash, or an error, from here on leaves a session that the next run of this host
	// gives up.
	if err := r.Index.SetNotes(ctx, catalog.NoteRepack, map[pack.ID]int64{id: session.Name.Time().UnixMilli()}); err != nil {
		return err
	}
	if err := r.Item.Announce(ctx, session); err != nil {
		return err
	}
	r.own = append(r.own, session.Name)
	record, err := r.rewrite(ctx, points, found)
	if err == nil {
		// A crash before this leaves packs that no point needs.
		err = r.Item.PutRepack(ctx, session.Name, record)
	}
	if err != nil {
		return err
	}
	r.done.RepackedPacks = int64(len(record.Replaced))
	if _, err := r.del.object(ctx, r.Item.SessionKey(session.Name), 0); err != nil {
		return err
	}
	return r.Index.SetNotes(ctx, catalog.NoteRepack, map[pack.ID]int64{id: 0})
}

// again looks at what points need once more, with the new record.
func (r *run) again(ctx context.Context) (err error) {
	if r.done.RepackedPacks == 0 {
		return nil
	}
	if r.seen.repacks, err = r.Item.Repacks(ctx); err != nil {
		return err
	}
	return r.needs(ctx, r.seen)
}

// rewrite copies what is needed of worn packs, but of those that have been marked since:
// their time is running already.
func (r *run) rewrite(ctx context.Context, points []*catalog.Point, found []worn) (*catalog.Repack, error) {
	marked, err := r.marked(ctx)
	if err != nil {
		return nil, err
	}
	record := &catalog.Repack{}
	w := &rewriter{run: r, reader: r.Item.NewReader(r.Index), compressor: chunk.NewCompressor(chunk.Default), index: r.indexWriter()}
	for _, p := range found {
		if i, ok := r.seen.packs.place(p.contents.Pack); ok && marked.has(i) {
			continue
		}
		if err := w.copy(ctx, p); err != nil {
			return nil, err
		}
		record.Replaced = append(record.Replaced, p.contents.Pack)
	}
	if record.By, err = w.finish(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(record.Replaced, comparePacks)
	for _, p := range points {
		if slices.ContainsFunc(r.seen.repacks.PacksOf(p), func(id pack.ID) bool {
			_, is := slices.BinarySearchFunc(record.Replaced, id, comparePacks)
			return is
		}) {
			record.Points = append(record.Points, p.Name)
		}
	}
	return record, nil
}

// marked returns the packs that marks name now.
func (r *run) marked(ctx context.Context) (packSet, error) {
	marks, err := r.Item.Marks(ctx)
	if err != nil {
		return nil, err
	}
	marked := newPackSet(len(r.seen.packs.ids))
	for _, m := range marks {
		for i := range r.seen.packs.places(m.Packs) {
			marked.add(i)
		}
	}
	return marked, nil
}

// keptPoints reads the points that stay.
func (r *run) keptPoints(ctx context.Context) ([]*catalog.Point, error) {
	var points []*catalog.Point
	for _, s := range r.seen.points {
		if _, going := r.seen.going[s.Name]; going {
			continue
		}
		p, err := r.Item.Point(ctx, s.Name)
		if errors.Is(err, catalog.ErrNoPoint) {
			continue
		}
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

// worst returns the packs that are worth rewriting, as many as the budget allows.
func (r *run) worst(ctx context.Context, points []*catalog.Point) ([]worn, error) {
	s := r.seen
	live, err := r.alive(ctx, points)
	if err != nil {
		return nil, err
	}
	marked, err := r.marked(ctx)
	if err != nil {
		return nil, err
	}
	var found []worn
	for i, id := range s.packs.ids {
		if !s.kept.has(i) || marked.has(i) {
			continue
		}
		c, ok, err := r.Index.Contents(ctx, id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		w := worn{contents: c, live: live.frames(c)}
		for n, f := range c.Frames {
			w.size += int64(f.Stored)
			if w.live[n] {
				w.need += int64(f.Stored)
			}
		}
		if w.need*100 < w.size*int64(r.RepackBelow) {
			found = append(found, w)
		}
	}
	slices.SortFunc(found, func(a, b worn) int { return cmp.Compare(a.need*b.size, b.need*a.size) })
	budget, n := r.RepackMost, 0
	for n < len(found) && n < catalog.MaxMarked && budget >= found[n].need {
		budget -= found[n].need
		n++
	}
	return found[:n], nil
}

// rewriter copies frames into new packs, one at a time for each generation.
type rewriter struct {
	*run
	reader     *catalog.Reader
	compressor *chunk.Compressor
	index      *catalog.IndexWriter
	builders   []*building
	by         []pack.ID
	scratch    []byte
}

type building struct {
	generation uint32
	secret     *crypt.Secret
	pack       *pack.Builder
}

// copy copies the frames of a pack that are needed. Every chunk is compared with its
// id, so that no damage is carried over.
func (w *rewriter) copy(ctx context.Context, p worn) error {
	at := uint32(crypt.HeaderSize)
	for i, f := range p.contents.Frames {
		loc := pack.Location{Pack: p.contents.Pack, Generation: p.contents.Generation, Type: f.Type, Codec: f.Codec,
			Frame: uint32(i), At: at, Stored: f.Stored, Raw: f.Raw}
		at += f.Stored
		if !p.live[i] {
			continue
		}
		raw, err := w.reader.Packs.Frame(ctx, loc, nil)
		if err != nil {
			return err
		}
		w.Progress.Read.Add(int64(f.Stored))
		for _, ch := range f.Chunks {
			loc.Length = ch.Length
			if _, err := w.reader.Cut(ctx, raw, loc, ch.ID); err != nil {
				return err
			}
			loc.Offset += ch.Length
		}
		if err := w.seal(ctx, p.contents.Generation, f, raw); err != nil {
			return err
		}
	}
	return nil
}

// seal puts a frame into a new pack of its generation.
func (w *rewriter) seal(ctx context.Context, generation uint32, f pack.Frame, raw []byte) error {
	b, err := w.building(ctx, generation)
	if err != nil {
		return err
	}
	compressed, codec := w.compressor.Compress(nil, raw)
	f.Codec = codec
	slot, ok := b.pack.Reserve(f, len(compressed))
	if !ok {
		if err := w.put(ctx, b); err != nil {
			return err
		}
		return w.seal(ctx, generation, f, raw)
	}
	w.scratch, _, err = slot.Seal(compressed, w.scratch)
	return err
}

func (w *rewriter) building(ctx context.Context, generation uint32) (*building, error) {
	i := slices.IndexFunc(w.builders, func(b *building) bool { return b.generation == generation })
	if i < 0 {
		secret, err := w.Item.Secret(ctx, generation)
		if err != nil {
			return nil, err
		}
		i = len(w.builders)
		w.builders = append(w.builders, &building{generation: generation, secret: secret})
	}
	if b := w.builders[i]; b.pack == nil {
		b.pack = pack.NewBuilder(b.secret, w.Item.ID(), generation, nil)
	}
	return w.builders[i], nil
}

// put puts a pack that is full, and notes it for the index.
func (w *rewriter) put(ctx context.Context, b *building) error {
	b.pack.Close()
	body, contents, err := b.pack.Finish()
	if err != nil {
		return err
	}
	b.pack = nil
	if err := w.Store.Put(ctx, w.key(contents.Pack), body, store.PutOptions{Retention: w.Lock}); err != nil {
		return fmt.Errorf("put pack %s: %w", contents.Pack, err)
	}
	w.done.RepackedBytes += body.Size()
	w.by = append(w.by, contents.Pack)
	return w.index.Add(ctx, contents)
}

// finish puts what is left and returns the packs.
func (w *rewriter) finish(ctx context.Context) ([]pack.ID, error) {
	for _, b := range w.builders {
		if b.pack == nil {
			continue
		}
		if err := w.put(ctx, b); err != nil {
			return nil, err
		}
	}
	if err := w.index.Flush(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(w.by, comparePacks)
	return w.by, nil
}
