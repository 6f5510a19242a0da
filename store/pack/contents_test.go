package pack_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// unhex reads hexadecimal digits; PACK and ID stand for ids.
func unhex(s string) []byte {
	s = strings.NewReplacer("PACK", "50"+strings.Repeat("05", 16), "ID", "5820"+strings.Repeat("07", 32), " ", "").Replace(s)
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// good is one pack of one frame of one chunk of 5 bytes, by docs/format.md, 5.
const good = "81 83 PACK 01 81 85 01 00 1821 05 81 82 ID 05"

func TestContentsBytes(t *testing.T) {
	c := []pack.Contents{{Pack: pack.ID(bytes.Repeat([]byte{5}, 16)), Generation: 1, Frames: []pack.Frame{
		{Type: pack.Data, Stored: 33, Raw: 5, Chunks: []pack.Chunk{{ID: chunk.ID(bytes.Repeat([]byte{7}, 32)), Length: 5}}}}}}
	b, err := pack.EncodeContents(c)
	if err != nil || !bytes.Equal(b, unhex(good)) {
		t.Errorf("%x, %v; want %x", b, err, unhex(good))
	}
	if got, err := pack.DecodeContents(b); err != nil || len(got) != 1 || !got[0].Equal(c[0]) {
		t.Errorf("%+v, %v", got, err)
	}
	none, err := pack.EncodeContents(nil)
	if err != nil || !bytes.Equal(none, []byte{0x80}) {
		t.Errorf("no contents are %x, %v", none, err)
	}
	if got, err := pack.DecodeContents(none); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	many := make([]pack.Contents, 300)
	for i := range many {
		many[i] = c[0]
	}
	b, err = pack.EncodeContents(many)
	check(t, err)
	if got, err := pack.DecodeContents(b); err != nil || len(got) != 300 {
		t.Errorf("%d of 300, %v", len(got), err)
	}
}

func badContents() map[string]string {
	return map[string]string{
		"nothing": "", "a byte behind": good + "00", "null": "f6", "no array": "a0",
		"head of two bytes":     "9801" + good[2:],
		"array without length":  "9f" + good[2:] + "ff",
		"pack id of 15 bytes":   strings.Replace(good, "PACK", "4f"+strings.Repeat("05", 15), 1),
		"pack id of 17 bytes":   strings.Replace(good, "PACK", "51"+strings.Repeat("05", 17), 1),
		"pack id as an array":   strings.Replace(good, "PACK", "90"+strings.Repeat("05", 16), 1),
		"pack id as text":       strings.Replace(good, "PACK", "70"+strings.Repeat("61", 16), 1),
		"chunk id of 31 bytes":  strings.Replace(good, "ID", "581f"+strings.Repeat("07", 31), 1),
		"chunk id of 33 bytes":  strings.Replace(good, "ID", "5821"+strings.Repeat("07", 33), 1),
		"two fields":            "81 82 PACK 01",
		"four fields":           "81 84 PACK 01 80 00",
		"frames null":           "81 83 PACK 01 f6",
		"generation null":       "81 83 PACK f6 80",
		"generation of 33 bits": "81 83 PACK 1b0000000100000000 80",
		"generation a float":    "81 83 PACK f93c00 80",
		"number in two bytes":   "81 83 PACK 1801 80",
		"tag":                   "81 83 c0PACK 01 80",
		"frame of no chunks":    "81 83 PACK 01 81 85 01 00 1821 00 80",
		"chunk of no bytes":     "81 83 PACK 01 81 85 01 00 1821 00 81 82 ID 00",
		"chunk above 8 MiB":     "81 83 PACK 01 81 85 01 00 1821 1a00800001 81 82 ID 1a00800001",
		"frame above 16 MiB":    "81 83 PACK 01 81 85 01 00 1821 1a01000001 83 82 ID 1a00800000 82 ID 1a00800000 82 ID 01",
		"raw is not the sum":    "81 83 PACK 01 81 85 01 00 1821 06 81 82 ID 05",
		"stored below a seal":   "81 83 PACK 01 81 85 01 00 181b 05 81 82 ID 05",
		"stored above a pack":   "81 83 PACK 01 81 85 01 00 1a10000000 05 81 82 ID 05",
		"as many as can be":     "9bffffffffffffffff", "as many frames": "81 83 PACK 01 9bffffffffffffffff",
	}
}

func TestBadContents(t *testing.T) {
	for why, text := range badContents() {
		b := unhex(text)
		if c, err := pack.DecodeContents(b); err == nil || c != nil {
			t.Errorf("%s: %+v", why, c)
		}
	}
	b := unhex(good)
	for n := range b {
		if _, err := pack.DecodeContents(b[:n]); err == nil {
			t.Errorf("%d bytes of %d are read", n, len(b))
		}
	}
}

func FuzzDecodeContents(f *testing.F) {
	f.Add(unhex(good))
	for _, text := range badContents() {
		f.Add(unhex(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c []pack.Contents
		var err error
		if used := allocated(func() { c, err = pack.DecodeContents(b) }); used > 128*uint64(len(b))+1<<20 {
			t.Fatalf("%d bytes allocated for %d", used, len(b))
		}
		if err != nil {
			return
		}
		if again, err := pack.EncodeContents(c); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is read, and written as %x, %v", b, again, err)
		}
	})
}

// TestScrubOfGap: only a pack has anything between its header and its payload.
func TestScrubOfGap(t *testing.T) {
	s := crypt.NewSecret()
	defer s.Close()
	object, err := pack.SealObject(s, crypt.Place{Kind: crypt.Index, Generation: 1}, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pack.Scrub(object); err != nil {
		t.Fatal(err)
	}
	footer := object[len(object)-40:]
	binary.BigEndian.PutUint64(footer, binary.BigEndian.Uint64(footer)+1)
	binary.BigEndian.PutUint32(footer[8:], binary.BigEndian.Uint32(footer[8:])-1)
	sums := object[len(object)-40-4 : len(object)-12] // one block's, and the footer before its own
	binary.BigEndian.PutUint32(footer[28:], crc32.Checksum(sums, crc32.MakeTable(crc32.Castagnoli)))
	if _, err := pack.Scrub(object); !errors.Is(err, crypt.ErrDamaged) || !strings.Contains(err.Error(), "does not follow the header") {
		t.Errorf("an index with a gap after its header: %v", err)
	}
}
