package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// A part is up to partChunks consecutive chunks of one pack with all that Lookup
// has to say of them. Its blob, integers little-endian:
//
//	checksum 4 | pack id 16 | generation 4 | number of chunks 2 | chunk ids, 32 each |
//	uvarints: index of the first frame, its offset in the pack, offset of the first
//	          chunk in it, number of frames |
//	per frame: type 1, codec 1, uvarints: stored, raw, number of chunks here, their lengths
const (
	partChunks = 32
	partIDs    = checksumSize + 16 + 4 + 2

	idSize = len(chunk.ID{})
)

// part is a part as it was read, with its checksum checked.
type part struct {
	number uint64
	body   []byte
}

// encodeParts cuts a pack into parts, the first of which gets the number first.
func encodeParts(c pack.Contents, first uint64) ([]part, error) {
	e := encoder{pack: c.Pack, generation: c.Generation, next: first, at: crypt.HeaderSize}
	for i, f := range c.Frames {
		if err := e.frame(uint64(i), f); err != nil {
			return nil, fmt.Errorf("pack %s: frame %d: %w", c.Pack, i, err)
		}
	}
	if e.frames > 0 || len(e.parts) == 0 {
		e.flush()
	}
	return e.parts, nil
}

type encoder struct {
	pack       pack.ID
	generation uint32
	next       uint64
	parts      []part

	at     uint64 // of the current frame in the pack
	head   []byte // of the open part: where its first frame and chunk are
	ids    []byte
	tail   []byte // its frames
	frames uint64
}

// frame adds a frame, in as many parts as it takes.
func (e *encoder) frame(index uint64, f pack.Frame) error {
	if e.at+uint64(f.Stored) > math.MaxUint32 {
		return errors.New("lies beyond 4 GiB")
	}
	var offset uint64
	for rest := f.Chunks; ; {
		if len(e.ids) == partChunks*idSize || e.frames == partChunks {
			e.flush()
		}
		if e.frames == 0 {
			e.head = appendUvarints(e.head[:0], index, e.at, offset)
		}
		n := min(len(rest), partChunks-len(e.ids)/idSize)
		e.tail = append(e.tail, byte(f.Type), byte(f.Codec))
		e.tail = appendUvarints(e.tail, uint64(f.Stored), uint64(f.Raw), uint64(n))
		for _, c := range rest[:n] {
			e.ids = append(e.ids, c.ID[:]...)
			e.tail = binary.AppendUvarint(e.tail, uint64(c.Length))
			offset += uint64(c.Length)
		}
		e.frames++
		if rest = rest[n:]; len(rest) == 0 {
			break
		}
	}
	if offset > uint64(f.Raw) {
		return errors.New("its chunks are longer than the frame")
	}
	e.at += uint64(f.Stored)
	return nil
}

// flush closes the open part.
func (e *encoder) flush() {
	if e.frames == 0 {
		e.head = appendUvarints(e.head[:0], 0, 0, 0)
	}
	b := make([]byte, checksumSize, partIDs+len(e.ids)+len(e.head)+len(e.tail)+2)
	b = append(b, e.pack[:]...)
	b = binary.LittleEndian.AppendUint32(b, e.generation)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.ids)/idSize))
	b = append(b, e.ids...)
	b = append(b, e.head...)
	b = binary.AppendUvarint(b, e.frames)
	b = append(b, e.tail...)
	e.parts = append(e.parts, part{number: e.next, body: seal(b, e.next)})
	e.next++
	e.ids, e.tail, e.frames = e.ids[:0], e.tail[:0], 0
}

func appendUvarints(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// openPart checks the blob of part n. It keeps body.
func openPart(n uint64, body []byte) (*part, error) {
	p := &part{number: n, body: body}
	if !intact(body, n) || len(body) < partIDs || len(body) < partIDs+p.count()*idSize {
		return nil, fmt.Errorf("%w: part %d is wrong", ErrDamaged, n)
	}
	return p, nil
}

func (p *part) count() int          { return int(binary.LittleEndian.Uint16(p.body[partIDs-2:])) }
func (p *part) pack() pack.ID       { return pack.ID(p.body[checksumSize:]) }
func (p *part) generation() uint32  { return binary.LittleEndian.Uint32(p.body[checksumSize+16:]) }
func (p *part) id(i int) chunk.ID   { return chunk.ID(p.body[partIDs+i*idSize:]) }
func (p *part) frames() frameReader { return frameReader{rest: p.body[partIDs+p.count()*idSize:]} }

// ids yields the ids of the chunks.
func (p *part) ids() iter.Seq[chunk.ID] {
	return func(yield func(chunk.ID) bool) {
		for i := range p.count() {
			if !yield(p.id(i)) {
				return
			}
		}
	}
}

// find returns where the chunk is, if it is here.
func (p *part) find(id chunk.ID) (pack.Location, bool, error) {
	at := -1
	for i := range p.count() {
		if p.id(i) == id {
			at = i
			break
		}
	}
	if at < 0 {
		return pack.Location{}, false, nil
	}
	r := p.frames()
	loc := pack.Location{Pack: p.pack(), Generation: p.generation()}
	frame, start, offset := r.uint(), r.uint(), r.uint()
	for range r.uint() {
		loc.Type, loc.Codec = pack.FrameType(r.byte()), chunk.Codec(r.byte())
		stored, raw, n := r.uint(), r.uint(), r.uint()
		for range n {
			length := r.uint()
			if at--; at < 0 {
				loc.Frame, loc.At, loc.Stored, loc.Raw = uint32(frame), uint32(start), uint32(stored), uint32(raw)
				loc.Offset, loc.Length = uint32(offset), uint32(length)
				return loc, !r.short, p.damaged(r)
			}
			offset += length
		}
		frame, start, offset = frame+1, start+stored, 0
		if r.short {
			break
		}
	}
	return pack.Location{}, false, fmt.Errorf("%w: part %d ends early", ErrDamaged, p.number)
}

// appendTo adds the part to the contents that the parts before it began.
func (p *part) appendTo(c *pack.Contents) error {
	c.Pack, c.Generation = p.pack(), p.generation()
	r := p.frames()
	frame, next := r.uint(), 0
	r.uint()
	r.uint()
	for range r.uint() {
		f := pack.Frame{Type: pack.FrameType(r.byte()), Codec: chunk.Codec(r.byte())}
		f.Stored, f.Raw = uint32(r.uint()), uint32(r.uint())
		n := r.uint()
		if r.short || n > uint64(p.count()-next) || frame > uint64(len(c.Frames)) {
			return fmt.Errorf("%w: part %d is wrong", ErrDamaged, p.number)
		}
		if frame == uint64(len(c.Frames)) {
			c.Frames = append(c.Frames, f)
		}
		to := &c.Frames[frame]
		for range n {
			to.Chunks = append(to.Chunks, pack.Chunk{ID: p.id(next), Length: uint32(r.uint())})
			next++
		}
		frame++
	}
	return p.damaged(r)
}

func (p *part) damaged(r frameReader) error {
	if r.short {
		return fmt.Errorf("%w: part %d ends early", ErrDamaged, p.number)
	}
	return nil
}

// frameReader reads the frames of a part. After its end it reads zeros and is short.
type frameReader struct {
	rest  []byte
	short bool
}

func (r *frameReader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.rest, r.short = nil, true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *frameReader) byte() byte {
	if len(r.rest) == 0 {
		r.short = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// readPart returns part n, or nil if there is none.
func (db *database) readPart(n uint64) (*part, error) {
	body, err := readBlob(db.getPart, int64(n))
	if err != nil || body == nil {
		return nil, err
	}
	return openPart(n, body)
}

// eachPart calls f for every part from first to before end.
func (db *database) eachPart(first, end uint64, f func(*part) error) error {
	rows, err := db.conn.QueryContext(context.Background(),
		"SELECT n, body FROM part WHERE n >= ? AND n < ? ORDER BY n", int64(first), int64(end))
	if err != nil {
		return explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var body sql.RawBytes
		if err := rows.Scan(&n, &body); err != nil {
			return explain(err)
		}
		p, err := openPart(uint64(n), body)
		if err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
	}
	return explain(rows.Err())
}

// readBlob returns the blob of row n, or nil if there is no such row.
func readBlob(query *sql.Stmt, n int64) ([]byte, error) {
	rows, err := query.QueryContext(context.Background(), n)
	if err != nil {
		return nil, explain(err)
	}
	defer rows.Close()
	var body []byte
	if rows.Next() {
		err = rows.Scan(&body)
	}
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		return nil, explain(err)
	}
	return body, nil
}
