package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
)

// Every sealed object ends in the same way: the sealed payload (a pack's table of
// contents, or all there is to an index or a point), CRC-32Cs of everything
// before them by blocks, and a footer (big endian):
//
//	 0  offset of the sealed payload, uint64
//	 8  its length, uint32
//	12  block size of the checksums, uint32
//	16  number of blocks, uint32
//	20  length of the whole object, uint64
//	28  CRC-32C of the checksums and bytes 0 to 27 of the footer, uint32
//	32  magic "cofferE1", 8 bytes
const (
	footerSize   = 40
	footerMagic  = "cofferE1"
	blockSize    = 256 << 10
	payloadIndex = 1<<32 - 1 // frame index of the payload in its seal
	payloadHead  = 5         // codec, uint32 length
	smallPayload = 1 << 10   // below it a payload is not compressed: it gains little, and an encoder takes 1.3 MiB
)

// MaxPayload is the largest payload of a sealed object, decompressed, in bytes.
const MaxPayload = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// footer is the parsed end of an object.
type footer struct {
	payloadAt  int64
	payloadLen int64
	blockSize  int64
	blocks     int64
	size       int64
}

// appendTail appends checksums and footer to object, whose last payloadLen bytes
// are the sealed payload.
func appendTail(object []byte, payloadLen int) []byte {
	covered := len(object)
	blocks := 0
	for at := 0; at < covered; at += blockSize {
		end := min(at+blockSize, covered)
		object = binary.BigEndian.AppendUint32(object, crc32.Checksum(object[at:end], castagnoli))
		blocks++
	}
	object = binary.BigEndian.AppendUint64(object, uint64(covered-payloadLen))
	object = binary.BigEndian.AppendUint32(object, uint32(payloadLen))
	object = binary.BigEndian.AppendUint32(object, blockSize)
	object = binary.BigEndian.AppendUint32(object, uint32(blocks))
	object = binary.BigEndian.AppendUint64(object, uint64(covered+4*blocks+footerSize))
	object = binary.BigEndian.AppendUint32(object, crc32.Checksum(object[covered:], castagnoli))
	return append(object, footerMagic...)
}

// parseFooter reads a footer from the last footerSize bytes of an object of size
// bytes. Every number of it is checked against size.
func parseFooter(b []byte, size int64) (footer, error) {
	var f footer
	damaged := func(what string) (footer, error) {
		return footer{}, fmt.Errorf("%s: %w", what, crypt.ErrDamaged)
	}
	if len(b) != footerSize || string(b[32:]) != footerMagic {
		return damaged("object does not end in a footer")
	}
	f.payloadAt = int64(binary.BigEndian.Uint64(b))
	f.payloadLen = int64(binary.BigEndian.Uint32(b[8:]))
	f.blockSize = int64(binary.BigEndian.Uint32(b[12:]))
	f.blocks = int64(binary.BigEndian.Uint32(b[16:]))
	f.size = int64(binary.BigEndian.Uint64(b[20:]))
	if f.size != size {
		return damaged(fmt.Sprintf("object has %d bytes, its footer says %d", size, f.size))
	}
	covered := size - footerSize - 4*f.blocks
	if f.blockSize < 1 || covered < crypt.HeaderSize || f.blocks != (covered+f.blockSize-1)/f.blockSize ||
		f.payloadAt < crypt.HeaderSize || f.payloadAt > covered || f.payloadAt+f.payloadLen != covered {
		return damaged("footer contradicts itself")
	}
	return f, nil
}

// Scrub checks a whole object against its own checksums. It needs no key, and
// finds accidents, not forgeries. It returns the object's header.
func Scrub(object []byte) (crypt.Header, error) {
	h, err := crypt.ParseHeader(object)
	if err != nil {
		return h, err
	}
	if len(object) < crypt.HeaderSize+footerSize {
		return h, fmt.Errorf("object of %d bytes: %w", len(object), crypt.ErrDamaged)
	}
	f, err := parseFooter(object[len(object)-footerSize:], int64(len(object)))
	if err != nil {
		return h, err
	}
	if h.Kind != crypt.Pack && f.payloadAt != crypt.HeaderSize {
		return h, fmt.Errorf("payload does not follow the header: %w", crypt.ErrDamaged)
	}
	covered := f.payloadAt + f.payloadLen
	table := object[covered:]
	end := len(table) - footerSize + 28
	if crc32.Checksum(table[:end], castagnoli) != binary.BigEndian.Uint32(table[end:]) {
		return h, fmt.Errorf("checksum of the checksums does not hold: %w", crypt.ErrDamaged)
	}
	for i := range f.blocks {
		from := i * f.blockSize
		to := min(from+f.blockSize, covered)
		if crc32.Checksum(object[from:to], castagnoli) != binary.BigEndian.Uint32(table[4*i:]) {
			return h, fmt.Errorf("checksum of bytes %d to %d does not hold: %w", from, to-1, crypt.ErrDamaged)
		}
	}
	return h, nil
}

// appendPayload appends the sealed payload to object, compressed by c unless that is nil.
func appendPayload(object []byte, sealer *crypt.Object, payload []byte, c *chunk.Compressor) ([]byte, error) {
	compressed, codec := payload, chunk.Stored
	if c != nil {
		compressed, codec = c.Compress(make([]byte, 0, len(payload)), payload)
	}
	plain := make([]byte, payloadHead, payloadHead+len(compressed))
	plain[0] = byte(codec)
	binary.BigEndian.PutUint32(plain[1:], uint32(len(payload)))
	plain = append(plain, compressed...)
	return sealer.Seal(object, plain, payloadIndex, 0)
}

// openPayload opens a sealed payload.
func openPayload(opener *crypt.Object, sealed []byte) ([]byte, error) {
	plain, err := opener.Open(nil, sealed, payloadIndex, 0)
	if err != nil {
		return nil, err
	}
	if len(plain) < payloadHead {
		return nil, fmt.Errorf("payload of %d bytes: %w", len(plain), crypt.ErrDamaged)
	}
	size := binary.BigEndian.Uint32(plain[1:])
	if size > MaxPayload {
		return nil, fmt.Errorf("payload of %d bytes is above the limit of %d: %w", size, MaxPayload, crypt.ErrDamaged)
	}
	return chunk.NewDecompressorOf(MaxPayload).Decompress(nil, plain[payloadHead:], chunk.Codec(plain[0]), int(size))
}

// SealObject makes an object that is nothing but a sealed payload: an index, a point,
// a session. It is opened again and compared before it is returned.
func SealObject(s *crypt.Secret, p crypt.Place, payload []byte) ([]byte, error) {
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("payload of %d bytes is above the limit of %d", len(payload), MaxPayload)
	}
	var compressor *chunk.Compressor
	if len(payload) >= smallPayload {
		compressor = chunk.NewCompressor(chunk.Default)
	}
	sealer, header := s.NewObject(p)
	object, err := appendPayload(header, sealer, payload, compressor)
	if err != nil {
		return nil, err
	}
	object = appendTail(object, len(object)-crypt.HeaderSize)
	again, err := OpenObject(s, p, object)
	if errors.Is(err, crypt.ErrClosed) {
		return nil, err
	}
	if err != nil || string(again) != string(payload) {
		return nil, fmt.Errorf("sealed object does not open to what was sealed: check this machine's memory: %w", crypt.ErrDamaged)
	}
	return object, nil
}

// OpenObject is the inverse of SealObject.
func OpenObject(s *crypt.Secret, p crypt.Place, object []byte) ([]byte, error) {
	if _, err := Scrub(object); err != nil {
		return nil, err
	}
	opener, err := s.OpenObject(p, object)
	if err != nil {
		return nil, err
	}
	f, err := parseFooter(object[len(object)-footerSize:], int64(len(object)))
	if err != nil {
		return nil, err
	}
	if f.payloadAt != crypt.HeaderSize {
		return nil, fmt.Errorf("payload does not follow the header: %w", crypt.ErrDamaged)
	}
	return openPayload(opener, object[f.payloadAt:f.payloadAt+f.payloadLen])
}
