package chunk_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/cofferbackup/coffer/chunk"
)

func polynomial(t testing.TB, seed byte) chunk.Polynomial {
	t.Helper()
	p, err := chunk.DerivePolynomial(bytes.NewReader(random(8160, seed)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// split cuts r, into buffers that are used again.
func split(t testing.TB, s chunk.Splitter, r io.Reader) [][]byte {
	t.Helper()
	s.Reset(r)
	buf := make([]byte, 0, s.Max())
	var chunks [][]byte
	for {
		c, err := s.Next(buf)
		if err == io.EOF {
			if len(c) > 0 {
				t.Fatalf("%d bytes come with the end", len(c))
			}
			if _, err := s.Next(buf); err != io.EOF {
				t.Fatalf("after the end: %v", err)
			}
			return chunks
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(c) > 0 && &c[0] != &buf[:1][0] {
			t.Fatal("a chunk is not in the buffer that was given")
		}
		chunks = append(chunks, bytes.Clone(c))
	}
}

func equal(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

func TestContentDefined(t *testing.T) {
	data := random(40<<20, 1)
	s := chunk.NewContentDefined(polynomial(t, 1))
	chunks := split(t, s, bytes.NewReader(data))
	if !bytes.Equal(bytes.Join(chunks, nil), data) {
		t.Fatal("the chunks are not the stream")
	}
	for i, c := range chunks {
		if len(c) > s.Max() || len(c) < chunk.MinSize && i < len(chunks)-1 {
			t.Errorf("chunk %d of %d has %d bytes", i, len(chunks), len(c))
		}
	}
	if s.Max() > chunk.MaxSize || len(chunks) < 15 || len(chunks) > 32 {
		t.Errorf("%d chunks, the largest may have %d bytes", len(chunks), s.Max())
	}
	if !equal(chunks, split(t, s, bytes.NewReader(data))) {
		t.Error("the same splitter cuts elsewhere the second time")
	}
	if !equal(chunks, split(t, chunk.NewContentDefined(polynomial(t, 1)), bytes.NewReader(data))) {
		t.Error("the same polynomial cuts elsewhere")
	}
	if equal(chunks, split(t, chunk.NewContentDefined(polynomial(t, 2)), bytes.NewReader(data))) {
		t.Error("another polynomial cuts in the same places")
	}
}

// TestHowItIsRead: the sizes in which a stream arrives change nothing.
func TestHowItIsRead(t *testing.T) {
	data := random(6<<20, 2)
	for name, s := range map[string]chunk.Splitter{"content-defined": chunk.NewContentDefined(polynomial(t, 1)), "fixed": chunk.NewFixed(1 << 20)} {
		want := split(t, s, bytes.NewReader(data))
		for how, r := range map[string]io.Reader{
			"one byte": iotest.OneByteReader(bytes.NewReader(data)), "half": iotest.HalfReader(bytes.NewReader(data)),
			"end with the data": iotest.DataErrReader(bytes.NewReader(data)),
		} {
			if !equal(split(t, s, r), want) {
				t.Errorf("%s, %s: other chunks", name, how)
			}
		}
	}
}

func TestSizesAtTheEdge(t *testing.T) {
	s := chunk.NewContentDefined(polynomial(t, 1))
	for size, want := range map[int]int{0: 0, 1: 1, chunk.MinSize - 1: 1, chunk.MinSize: 1} {
		if got := split(t, s, bytes.NewReader(random(size, 3))); len(got) != want || want == 1 && len(got[0]) != size {
			t.Errorf("%d bytes: %d chunks", size, len(got))
		}
	}
	// Zeros never end a chunk by what they are, or always; so they show the bounds.
	zeros := split(t, s, bytes.NewReader(make([]byte, 9<<20)))
	for i, c := range zeros[:len(zeros)-1] {
		if len(c) != len(zeros[0]) || len(c) != s.Max() && len(c) != chunk.MinSize {
			t.Errorf("chunk %d of zeros has %d bytes", i, len(c))
		}
	}
}

// TestInsertion: an edit is felt around itself only.
func TestInsertion(t *testing.T) {
	data := random(60<<20, 4)
	edited := slices.Concat(data[:30<<20], []byte("inserted"), data[30<<20:])
	s := chunk.NewContentDefined(polynomial(t, 1))
	known := make(map[string]bool)
	for _, c := range split(t, s, bytes.NewReader(data)) {
		known[string(c)] = true
	}
	fresh := 0
	for _, c := range split(t, s, bytes.NewReader(edited)) {
		if !known[string(c)] {
			fresh++
		}
	}
	if fresh == 0 || fresh > 6 {
		t.Errorf("8 bytes in the middle of 60 MiB make %d new chunks", fresh)
	}
}

func TestFixed(t *testing.T) {
	data := random(1000, 5)
	for size, want := range map[int][]int{1000: {1000}, 1001: {1000}, 500: {500, 500}, 300: {300, 300, 300, 100}} {
		chunks := split(t, chunk.NewFixed(size), bytes.NewReader(data))
		var got []int
		for _, c := range chunks {
			got = append(got, len(c))
		}
		if !slices.Equal(got, want) || !bytes.Equal(bytes.Join(chunks, nil), data) {
			t.Errorf("blocks of %d: %v, want %v", size, got, want)
		}
	}
	if got := chunk.NewFixed(1 << 30).Max(); got != chunk.MaxSize {
		t.Errorf("the largest block has %d bytes", got)
	}
	s := chunk.NewFixed(300)
	s.Reset(bytes.NewReader(data))
	if c, err := s.Next(nil); err != nil || !bytes.Equal(c, data[:300]) {
		t.Errorf("without a buffer: %d bytes, %v", len(c), err)
	}
}

// TestBrokenStreams: a stream that fails, also with io.ErrUnexpectedEOF, is never
// taken for one that ended.
func TestBrokenStreams(t *testing.T) {
	for _, fault := range []error{errors.New("bad sector"), io.ErrUnexpectedEOF} {
		for name, s := range map[string]chunk.Splitter{"content-defined": chunk.NewContentDefined(polynomial(t, 1)), "fixed": chunk.NewFixed(1 << 20)} {
			for _, good := range []int{0, 100, 2 << 20, 5<<20 + 1} {
				s.Reset(io.MultiReader(bytes.NewReader(random(good, 6)), iotest.ErrReader(fault)))
				var err error
				for range 10 {
					if _, err = s.Next(make([]byte, 0, s.Max())); err != nil {
						break
					}
				}
				if !errors.Is(err, fault) {
					t.Errorf("%s: %v after %d bytes: %v", name, fault, good, err)
				}
			}
		}
	}
	if p, err := chunk.DerivePolynomial(bytes.NewReader(make([]byte, 7))); err == nil {
		t.Errorf("seven bytes give the polynomial %v", p)
	}
}
