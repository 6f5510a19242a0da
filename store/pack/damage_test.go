package pack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"runtime"
	"testing"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

var place = crypt.Place{Kind: crypt.Index, Item: item, Generation: 3, ID: [16]byte{7}}

const versionByte = 7 // of a header: another one is no damage but news

// TestEveryFlippedBit: every byte of a pack and of a point is under a checksum and
// under a seal.
func TestEveryFlippedBit(t *testing.T) {
	s := crypt.NewSecret()
	object, contents := fill(t, s, 1, random(300, 1), random(200, 2))
	sealed, err := pack.SealObject(s, place, random(500, 3))
	check(t, err)
	_, err = pack.OpenObject(s, place, sealed)
	check(t, err)
	for _, o := range [][]byte{object, sealed} {
		_, err := pack.Scrub(o)
		check(t, err)
		for at := range o {
			for bit := range 8 {
				flipped := bytes.Clone(o)
				flipped[at] ^= 1 << bit
				_, err := pack.Scrub(flipped)
				if err == nil || at != versionByte && !errors.Is(err, crypt.ErrDamaged) {
					t.Errorf("scrub: bit %d of byte %d of %d: %v", bit, at, len(o), err)
				}
				if got, err := pack.OpenObject(s, place, flipped); err == nil || got != nil {
					t.Errorf("open: bit %d of byte %d: %v", bit, at, err)
				}
			}
		}
	}

	// A reader goes by the seals: what it still reads of a damaged pack is right.
	wanted := readAll(t, pack.NewReader(put(t, contents.Pack, object), secrets{1: s}, item), s, contents)
	framesEnd := crypt.HeaderSize + int(contents.Frames[0].Stored+contents.Frames[1].Stored)
	for at := range object {
		flipped := bytes.Clone(object)
		flipped[at] ^= 1
		r := pack.NewReader(put(t, contents.Pack, flipped), secrets{1: s}, item)
		got, err := r.Contents(t.Context(), contents.Pack)
		if err == nil && !got.Equal(contents) {
			t.Fatalf("byte %d flipped: other contents", at)
		}
		if at < crypt.HeaderSize && err == nil {
			t.Errorf("byte %d of the header flipped: nothing", at)
		}
		var all []byte
		var failed error
		for _, loc := range contents.Locations {
			raw, err := r.Frame(t.Context(), loc, nil)
			if err != nil {
				failed = err
				continue
			}
			if part := raw[loc.Offset:][:loc.Length]; !bytes.Contains(wanted, part) {
				t.Fatalf("byte %d flipped: wrong data", at)
			}
			all = append(all, raw...)
		}
		if at < framesEnd && (failed == nil || at != versionByte && !errors.Is(failed, crypt.ErrDamaged)) {
			t.Errorf("byte %d of the frames flipped: %v", at, failed)
		}
		if at >= framesEnd && (failed != nil || len(all) == 0) {
			t.Errorf("byte %d behind the frames flipped: %v", at, failed)
		}
	}
}

func TestEveryTruncation(t *testing.T) {
	s := crypt.NewSecret()
	object, contents := fill(t, s, 1, random(300, 1))
	sealed, err := pack.SealObject(s, place, random(100, 3))
	check(t, err)
	for n := range object {
		if _, err := pack.Scrub(object[:n]); !errors.Is(err, crypt.ErrDamaged) {
			t.Errorf("scrub of %d bytes: %v", n, err)
		}
		r := pack.NewReader(put(t, contents.Pack, object[:n]), secrets{1: s}, item)
		if _, err := r.Contents(t.Context(), contents.Pack); !errors.Is(err, crypt.ErrDamaged) {
			t.Errorf("contents of %d bytes: %v", n, err)
		}
	}
	for n := range sealed {
		if _, err := pack.OpenObject(s, place, sealed[:n]); !errors.Is(err, crypt.ErrDamaged) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, more := range [][]byte{append(bytes.Clone(sealed), 0), append(bytes.Clone(sealed), sealed...)} {
		if _, err := pack.OpenObject(s, place, more); err == nil {
			t.Errorf("%d bytes of %d are opened", len(more), len(sealed))
		}
	}
}

// mend computes the checksums of a footer anew, as who forges one would.
func mend(o []byte) []byte {
	foot := o[len(o)-40:]
	blocks := int64(binary.BigEndian.Uint32(foot[16:]))
	if from := int64(len(o)) - 40 - 4*blocks; from >= 0 {
		table := crc32.MakeTable(crc32.Castagnoli)
		binary.BigEndian.PutUint32(foot[28:], crc32.Checksum(o[from:len(o)-12], table))
	}
	return o
}

func TestHostileFooters(t *testing.T) {
	s := crypt.NewSecret()
	object, contents := fill(t, s, 1, random(300, 1))
	end := len(object) - 40
	if _, err := pack.Scrub(mend(bytes.Clone(object))); err != nil {
		t.Fatalf("a mended footer: %v", err)
	}
	for field, at := range map[string][2]int{"payload offset": {0, 8}, "payload length": {8, 4}, "block size": {12, 4}, "blocks": {16, 4}, "size": {20, 8}} {
		for _, v := range []uint64{0, 1, 95, 96, 97, uint64(len(object)), uint64(end), math.MaxInt32, math.MaxUint32, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64, math.MaxUint64 - 95} {
			forged := bytes.Clone(object)
			var number [8]byte
			binary.BigEndian.PutUint64(number[:], v)
			copy(forged[end+at[0]:], number[8-at[1]:])
			if bytes.Equal(forged, object) || field == "block size" && v >= uint64(end-4) {
				continue // it says the same
			}
			mend(forged)
			var err error
			used := allocated(func() {
				_, err = pack.Scrub(forged)
				_, err2 := pack.NewReader(put(t, contents.Pack, forged), secrets{1: s}, item).Contents(t.Context(), contents.Pack)
				if !errors.Is(err2, crypt.ErrDamaged) {
					t.Errorf("%s of %d: contents: %v", field, v, err2)
				}
			})
			if !errors.Is(err, crypt.ErrDamaged) {
				t.Errorf("%s of %d: %v", field, v, err)
			}
			if used > 1<<20 {
				t.Errorf("%s of %d cost %d bytes", field, v, used)
			}
		}
	}
}

// TestElsewhere: a pack is read only where it belongs.
func TestElsewhere(t *testing.T) {
	s := crypt.NewSecret()
	object, c := fill(t, s, 1, random(300, 1))
	other := c
	other.Pack = pack.ID{1}
	for name, r := range map[string]*pack.Reader{
		"another secret": pack.NewReader(put(t, c.Pack, object), secrets{1: crypt.NewSecret()}, item),
		"another name":   pack.NewReader(put(t, other.Pack, object), secrets{1: s}, item),
	} {
		id := c.Pack
		if name == "another name" {
			id = other.Pack
		}
		if _, err := r.Contents(t.Context(), id); !errors.Is(err, crypt.ErrDamaged) {
			t.Errorf("%s: contents: %v", name, err)
		}
		at := c
		at.Pack = id
		for _, loc := range at.Locations {
			if _, err := r.Frame(t.Context(), loc, nil); !errors.Is(err, crypt.ErrDamaged) {
				t.Errorf("%s: frame: %v", name, err)
			}
		}
	}
	elsewhere := mem.New(mem.Config{})
	thief := crypt.ItemID{8}
	check(t, elsewhere.Put(t.Context(), pack.Key(thief, c.Pack), store.Body{object}, store.PutOptions{}))
	if _, err := pack.NewReader(elsewhere, secrets{1: s}, thief).Contents(t.Context(), c.Pack); !errors.Is(err, crypt.ErrDamaged) {
		t.Errorf("another item: %v", err)
	}
	if _, err := pack.NewReader(put(t, c.Pack, object), secrets{2: s}, item).Contents(t.Context(), c.Pack); !errors.Is(err, errNoSecret) {
		t.Errorf("a generation without a secret: %v", err)
	}
	for _, loc := range c.Locations {
		good, r := loc, pack.NewReader(put(t, c.Pack, object), secrets{1: s, 2: s}, item)
		for name, change := range map[string]func(){
			"generation": func() { loc.Generation = 2 }, "type": func() { loc.Type = pack.Tree }, "frame": func() { loc.Frame = 1 },
			"offset": func() { loc.At++ }, "length": func() { loc.Stored-- }, "raw length": func() { loc.Raw-- }, "codec": func() { loc.Codec = chunk.Zstd },
		} {
			loc = good
			change()
			if raw, err := r.Frame(t.Context(), loc, nil); err == nil || raw != nil {
				t.Errorf("a location with another %s is read", name)
			}
		}
		if _, err := r.Frame(t.Context(), good, nil); err != nil {
			t.Errorf("the good location after bad ones: %v", err)
		}
		break
	}
}

// TestFaultyStore: what a store answers comes through, at whatever call.
func TestFaultyStore(t *testing.T) {
	s := crypt.NewSecret()
	object, c := fill(t, s, 1, random(300, 1))
	inner := put(t, c.Pack, object)
	for _, fault := range []error{store.ErrUnavailable, store.ErrDenied, store.ErrNotExist, store.ErrShort, context.DeadlineExceeded} {
		for call := range 4 { // stat, footer, header, table
			n := 0
			r := pack.NewReader(storetest.NewFaulty(inner, func(storetest.Op) storetest.Fault {
				if n++; n == call+1 {
					return storetest.Fault{Err: fault}
				}
				return storetest.Fault{}
			}), secrets{1: s}, item)
			if _, err := r.Contents(t.Context(), c.Pack); !errors.Is(err, fault) || errors.Is(err, crypt.ErrDamaged) {
				t.Errorf("call %d: %v, want %v", call, err, fault)
			}
			if _, err := r.Contents(t.Context(), c.Pack); err != nil {
				t.Errorf("after %v: %v", fault, err)
			}
		}
		for _, loc := range c.Locations {
			for call := range 2 { // frame, header
				n := 0
				r := pack.NewReader(storetest.NewFaulty(inner, func(storetest.Op) storetest.Fault {
					if n++; n == call+1 {
						return storetest.Fault{Err: fault}
					}
					return storetest.Fault{}
				}), secrets{1: s}, item)
				if _, err := r.Frame(t.Context(), loc, nil); !errors.Is(err, fault) {
					t.Errorf("frame, call %d: %v, want %v", call, err, fault)
				}
				if _, err := r.Frame(t.Context(), loc, nil); err != nil {
					t.Errorf("frame after %v: %v", fault, err)
				}
			}
		}
	}
}

func TestObjects(t *testing.T) {
	s := crypt.NewSecret()
	for _, payload := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("text "), 100_000), random(600<<10, 1), bytes.Repeat([]byte("text "), 6<<20), random(20<<20, 1)} {
		o, err := pack.SealObject(s, place, payload)
		if err != nil {
			t.Errorf("seal %d bytes: %v", len(payload), err)
			continue
		}
		h, err := pack.Scrub(o)
		if err != nil || h.Kind != place.Kind || h.Item != item || h.Generation != 3 {
			t.Errorf("%+v, %v", h, err)
		}
		if got, err := pack.OpenObject(s, place, o); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes come back as %d: %v", len(payload), len(got), err)
		}
		for name, change := range map[string]func(p *crypt.Place){
			"kind": func(p *crypt.Place) { p.Kind = crypt.Point }, "item": func(p *crypt.Place) { p.Item[0]++ },
			"generation": func(p *crypt.Place) { p.Generation++ }, "id": func(p *crypt.Place) { p.ID[0]++ },
		} {
			p := place
			change(&p)
			if _, err := pack.OpenObject(s, p, o); !errors.Is(err, crypt.ErrDamaged) {
				t.Errorf("at another %s: %v", name, err)
			}
		}
	}
	if _, err := pack.SealObject(s, place, make([]byte, pack.MaxPayload+1)); err == nil {
		t.Error("a payload above the limit is sealed")
	}
	object, c := fill(t, s, 1, random(300, 1))
	asPack := crypt.Place{Kind: crypt.Pack, Item: item, Generation: 1, ID: c.Pack}
	if _, err := pack.OpenObject(s, asPack, object); !errors.Is(err, crypt.ErrDamaged) {
		t.Errorf("a pack is opened as an object without frames: %v", err)
	}
}

// TestSmallObject: what a backup and a prune leave for each other is mostly some tens of
// bytes, and makes no encoder of a megabyte. What is worth it is still compressed.
func TestSmallObject(t *testing.T) {
	s := crypt.NewSecret()
	text := bytes.Repeat([]byte("text "), 1000)
	for _, n := range []int{0, 40, 1023} {
		var o []byte
		var err error
		if used := allocated(func() { o, err = pack.SealObject(s, place, text[:n]) }); err != nil || used > 64<<10 {
			t.Errorf("%d bytes: %d allocated, %v", n, used, err)
		}
		if got, err := pack.OpenObject(s, place, o); err != nil || !bytes.Equal(got, text[:n]) {
			t.Errorf("%d bytes come back as %d: %v", n, len(got), err)
		}
	}
	if o, err := pack.SealObject(s, place, text); err != nil || len(o) > 300 {
		t.Errorf("%d bytes take %d, %v", len(text), len(o), err)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzScrub(f *testing.F) {
	s := crypt.NewSecret()
	object, _ := fill(f, s, 1, random(30, 1))
	sealed, err := pack.SealObject(s, place, []byte("payload"))
	check(f, err)
	f.Add(object)
	f.Add(sealed)
	f.Add(object[:len(object)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		used := allocated(func() {
			if len(b) >= 40 {
				mend(b) // so that more than its checksum is tried
			}
			_, err := pack.Scrub(b)
			got, openErr := pack.OpenObject(s, place, b)
			if openErr == nil && (err != nil || !bytes.Equal(b, sealed) || string(got) != "payload") {
				t.Fatalf("%x opens to %q", b, got)
			}
		})
		if used > 2<<20+16*uint64(len(b)) {
			t.Fatalf("%d bytes allocated for %d", used, len(b))
		}
	})
}

func TestContentsAreCheckedAgainstThePack(t *testing.T) {
	s := crypt.NewSecret()
	object, good := fill(t, s, 1, random(300, 1))
	b, err := pack.EncodeContents([]pack.Contents{good})
	check(t, err)
	table := b[1:]
	opener, err := s.OpenObject(crypt.Place{Kind: crypt.Pack, Item: item, Generation: 1, ID: good.Pack}, object)
	check(t, err)
	for name, payload := range map[string][]byte{
		"good": table, "another pack": bytes.Replace(table, good.Pack[:], make([]byte, 16), 1),
		"another generation": bytes.Replace(table, append(good.Pack[:len(good.Pack):len(good.Pack)], 1), append(good.Pack[:len(good.Pack):len(good.Pack)], 2), 1),
		"an empty array":     {0x80}, "nothing": {}, "a byte behind": append(bytes.Clone(table), 0), "no frames": append(bytes.Clone(table[:19]), 0x80),
	} {
		plain := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload))), payload...)
		framesEnd := crypt.HeaderSize + int(good.Frames[0].Stored)
		forged, err := opener.Seal(bytes.Clone(object[:framesEnd]), plain, math.MaxUint32, 0)
		check(t, err)
		id := good.Pack
		_, err = pack.NewReader(put(t, id, tail(forged, framesEnd)), secrets{1: s}, item).Contents(t.Context(), id)
		if err == nil != (name == "good") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tail ends an object of one block, by docs/format.md, 4.3.
func tail(o []byte, payloadAt int) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	covered := len(o)
	o = binary.BigEndian.AppendUint32(o, crc32.Checksum(o, table))
	o = binary.BigEndian.AppendUint64(o, uint64(payloadAt))
	o = binary.BigEndian.AppendUint32(o, uint32(covered-payloadAt))
	o = binary.BigEndian.AppendUint32(o, 262144)
	o = binary.BigEndian.AppendUint32(o, 1)
	o = binary.BigEndian.AppendUint64(o, uint64(covered+44))
	o = binary.BigEndian.AppendUint32(o, crc32.Checksum(o[covered:], table))
	return fmt.Appendf(o, "cofferE1")
}
