package backup

import (
	"context"
	"sync"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// packer fills packs, puts the full ones, and makes them known: to the vault by
// index objects, to this host by the local index.
type packer struct {
	run     *run
	buffers chan []byte        // memory of packs; bounds how many there are at once
	full    chan *pack.Builder // sealed and waiting to be put

	mu      sync.Mutex
	current *pack.Builder

	usedMu sync.Mutex
	used   map[pack.ID]struct{} // packs that the new point needs
	made   map[pack.ID]struct{} // those that this backup put

	indexMu sync.Mutex
	index   catalog.IndexWriter
	indexed map[string]struct{} // index objects that this backup put
}

func newPacker(r *run) *packer {
	p := &packer{run: r, buffers: make(chan []byte, r.Uploads+1), full: make(chan *pack.Builder),
		used: make(map[pack.ID]struct{}), made: make(map[pack.ID]struct{}), indexed: make(map[string]struct{})}
	p.index = catalog.IndexWriter{Item: r.Item, Local: r.Index, Options: store.PutOptions{Retention: r.Retention}, Wrote: p.wrote}
	for range cap(p.buffers) {
		p.buffers <- nil // made when first taken
	}
	return p
}

// use notes that the point needs a pack.
func (p *packer) use(id pack.ID) {
	p.usedMu.Lock()
	defer p.usedMu.Unlock()
	p.used[id] = struct{}{}
}

// own tells whether this backup put a pack.
func (p *packer) own(id pack.ID) bool {
	p.usedMu.Lock()
	defer p.usedMu.Unlock()
	_, ok := p.made[id]
	return ok
}

// ownIndex tells whether this backup put an index object.
func (p *packer) ownIndex(name string) bool {
	p.indexMu.Lock()
	defer p.indexMu.Unlock()
	_, ok := p.indexed[name]
	return ok
}

// reserve finds a place for a frame: in the current pack, or in a new one if that
// is full.
func (p *packer) reserve(ctx context.Context, f pack.Frame, stored int) (pack.Slot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.current == nil {
			buf, err := take(ctx, p.buffers, pack.TargetSize)
			if err != nil {
				return pack.Slot{}, err
			}
			p.current = pack.NewBuilder(p.run.secret, p.run.Item.ID(), p.run.Item.Generation(), buf)
		}
		if slot, ok := p.current.Reserve(f, stored); ok {
			return slot, nil
		}
		if err := p.closeCurrent(ctx); err != nil {
			return pack.Slot{}, err
		}
	}
}

// closeCurrent ends the current pack. Whoever seals its last frame ships it.
func (p *packer) closeCurrent(ctx context.Context) error {
	b := p.current
	p.current = nil
	if b.Close() {
		return p.ship(ctx, b)
	}
	return nil
}

// ship hands a finished pack to the uploads.
func (p *packer) ship(ctx context.Context, b *pack.Builder) error {
	select {
	case p.full <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain ships the last pack, after all frames are sealed.
func (p *packer) drain(ctx context.Context) error {
	defer close(p.full)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return nil
	}
	return p.closeCurrent(ctx)
}

// upload puts packs until there are no more.
func (p *packer) upload(ctx context.Context) error {
	for b := range p.full {
		body, contents, err := b.Finish()
		if err != nil {
			return err
		}
		if err := p.run.Packs.Put(ctx, pack.Key(p.run.Item.ID(), contents.Pack), body, store.PutOptions{Retention: p.run.Retention}); err != nil {
			return err
		}
		// A crash here leaves a pack that no index names. The next run lists the
		// packs, reads its contents and uses them.
		p.run.Progress.Stored.Add(uint64(body.Size()))
		p.buffers <- b.Buffer()
		if err := p.known(ctx, contents); err != nil {
			return err
		}
	}
	return nil
}

// known has the contents of a pack that was put written to an index object, once there
// are enough.
func (p *packer) known(ctx context.Context, c pack.Contents) error {
	p.usedMu.Lock()
	p.used[c.Pack], p.made[c.Pack] = struct{}{}, struct{}{}
	p.usedMu.Unlock()
	p.indexMu.Lock()
	defer p.indexMu.Unlock()
	return p.index.Add(ctx, c)
}

// finish writes the last index object.
func (p *packer) finish(ctx context.Context) error {
	p.indexMu.Lock()
	defer p.indexMu.Unlock()
	left, err := p.run.Index.Unsourced(ctx)
	if err != nil {
		return err
	}
	for _, c := range left { // found after an interrupted backup
		if p.run.avoid.has(c.Pack) { // nobody is to find one again that a prune removes
			continue
		}
		if err := p.index.Add(ctx, c); err != nil {
			return err
		}
	}
	return p.index.Flush(ctx)
}

// wrote notes an index object. indexMu is held.
func (p *packer) wrote(name string, size int64, contents []pack.Contents) {
	p.indexed[name] = struct{}{}
	p.run.Progress.Stored.Add(uint64(size))
	p.run.claims.settle(contents)
}
