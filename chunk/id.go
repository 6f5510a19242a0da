// Package chunk is the unit of dedup: its name, where a stream is cut into it,
// and how frames of it are compressed.
//
// A chunk's ID is HMAC-SHA256 of its plaintext under the item's chunk-id key
// (package crypt computes it; the key never comes here). Splitters find
// boundaries; the codec compresses and decompresses whole frames and bounds what
// a decompression may produce.
package chunk

import "encoding/hex"

// ID identifies a chunk within its item.
type ID [32]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MaxSize is the size of the largest chunk in bytes, whatever made it.
const MaxSize = 8 << 20
