package pack

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fxamacker/cbor/v2"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// TargetSize is the size at which a pack is full, in bytes: its header and frames.
const TargetSize = 16 << 20

// Builder assembles one pack in memory. Frames are reserved one by one and sealed
// concurrently, each into its place, so that no lock is held while sealing.
type Builder struct {
	id     ID
	sealer *crypt.Object

	mu       sync.Mutex
	contents Contents
	buf      []byte // header and frames; len is what has been reserved
	closed   bool

	open atomic.Int64 // frames reserved and not sealed, and 1 until Close
}

// NewBuilder begins a pack of the item in buf's memory, which is TargetSize bytes
// or nil, and belongs to the builder until Finish.
func NewBuilder(s *crypt.Secret, item crypt.ItemID, generation uint32, buf []byte) *Builder {
	b := new(Builder)
	rand.Read(b.id[:])
	sealer, header := s.NewObject(crypt.Place{Kind: crypt.Pack, Item: item, Generation: generation, ID: b.id})
	if cap(buf) < TargetSize {
		buf = make([]byte, 0, TargetSize)
	}
	b.sealer = sealer
	b.open.Store(1)
	b.buf = append(buf[:0], header...)
	b.contents = Contents{Pack: b.id, Generation: generation}
	return b
}

// Slot is a reserved place for one frame.
type Slot struct {
	b      *Builder
	index  uint32
	typ    FrameType
	region []byte // exactly the sealed size
}

// Reserve takes the next place for a frame whose compressed form has stored
// bytes. ok is false if the pack is full: then it takes nothing more, and the
// caller closes it and begins another.
func (b *Builder) Reserve(f Frame, stored int) (slot Slot, ok bool) {
	size := stored + crypt.Overhead
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || (len(b.buf)+size > cap(b.buf) && len(b.contents.Frames) > 0) {
		b.closed = true
		return Slot{}, false
	}
	if len(b.buf)+size > cap(b.buf) { // a single frame larger than a pack
		b.buf = append(make([]byte, 0, len(b.buf)+size), b.buf...)
	}
	at := len(b.buf)
	b.buf = b.buf[:at+size]
	f.Stored = uint32(size)
	b.contents.Frames = append(b.contents.Frames, f)
	b.open.Add(1)
	return Slot{b: b, index: uint32(len(b.contents.Frames) - 1), typ: f.Type, region: b.buf[at : at+size : at+size]}, true
}

// Pack returns the builder that the slot is of.
func (s Slot) Pack() *Builder { return s.b }

// Seal seals compressed into the slot, opens it again into scratch and compares.
// It returns scratch, perhaps grown, for the next time. last tells that the pack
// is closed and this was its last frame: the caller now finishes it.
func (s Slot) Seal(compressed, scratch []byte) (_ []byte, last bool, err error) {
	sealed, err := s.b.sealer.Seal(s.region[:0], compressed, s.index, byte(s.typ))
	if err != nil {
		return scratch, false, fmt.Errorf("frame %d of pack %s: %w", s.index, s.b.id, err)
	}
	again, err := s.b.sealer.Open(scratch[:0], sealed, s.index, byte(s.typ))
	if errors.Is(err, crypt.ErrClosed) {
		return scratch, false, fmt.Errorf("frame %d of pack %s: %w", s.index, s.b.id, err)
	}
	if err != nil || len(sealed) != len(s.region) || !bytes.Equal(again, compressed) {
		return scratch, false, fmt.Errorf("frame %d of pack %s does not open to what was sealed: check this machine's memory: %w", s.index, s.b.id, crypt.ErrDamaged)
	}
	return again, s.b.open.Add(-1) == 0, nil
}

// Close lets no more frames in. last tells that all frames are sealed: the caller
// now finishes the pack. It is called once.
func (b *Builder) Close() (last bool) {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.open.Add(-1) == 0
}

// Finish completes the pack: its bytes, which stay valid until the buffer is used
// again, and what it holds. The pack is closed and idle.
func (b *Builder) Finish() (store.Body, Contents, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed || b.open.Load() != 0 {
		return nil, Contents{}, fmt.Errorf("finish pack %s: frames are still being sealed", b.id)
	}
	table, err := encoding.Marshal(b.contents)
	if err != nil {
		return nil, Contents{}, fmt.Errorf("encode contents of pack %s: %w", b.id, err)
	}
	if len(table) > MaxPayload {
		return nil, Contents{}, fmt.Errorf("contents of pack %s: %d bytes are above the limit of %d", b.id, len(table), MaxPayload)
	}
	frames := len(b.buf)
	object, err := appendPayload(b.buf, b.sealer, table, nil)
	if err != nil {
		return nil, Contents{}, fmt.Errorf("seal contents of pack %s: %w", b.id, err)
	}
	object = appendTail(object, len(object)-frames)
	return store.Body{object}, b.contents, nil
}

// Buffer returns the memory of a finished pack for the next one.
func (b *Builder) Buffer() []byte { return b.buf[:0] }

// encoding is RFC 8949, 4.2.1: equal values make equal bytes.
var encoding = func() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.NilContainers = cbor.NilContainerAsEmpty
	m, err := opts.EncMode()
	if err != nil {
		panic("pack: internal error: " + err.Error())
	}
	return m
}()

var decoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		MaxArrayElements: 1 << 22,
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		panic("pack: internal error: " + err.Error())
	}
	return m
}()

// EncodeContents encodes what packs hold, for index objects.
func EncodeContents(c []Contents) ([]byte, error) { return encoding.Marshal(c) }

// DecodeContents is the inverse of EncodeContents; every number is checked, and
// nothing else is taken.
func DecodeContents(b []byte) ([]Contents, error) {
	var c []Contents
	if err := decoding.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	rest := b // without the contents that are in their one encoding
	for i := range slices.Backward(c) {
		if err := c[i].check(); err != nil {
			return nil, fmt.Errorf("decode index: pack %s: %w", c[i].Pack, err)
		}
		one, err := encoding.Marshal(c[i])
		if err != nil {
			return nil, fmt.Errorf("decode index: %w", err)
		}
		rest = bytes.TrimSuffix(rest, one)
	}
	head, err := encoding.Marshal(len(c))
	if err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	head[0] |= 4 << 5 // of an array and not of a number
	if !bytes.Equal(rest, head) {
		return nil, fmt.Errorf("decode index: %w: %w", errEncoding, crypt.ErrDamaged)
	}
	return c, nil
}

var errEncoding = errors.New("encoding is not the deterministic one")

// decodeTable reads a table of contents, whose numbers are not checked yet.
func decodeTable(b []byte) (c Contents, err error) {
	if err := decoding.Unmarshal(b, &c); err != nil {
		return c, err
	}
	if again, err := encoding.Marshal(c); err != nil || !bytes.Equal(again, b) {
		return c, fmt.Errorf("%w: %w", errEncoding, crypt.ErrDamaged)
	}
	return c, nil
}

// check tells whether the numbers of a table of contents agree with each other.
func (c *Contents) check() error {
	at := uint64(crypt.HeaderSize)
	for i, f := range c.Frames {
		var raw uint64
		for _, ch := range f.Chunks {
			if ch.Length == 0 || ch.Length > chunk.MaxSize {
				return fmt.Errorf("frame %d: chunk of %d bytes: %w", i, ch.Length, crypt.ErrDamaged)
			}
			raw += uint64(ch.Length)
		}
		at += uint64(f.Stored)
		if raw != uint64(f.Raw) || f.Raw > chunk.MaxFrame || f.Stored < crypt.Overhead || at > store.MaxObject || len(f.Chunks) == 0 {
			return fmt.Errorf("frame %d: lengths contradict each other: %w", i, crypt.ErrDamaged)
		}
	}
	return nil
}

// Locations yields where every chunk of the pack is, in order.
func (c *Contents) Locations(yield func(chunk.ID, Location) bool) {
	at := uint32(crypt.HeaderSize)
	for i := range c.Frames {
		f := &c.Frames[i]
		loc := Location{Pack: c.Pack, Generation: c.Generation, Type: f.Type, Codec: f.Codec,
			Frame: uint32(i), At: at, Stored: f.Stored, Raw: f.Raw}
		for _, ch := range f.Chunks {
			loc.Length = ch.Length
			if !yield(ch.ID, loc) {
				return
			}
			loc.Offset += ch.Length
		}
		at += f.Stored
	}
}

// Equal tells whether two tables of contents say the same.
func (c Contents) Equal(d Contents) bool {
	return c.Pack == d.Pack && c.Generation == d.Generation && slices.EqualFunc(c.Frames, d.Frames, func(a, b Frame) bool {
		return a.Type == b.Type && a.Codec == b.Codec && a.Stored == b.Stored && a.Raw == b.Raw && slices.Equal(a.Chunks, b.Chunks)
	})
}
