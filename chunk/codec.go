package chunk

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Codec says how a frame is compressed.
type Codec uint8

// The codecs.
const (
	Stored Codec = 0 // as it is
	Zstd   Codec = 1 // one Zstandard frame (RFC 8878)
)

// Level trades time for size. The zero value is the default.
type Level uint8

// The levels.
const (
	Fastest Level = iota
	Default
	Better
	Max
)

// levels are the names of the levels in the config.
var levels = [...]string{Fastest: "fastest", Default: "default", Better: "better", Max: "max"}

func (l Level) String() string {
	if int(l) < len(levels) {
		return levels[l]
	}
	return fmt.Sprintf("level %d", uint8(l))
}

// ParseLevel is the inverse of Level.String. The empty string is Fastest.
func ParseLevel(s string) (Level, error) {
	if s == "" {
		return Fastest, nil
	}
	for l, name := range levels {
		if s == name {
			return Level(l), nil
		}
	}
	return 0, fmt.Errorf("%q is not a compression level: take fastest, default, better or max", s)
}

// ErrSize: a frame does not decompress to the size that was promised.
var ErrSize = errors.New("frame does not decompress to its size")

// Compressor compresses frames. It is not safe for concurrent use.
type Compressor struct{ enc *zstd.Encoder }

// NewCompressor returns a compressor for frames of at most MaxFrame bytes.
func NewCompressor(level Level) *Compressor {
	speed := [...]zstd.EncoderLevel{
		Fastest: zstd.SpeedFastest, Default: zstd.SpeedDefault,
		Better: zstd.SpeedBetterCompression, Max: zstd.SpeedBestCompression,
	}[level]
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(speed), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(windowSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("chunk: internal error: " + err.Error())
	}
	return &Compressor{enc: enc}
}

// Compress returns raw compressed, in dst's memory if that is large enough, or
// raw itself if it is not worth it.
func (c *Compressor) Compress(dst, raw []byte) ([]byte, Codec) {
	out := c.enc.EncodeAll(raw, dst[:0])
	if len(out) >= len(raw)-len(raw)/64 {
		return raw, Stored
	}
	return out, Zstd
}

// MaxFrame is the size of the largest decompressed frame in bytes.
const MaxFrame = 16 << 20

const windowSize = 4 << 20

// Decompressor decompresses frames. It is safe for concurrent use.
type Decompressor struct {
	dec   *zstd.Decoder
	limit int
}

// NewDecompressor returns a decompressor for frames of at most MaxFrame bytes.
func NewDecompressor() *Decompressor { return NewDecompressorOf(MaxFrame) }

// NewDecompressorOf returns a decompressor for what has at most limit bytes when
// it is decompressed.
func NewDecompressorOf(limit int) *Decompressor {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(uint64(limit)), zstd.WithDecoderMaxWindow(MaxFrame))
	if err != nil {
		panic("chunk: internal error: " + err.Error())
	}
	return &Decompressor{dec: dec, limit: limit}
}

// Decompress returns the raw bytes of a frame, in dst's memory, with all of its
// capacity, if that is large enough; a stored frame is returned as it is. ErrSize
// unless they are exactly size; no more than size bytes are made in finding that
// out.
func (d *Decompressor) Decompress(dst, in []byte, codec Codec, size int) ([]byte, error) {
	if size < 0 || size > d.limit {
		return nil, fmt.Errorf("%d bytes: %w", size, ErrSize)
	}
	switch codec {
	case Stored:
		if len(in) != size {
			return nil, fmt.Errorf("%d bytes instead of %d: %w", len(in), size, ErrSize)
		}
		return in, nil
	case Zstd:
		if cap(dst) < size {
			dst = make([]byte, 0, size)
		}
		out, err := d.dec.DecodeAll(in, dst[:0:size])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSize, err)
		}
		if len(out) != size {
			return nil, fmt.Errorf("%d bytes instead of %d: %w", len(out), size, ErrSize)
		}
		return dst[:size], nil // out, with all the room that dst has for the next frame
	}
	return nil, fmt.Errorf("codec %d is not known: use a newer build", codec)
}
