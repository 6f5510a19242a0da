package chunk

// Codec says how a frame is compressed.
type Codec uint8

// The codecs.
const (
	Stored Codec = 0 // as it is
	Zstd   Codec = 1 // one Zstandard frame (RFC 8878)
)
