package chunk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/cofferbackup/coffer/chunk"
)

func random(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func text(n int) []byte {
	return bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog. "), n/45+1)[:n]
}

var levels = []chunk.Level{chunk.Fastest, chunk.Default, chunk.Better, chunk.Max}

func TestRoundTrip(t *testing.T) {
	d := chunk.NewDecompressor()
	mixed := append(random(100<<10, 3), text(3<<20)...)
	for _, level := range levels {
		c := chunk.NewCompressor(level)
		var room, back []byte
		for _, raw := range [][]byte{text(1), text(100), text(1 << 20), mixed, text(chunk.MaxFrame), make([]byte, chunk.MaxFrame), {}, random(1<<20, 1)} {
			want := bytes.Clone(raw)
			out, codec := c.Compress(room, raw)
			if codec == chunk.Stored && (len(raw) > 0 && &out[0] != &raw[0] || len(out) != len(raw)) {
				t.Errorf("%s: %d bytes are stored as something else", level, len(raw))
			}
			if codec == chunk.Zstd && len(out) >= len(raw)-len(raw)/64 {
				t.Errorf("%s: %d bytes are compressed to %d", level, len(raw), len(out))
			}
			got, err := d.Decompress(back, out, codec, len(raw))
			if err != nil || !bytes.Equal(got, want) || !bytes.Equal(raw, want) {
				t.Errorf("%s: %d bytes do not come back: %v", level, len(raw), err)
			}
			if codec == chunk.Zstd {
				room, back = out, got
			}
		}
	}
}

// TestMemoryIsUsedAgain: a frame leaves the room for a larger one after it, so that
// a reader of frames of any size allocates only for the largest.
func TestMemoryIsUsedAgain(t *testing.T) {
	c, d := chunk.NewCompressor(chunk.Fastest), chunk.NewDecompressor()
	buf := make([]byte, 0, 1<<20)
	for _, size := range []int{1 << 20, 1, 1 << 10, 1 << 20} {
		out, codec := c.Compress(nil, text(size))
		if codec == chunk.Stored {
			continue
		}
		raw, err := d.Decompress(buf, out, codec, size)
		if err != nil || len(raw) != size || cap(raw) != cap(buf) || &raw[0] != &buf[:1][0] {
			t.Errorf("%d bytes came back with room for %d instead of %d: %v", size, cap(raw), cap(buf), err)
		}
		buf = raw
	}
}

func TestIncompressibleIsStored(t *testing.T) {
	for _, level := range levels {
		c := chunk.NewCompressor(level)
		raw := random(1<<20, 1)
		if out, codec := c.Compress(nil, raw); codec != chunk.Stored || &out[0] != &raw[0] {
			t.Errorf("%s: random bytes: codec %d, %d bytes", level, codec, len(out))
		}
		if _, codec := c.Compress(nil, text(1<<20)); codec != chunk.Zstd {
			t.Errorf("%s: text: codec %d", level, codec)
		}
	}
}

// frame compresses raw as one Zstandard frame of some other writer; with unknown
// the frame does not say how large it is.
func frame(t testing.TB, raw []byte, unknown string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if unknown == "" {
		return w.EncodeAll(raw, nil)
	}
	for len(raw) > 0 { // in pieces, so that it cannot know
		n := min(len(raw), 1<<20)
		if _, err := w.Write(raw[:n]); err != nil {
			t.Fatal(err)
		}
		raw = raw[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestWrongSize: what does not have the size that was promised is refused, and
// costs no more memory than that size.
func TestWrongSize(t *testing.T) {
	d := chunk.NewDecompressor()
	for _, unknown := range []string{"", "size unknown"} {
		small := frame(t, text(1000), unknown)
		if got, err := d.Decompress(nil, small, chunk.Zstd, 1000); err != nil || !bytes.Equal(got, text(1000)) {
			t.Fatalf("%s: the good frame: %v", unknown, err)
		}
		for _, size := range []int{-1, 0, 1, 999, 1001, chunk.MaxFrame, chunk.MaxFrame + 1} {
			if got, err := d.Decompress(nil, small, chunk.Zstd, size); !errors.Is(err, chunk.ErrSize) || got != nil {
				t.Errorf("%s: 1000 bytes are taken for %d: %v", unknown, size, err)
			}
		}
		for n := range small {
			if _, err := d.Decompress(nil, small[:n], chunk.Zstd, 1000); !errors.Is(err, chunk.ErrSize) {
				t.Errorf("%s: %d bytes of %d: %v", unknown, n, len(small), err)
			}
		}
		for _, bomb := range [][]byte{
			frame(t, make([]byte, 12<<20), unknown), frame(t, make([]byte, 32<<20), unknown),
			bytes.Repeat(frame(t, make([]byte, 1<<20), unknown), 50),
		} {
			dst := make([]byte, 0, 4096)
			used := allocated(func() {
				for range 8 {
					if got, err := d.Decompress(dst, bomb, chunk.Zstd, 4096); !errors.Is(err, chunk.ErrSize) || got != nil {
						t.Errorf("%s: a bomb of %d bytes: %v", unknown, len(bomb), err)
					}
				}
			})
			if used > 8<<20 { // the decoder's own block buffers
				t.Errorf("%s: a bomb of %d bytes cost %d", unknown, len(bomb), used)
			}
			if _, err := d.Decompress(nil, bomb, chunk.Zstd, chunk.MaxFrame); !errors.Is(err, chunk.ErrSize) {
				t.Errorf("%s: a bomb of %d bytes taken for the largest frame: %v", unknown, len(bomb), err)
			}
		}
	}
	for _, size := range []int{-1, 0, 2, 4, chunk.MaxFrame + 1} {
		if _, err := d.Decompress(nil, []byte("raw"), chunk.Stored, size); !errors.Is(err, chunk.ErrSize) {
			t.Errorf("3 stored bytes are taken for %d: %v", size, err)
		}
	}
	if _, err := d.Decompress(nil, []byte("raw"), 2, 3); err == nil || !strings.Contains(err.Error(), "use a newer build") {
		t.Errorf("codec 2: %v", err)
	}
}

// TestLimit: a decompressor of more than a frame.
func TestLimit(t *testing.T) {
	raw := text(20 << 20)
	in := frame(t, raw, "")
	if got, err := chunk.NewDecompressorOf(20<<20).Decompress(nil, in, chunk.Zstd, len(raw)); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%d bytes of %d: %v", len(got), len(raw), err)
	}
	if _, err := chunk.NewDecompressor().Decompress(nil, in, chunk.Zstd, len(raw)); !errors.Is(err, chunk.ErrSize) {
		t.Errorf("more than a frame: %v", err)
	}
}

func TestLevelNames(t *testing.T) {
	for _, l := range levels {
		if got, err := chunk.ParseLevel(l.String()); err != nil || got != l {
			t.Errorf("%s is read as %s, %v", l, got, err)
		}
	}
	if l, err := chunk.ParseLevel(""); err != nil || l != chunk.Fastest {
		t.Errorf("nothing is read as %s, %v", l, err)
	}
	for _, s := range []string{"Fastest", "best", "1", "level 9"} {
		if l, err := chunk.ParseLevel(s); err == nil {
			t.Errorf("%q is read as %s", s, l)
		}
	}
	if got := chunk.Level(9).String(); got != "level 9" {
		t.Errorf("an unknown level is called %q", got)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzDecompress(f *testing.F) {
	f.Add([]byte("raw"), byte(0), 3)
	f.Add(frame(f, text(1000), ""), byte(1), 1000)
	f.Add(frame(f, text(1000), "size unknown"), byte(1), 1000)
	f.Add(frame(f, make([]byte, 1<<20), ""), byte(1), 10)
	f.Add(frame(f, random(300, 1), ""), byte(1), 300)
	d := chunk.NewDecompressor()
	f.Fuzz(func(t *testing.T, in []byte, codec byte, size int) {
		size %= 1 << 22
		got, err := d.Decompress(nil, in, chunk.Codec(codec), size)
		if err == nil && len(got) != size || err != nil && got != nil {
			t.Fatalf("%d bytes for %d, %v", len(got), size, err)
		}
	})
}
