package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// state is the row that says how the others are to be read. It changes in the
// transactions that change them.
type state struct {
	next    uint64 // number of the next part
	merged  uint64 // parts below are in the pages
	epoch   uint64 // of the pages
	bits    uint64 // there are 1<<bits pages, if there is any epoch yet
	entries uint64 // in the pages
	stale   uint64 // chunks of forgotten packs since the last merge
	packs   uint64
	chunks  uint64
	running uint64 // 1 between Begin and End
	points  uint64 // that are there
	stored  uint64 // bytes that they stored
}

func (s *state) fields() []*uint64 {
	return []*uint64{&s.next, &s.merged, &s.epoch, &s.bits, &s.entries, &s.stale, &s.packs, &s.chunks, &s.running, &s.points, &s.stored}
}

func (s state) encode() []byte {
	b := make([]byte, checksumSize)
	for _, f := range s.fields() {
		b = binary.LittleEndian.AppendUint64(b, *f)
	}
	return seal(b, 1)
}

func (db *database) readState() (state, error) {
	var s state
	var body []byte
	err := db.conn.QueryRowContext(context.Background(), "SELECT body FROM state WHERE n = 1").Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("%w: its state is missing", ErrDamaged)
	}
	if err != nil {
		return s, explain(err)
	}
	fields := s.fields()
	if len(body) != checksumSize+8*len(fields) || !intact(body, 1) {
		return s, fmt.Errorf("%w: its state is wrong", ErrDamaged)
	}
	for i, f := range fields {
		*f = binary.LittleEndian.Uint64(body[checksumSize+8*i:])
	}
	return s, nil
}

func (db *database) writeState(s state) error {
	_, err := db.putState.ExecContext(context.Background(), s.encode())
	return err
}

// checksumSize is the length of the checksum that a blob begins with: CRC-32C
// over the number of the row and the rest of the blob.
const checksumSize = 4

func seal(blob []byte, n uint64) []byte {
	binary.LittleEndian.PutUint32(blob, checksum(n, blob[checksumSize:]))
	return blob
}

func intact(blob []byte, n uint64) bool {
	return len(blob) >= checksumSize && binary.LittleEndian.Uint32(blob) == checksum(n, blob[checksumSize:])
}

func checksum(n uint64, p []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	var head [8]byte
	binary.LittleEndian.PutUint64(head[:], n)
	return crc32.Update(crc32.Checksum(head[:], table), table, p)
}
