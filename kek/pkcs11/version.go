package pkcs11

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// idSize is the length of the CKA_ID that we give.
const idSize = 20

// newID returns the CKA_ID of a new key: seconds since 1970 as 8 bytes, big-endian,
// then the first 12 bytes of the key's fingerprint. PKCS#11 has neither versions
// nor creation times; this one is unique, can be checked against the key, and puts
// the versions of a key in order.
func newID(made time.Time, fingerprint kek.Fingerprint) []byte {
	id := binary.BigEndian.AppendUint64(make([]byte, 0, idSize), uint64(made.Unix()))
	return append(id, fingerprint[:idSize-8]...)
}

// madeAt returns the time in an id that newID made. No other id begins with four
// zero bytes, except by a chance of one in four billion.
func madeAt(id []byte) (time.Time, bool) {
	if len(id) != idSize || !bytes.Equal(id[:4], make([]byte, 4)) {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(id)), 0), true
}

// compareIDs orders the versions of a key, oldest first: those that others made,
// by the number that their id is, then ours by time.
func compareIDs(a, b []byte) int {
	_, ourA := madeAt(a)
	_, ourB := madeAt(b)
	switch {
	case ourA && ourB:
		return bytes.Compare(a, b)
	case ourA:
		return 1
	case ourB:
		return -1
	}
	a, b = bytes.TrimLeft(a, "\x00"), bytes.TrimLeft(b, "\x00")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}
