// Package pack is the unit of storage: frames of chunks, sealed under a key of
// the pack's own, with a sealed table of contents and checksums that need no key.
//
//	header | frame ... | sealed table of contents | block checksums | footer
//
// Invariants:
//   - A pack is written once and is complete when it is visible.
//   - Frame lengths, chunk lengths and chunk ids are only in the sealed table.
//   - Every frame is opened again and compared before the pack is put.
//
// docs/format.md is normative for the bytes.
package pack

import (
	"fmt"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
)

// ID names a pack: 16 random bytes, written as 26 characters of base32.
type ID [16]byte

func (id ID) String() string { return crypt.Encoding.EncodeToString(id[:]) }

// ParseID is the inverse of ID.String.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := crypt.Encoding.DecodeString(s)
	if err != nil || len(b) != len(id) || crypt.Encoding.EncodeToString(b) != s {
		return id, fmt.Errorf("%q is not a pack id", s)
	}
	copy(id[:], b)
	return id, nil
}

// FrameType says what the chunks of a frame are. It is bound into the frame's
// seal, so that a chunk is never taken for one of another kind.
type FrameType uint8

// The frame types.
const (
	Data FrameType = 1 // content
	Tree FrameType = 2 // directories
	List FrameType = 3 // lists of extents
)

// Chunk is one chunk of a frame, as the table of contents has it.
type Chunk struct {
	_      struct{} `cbor:",toarray"`
	ID     chunk.ID
	Length uint32 // plaintext bytes, 1..chunk.MaxSize
}

// Frame is one frame, as the table of contents has it. Its chunks follow each
// other in the decompressed frame; frames follow each other in the pack.
type Frame struct {
	_      struct{} `cbor:",toarray"`
	Type   FrameType
	Codec  chunk.Codec
	Stored uint32 // bytes in the pack: nonce, ciphertext, tag
	Raw    uint32 // bytes after decompression; the sum of the chunks' lengths
	Chunks []Chunk
}

// Contents is what a pack holds, as its table of contents and the index objects
// say.
type Contents struct {
	_          struct{} `cbor:",toarray"`
	Pack       ID
	Generation uint32 // of the item secret the pack is sealed under
	Frames     []Frame
}

// Location is where a chunk is.
type Location struct {
	Pack       ID
	Generation uint32
	Type       FrameType
	Codec      chunk.Codec
	Frame      uint32 // index of the frame in its pack
	At         uint32 // offset of the frame in the pack object, bytes
	Stored     uint32 // length of the frame in the pack object, bytes
	Raw        uint32 // length of the frame when decompressed, bytes
	Offset     uint32 // of the chunk in the decompressed frame, bytes
	Length     uint32 // of the chunk, bytes
}
