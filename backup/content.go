package backup

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

const (
	// smallSize is the size below which a chunk shares a frame with others.
	smallSize = 512 << 10
	// attempts is how often a file is read that changes meanwhile.
	attempts = 3
)

// file reads a file and returns its node with content. A nil node means that it
// could not be read and was recorded as skipped.
func (h *holder) file(ctx context.Context, d source.Dir, path string, node *tree.Node) (*tree.Node, error) {
	r := h.run
	f, err := d.Open(ctx, node.Name)
	if err != nil {
		return nil, r.fault(ctx, path+"/"+node.Name, err)
	}
	defer f.Close()
	r.Progress.Changed.Add(1)
	for attempt := 1; ; attempt++ {
		h.counted = 0
		content, size, err := h.content(ctx, f)
		if err != nil {
			r.Progress.Bytes.Add(-h.counted)
			return nil, r.fault(ctx, path+"/"+node.Name, err)
		}
		now, changed, err := f.Changed()
		if err != nil {
			return nil, r.fault(ctx, path+"/"+node.Name, err)
		}
		if changed && attempt < attempts {
			if err := f.Rewind(); err == nil {
				r.Progress.Bytes.Add(-h.counted)
				continue
			} else if !errors.Is(err, errors.ErrUnsupported) {
				return nil, r.fault(ctx, path+"/"+node.Name, err)
			}
		}
		if now != nil {
			now.Name = node.Name
			node = now
		}
		node.Content, node.Size, node.Changing = content, size, changed
		if changed {
			r.Progress.Unquiet.Add(1)
		}
		return node, nil
	}
}

// count counts size bytes of the file, of which read were read, as they come.
func (w *walker) count(size, read uint64) {
	w.counted += size
	w.run.Progress.Bytes.Add(size)
	w.run.Progress.Read.Add(read)
}

// content reads all ranges of a file and returns its extents and size.
func (h *holder) content(ctx context.Context, f source.File) ([]tree.Extent, uint64, error) {
	x := &extents{h: h, ctx: ctx}
	pos := int64(0)
	for {
		off, length, err := f.NextData()
		if err != nil && err != io.EOF {
			return nil, 0, err
		}
		if off > pos {
			x.hole(uint64(off - pos))
			h.count(uint64(off-pos), 0)
			pos = off
		}
		if err == io.EOF {
			content, err := x.finish()
			return content, uint64(pos), err
		}
		n, err := h.data(ctx, f, length, x)
		if err != nil {
			return nil, 0, err
		}
		pos += n
	}
}

// data reads one range of length bytes, or until its end if length is -1.
func (h *holder) data(ctx context.Context, f source.File, length int64, x *extents) (int64, error) {
	if length < 0 || length >= smallSize {
		if h.cutter == nil {
			h.cutter = newCutter(h.run)
		}
		return h.cutter.cut(ctx, h, f, x)
	}
	g, err := h.gather(ctx, pack.Data, int(length))
	if err != nil {
		return 0, err
	}
	n, err := fill(f, g.space(int(length)))
	if err != nil && err != io.EOF {
		return 0, err
	}
	h.count(uint64(n), uint64(n))
	if n == 0 {
		return 0, nil
	}
	id, err := g.take(ctx, n)
	if err != nil {
		return 0, err
	}
	return int64(n), x.add(tree.Extent{Length: uint64(n), Kind: tree.Content, ID: id}, nil)
}

// fill reads until p is full. io.EOF, also after some bytes, is the end that r
// tells; any other error of r, io.ErrUnexpectedEOF too, is a fault.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

// cutter cuts large files into chunks. Reading is one goroutine's work; what
// follows is spread over all workers.
type cutter struct {
	run   *run
	split chunk.Splitter
	in    zeroReader
}

func newCutter(r *run) *cutter {
	return &cutter{run: r, split: chunk.NewContentDefined(r.polynomial)}
}

// cut reads f to the end of its range. Runs of zeros become holes.
func (c *cutter) cut(ctx context.Context, h *holder, f io.Reader, x *extents) (int64, error) {
	c.in.reset(f)
	var total int64
	for more := true; more; {
		c.split.Reset(&c.in)
		n, err := c.segment(ctx, h, x)
		if err != nil {
			return 0, err
		}
		var zeros int64
		if zeros, more, err = c.in.skipZeros(); err != nil {
			return 0, err
		}
		x.hole(uint64(zeros))
		h.count(uint64(zeros), uint64(zeros))
		total += n + zeros
	}
	return total, nil
}

// segment cuts what comes before the next run of zeros.
func (c *cutter) segment(ctx context.Context, h *holder, x *extents) (total int64, err error) {
	for {
		buf, err := c.run.pools.chunk(ctx)
		if err != nil {
			return 0, err
		}
		data, err := c.split.Next(buf)
		if err != nil || len(data) == 0 {
			c.run.pools.putChunk(buf)
			if err == io.EOF {
				return total, nil
			}
			return 0, err
		}
		total += int64(len(data))
		h.count(uint64(len(data)), uint64(len(data)))
		extent := tree.Extent{Length: uint64(len(data)), Kind: tree.Content}
		if len(data) < smallSize {
			extent.ID, err = h.save(ctx, pack.Data, data)
			c.run.pools.putChunk(buf)
			if err == nil {
				err = x.add(extent, nil)
			}
		} else {
			named := make(chan chunk.ID, 1)
			if err = c.run.submit(ctx, task{raw: data, typ: pack.Data, named: named}); err == nil {
				err = x.add(extent, named)
			}
		}
		if err != nil {
			return 0, err
		}
	}
}

// zeroBlock is the unit in which zeros are looked for, in bytes.
const zeroBlock = 64 << 10

var zeros [zeroBlock]byte

// zeroReader reads until the next aligned block of zeros.
type zeroReader struct {
	r    io.Reader
	rest []byte // read and not given out yet
	mem  []byte // memory of rest
	stop bool   // the next block is one of zeros, already taken
	eof  bool
}

func (z *zeroReader) reset(r io.Reader) {
	*z = zeroReader{r: r, mem: z.mem}
}

// Read reads into p, which has room for at least a block, as much as there is
// before the next block of zeros.
func (z *zeroReader) Read(p []byte) (int, error) {
	if z.stop {
		return 0, io.EOF
	}
	n := copy(p, z.rest)
	z.rest = z.rest[n:]
	if n < len(p) && !z.eof {
		m, err := fill(z.r, p[n:])
		n += m
		if z.eof = err == io.EOF; err != nil && !z.eof {
			return 0, err
		}
	}
	for at := 0; at+zeroBlock <= n; at += zeroBlock {
		if bytes.Equal(p[at:at+zeroBlock], zeros[:]) {
			z.stop = true
			z.keep(p[at+zeroBlock : n])
			n = at
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// keep puts b before what is still in rest, which is the end of mem or empty.
func (z *zeroReader) keep(b []byte) {
	n := len(b) + len(z.rest)
	mem := z.mem
	if cap(mem) < n {
		mem = make([]byte, n)
	}
	copy(mem[len(b):n], z.rest) // they may overlap
	copy(mem[:n], b)
	z.mem = mem[:n]
	z.rest = z.mem
}

// skipZeros goes on after Read has met its end: past a run of zeros, whose length
// it returns. more tells whether there is data after it.
func (z *zeroReader) skipZeros() (run int64, more bool, err error) {
	if !z.stop {
		return 0, false, nil
	}
	run, z.stop = zeroBlock, false
	block := make([]byte, zeroBlock)
	for {
		for len(z.rest) >= zeroBlock {
			if !bytes.Equal(z.rest[:zeroBlock], zeros[:]) {
				return run, true, nil
			}
			run, z.rest = run+zeroBlock, z.rest[zeroBlock:]
		}
		if z.eof {
			return run, len(z.rest) > 0, nil
		}
		n, err := fill(z.r, block)
		if z.eof = err == io.EOF; err != nil && !z.eof {
			return 0, false, err
		}
		z.keepBehind(block[:n])
	}
}

// keepBehind puts b behind what is still in rest, which is less than a block.
func (z *zeroReader) keepBehind(b []byte) {
	n := copy(z.mem[:cap(z.mem)], z.rest)
	z.mem = append(z.mem[:n], b...)
	z.rest = z.mem
}
