package chunk

import (
	"fmt"
	"io"

	"github.com/restic/chunker"
)

// Splitter cuts a stream into chunks. It is not safe for concurrent use.
type Splitter interface {
	// Reset begins a new stream.
	Reset(r io.Reader)
	// Next reads the next chunk into buf, which should have room for Max bytes,
	// and returns it. io.EOF after the last one.
	Next(buf []byte) ([]byte, error)
	// Max is the size of the largest chunk in bytes.
	Max() int
}

// Content-defined splitting. A large minimum with a loose mask is both faster and
// better at finding data again than the chunker's own defaults, because the
// minimum is skipped and not hashed; docs/performance.md has the table.
const (
	minSize  = 1280 << 10
	maskBits = 18
	maxSize  = 4 << 20
)

// Polynomial makes chunk boundaries an item's own.
type Polynomial = chunker.Pol

// DerivePolynomial reads seed until it has an irreducible polynomial of degree 53.
func DerivePolynomial(seed io.Reader) (Polynomial, error) {
	p, err := chunker.DerivePolynomial(seed)
	if err != nil {
		return 0, fmt.Errorf("derive polynomial: %w", err)
	}
	return p, nil
}

// ContentDefined cuts where the content says so: an insertion changes only the
// chunks around it.
type ContentDefined struct {
	pol     Polynomial
	chunker *chunker.Chunker
}

// NewContentDefined returns a splitter; Reset gives it a stream.
func NewContentDefined(pol Polynomial) *ContentDefined {
	return &ContentDefined{pol: pol, chunker: chunker.NewWithBoundaries(nil, pol, minSize, maxSize)}
}

// Reset begins a new stream.
func (s *ContentDefined) Reset(r io.Reader) {
	s.chunker.ResetWithBoundaries(torn{r}, s.pol, minSize, maxSize)
	s.chunker.SetAverageBits(maskBits)
}

// Next returns the next chunk of the stream.
func (s *ContentDefined) Next(buf []byte) ([]byte, error) {
	c, err := s.chunker.Next(buf)
	return c.Data, err
}

// Max is the size of the largest chunk in bytes.
func (*ContentDefined) Max() int { return maxSize }

// torn keeps a stream that breaks off, and says so with io.ErrUnexpectedEOF, apart
// from one that ends: io.ReadFull says the same of a good end in mid-block.
type torn struct{ io.Reader }

func (t torn) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("stream breaks off: %w", err)
	}
	return n, err
}

// MinSize is the size below which no stream is cut, in bytes: a shorter one is
// one chunk, and needs no splitter.
const MinSize = minSize

// Fixed cuts blocks of one size, for disks: what is overwritten in place changes
// only its own blocks.
type Fixed struct {
	size int
	r    io.Reader
}

// NewFixed returns a splitter into blocks of size bytes, at most MaxSize.
func NewFixed(size int) *Fixed { return &Fixed{size: min(size, MaxSize)} }

// Reset begins a new stream.
func (s *Fixed) Reset(r io.Reader) { s.r = torn{r} }

// Next returns the next block of the stream.
func (s *Fixed) Next(buf []byte) ([]byte, error) {
	if cap(buf) < s.size {
		buf = make([]byte, s.size)
	}
	n, err := io.ReadFull(s.r, buf[:s.size])
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	return buf[:n], err
}

// Max is the block size in bytes.
func (s *Fixed) Max() int { return s.size }
