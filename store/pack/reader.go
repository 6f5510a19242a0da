package pack

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// Secrets finds the item's secret of a generation.
type Secrets interface {
	Secret(ctx context.Context, generation uint32) (*crypt.Secret, error)
}

// Key returns the object key of a pack of the item.
func Key(item crypt.ItemID, id ID) store.Key {
	name := id.String()
	return store.Key(Prefix(item)) + store.Key(name[:2]+"/"+name)
}

// Prefix is what the keys of all packs of the item begin with.
func Prefix(item crypt.ItemID) store.Key {
	return store.Key("items/" + item.String() + "/packs/")
}

// Reader reads frames of an item's packs. It is safe for concurrent use.
type Reader struct {
	get     store.Getter
	secrets Secrets
	item    crypt.ItemID
	dec     *chunk.Decompressor

	mu     sync.Mutex
	opened map[ID]*list.Element // of *openedPack
	order  *list.List           // most recently used first
}

type openedPack struct {
	id         ID
	generation uint32
	object     *crypt.Object
}

// keepOpen is how many packs' keys a reader remembers.
const keepOpen = 512

// NewReader returns a reader of the item's packs.
func NewReader(get store.Getter, secrets Secrets, item crypt.ItemID) *Reader {
	return &Reader{get: get, secrets: secrets, item: item, dec: chunk.NewDecompressor(),
		opened: make(map[ID]*list.Element), order: list.New()}
}

// Frame reads, opens and decompresses the frame that loc is in, into buf's memory
// if that is large enough.
func (r *Reader) Frame(ctx context.Context, loc Location, buf []byte) ([]byte, error) {
	sealed := make([]byte, loc.Stored)
	if err := r.Read(ctx, loc, sealed); err != nil {
		return nil, err
	}
	return r.Open(ctx, loc, sealed, buf)
}

// Read fills sealed with the bytes of a pack from the frame that loc is in on: one
// frame, or several that follow each other.
func (r *Reader) Read(ctx context.Context, loc Location, sealed []byte) error {
	if err := r.get.Get(ctx, Key(r.item, loc.Pack), sealed, int64(loc.At)); err != nil {
		return fmt.Errorf("read frame %d of pack %s: %w", loc.Frame, loc.Pack, err)
	}
	return nil
}

// Open opens and decompresses a frame that has been read. It overwrites sealed and
// buf; the result is in buf's memory, with all of its capacity, if that is large
// enough.
func (r *Reader) Open(ctx context.Context, loc Location, sealed, buf []byte) ([]byte, error) {
	object, err := r.object(ctx, loc.Pack, loc.Generation)
	if err != nil {
		return nil, fmt.Errorf("open pack %s: %w", loc.Pack, err)
	}
	dst := sealed[:0]
	if loc.Codec == chunk.Stored {
		if dst = buf[:0]; cap(dst) < int(loc.Raw) {
			dst = make([]byte, 0, loc.Raw)
		}
	}
	compressed, err := object.Open(dst, sealed, loc.Frame, byte(loc.Type))
	if err != nil {
		return nil, r.named(loc, err)
	}
	raw, err := r.dec.Decompress(buf, compressed, loc.Codec, int(loc.Raw))
	return raw, r.named(loc, err)
}

func (r *Reader) named(loc Location, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("open frame %d of pack %s: %w", loc.Frame, loc.Pack, err)
}

// object returns the key of a pack, from its header.
func (r *Reader) object(ctx context.Context, id ID, generation uint32) (*crypt.Object, error) {
	r.mu.Lock()
	if e, ok := r.opened[id]; ok && e.Value.(*openedPack).generation == generation {
		r.order.MoveToFront(e)
		object := e.Value.(*openedPack).object
		r.mu.Unlock()
		return object, nil
	}
	r.mu.Unlock()

	header := make([]byte, crypt.HeaderSize)
	if err := r.get.Get(ctx, Key(r.item, id), header, 0); err != nil {
		return nil, err
	}
	secret, err := r.secrets.Secret(ctx, generation)
	if err != nil {
		return nil, err
	}
	object, err := secret.OpenObject(crypt.Place{Kind: crypt.Pack, Item: r.item, Generation: generation, ID: id}, header)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.opened[id]; !ok {
		r.opened[id] = r.order.PushFront(&openedPack{id: id, generation: generation, object: object})
		if r.order.Len() > keepOpen {
			delete(r.opened, r.order.Remove(r.order.Back()).(*openedPack).id)
		}
	}
	return object, nil
}

// Contents reads a pack's own table of contents.
func (r *Reader) Contents(ctx context.Context, id ID) (Contents, error) {
	wrap := func(err error) (Contents, error) {
		return Contents{}, fmt.Errorf("read contents of pack %s: %w", id, err)
	}
	key := Key(r.item, id)
	info, err := r.get.Stat(ctx, key)
	if err != nil {
		return wrap(err)
	}
	if info.Size < crypt.HeaderSize+footerSize || info.Size > store.MaxObject {
		return wrap(fmt.Errorf("object of %d bytes: %w", info.Size, crypt.ErrDamaged))
	}
	end := make([]byte, footerSize)
	if err := r.get.Get(ctx, key, end, info.Size-footerSize); err != nil {
		return wrap(err)
	}
	f, err := parseFooter(end, info.Size)
	if err != nil {
		return wrap(err)
	}
	header, sealed := make([]byte, crypt.HeaderSize), make([]byte, f.payloadLen)
	if err := r.get.Get(ctx, key, header, 0); err != nil {
		return wrap(err)
	}
	if err := r.get.Get(ctx, key, sealed, f.payloadAt); err != nil {
		return wrap(err)
	}
	h, err := crypt.ParseHeader(header)
	if err != nil {
		return wrap(err)
	}
	secret, err := r.secrets.Secret(ctx, h.Generation)
	if err != nil {
		return wrap(err)
	}
	object, err := secret.OpenObject(crypt.Place{Kind: crypt.Pack, Item: r.item, Generation: h.Generation, ID: id}, header)
	if err != nil {
		return wrap(err)
	}
	table, err := openPayload(object, sealed)
	if err != nil {
		return wrap(err)
	}
	c, err := decodeTable(table)
	if err != nil {
		return wrap(err)
	}
	if c.Pack != id || c.Generation != h.Generation {
		return wrap(fmt.Errorf("contents are those of another pack: %w", crypt.ErrDamaged))
	}
	if err := c.check(); err != nil {
		return wrap(err)
	}
	if n := len(c.Frames); n == 0 || c.framesEnd() != f.payloadAt {
		return wrap(fmt.Errorf("frames do not fill the pack: %w", crypt.ErrDamaged))
	}
	return c, nil
}

func (c *Contents) framesEnd() int64 {
	at := int64(crypt.HeaderSize)
	for i := range c.Frames {
		at += int64(c.Frames[i].Stored)
	}
	return at
}
