package sqlite

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cofferbackup/coffer/chunk"
)

// entry says that a chunk whose id begins with these 36 bits may be in this part:
// the bits, then 28 bits of part number. Sorted entries are sorted by id, and those
// of one chunk by age. Zero is no entry: parts are numbered from 1.
type entry uint64

const (
	partBits = 28
	maxPart  = 1<<partBits - 1
)

func entryOf(id chunk.ID, part uint64) entry { return prefixOf(id) | entry(part) }

// prefixOf returns the entry of id in part 0, which sorts before all others of id.
func prefixOf(id chunk.ID) entry {
	return entry(binary.BigEndian.Uint64(id[:])) &^ maxPart
}

func (e entry) part() uint64  { return uint64(e & maxPart) }
func (e entry) prefix() entry { return e &^ maxPart }

// table finds the parts that may have a chunk.
type table struct {
	base  base  // of the parts below state.merged
	fresh fresh // of the others
}

// fresh is a set of entries with open addressing: an entry is in the slot that its
// first bits say, or in one after it with no free slot between.
type fresh struct {
	slots []entry // a power of two; zero is free
	used  int
	shift uint // 64 - log2(len(slots))
}

func (f *fresh) add(e entry) {
	if f.used >= len(f.slots)/4*3 {
		f.grow()
	}
	i := uint64(e) >> f.shift
	for ; f.slots[i] != 0; i = (i + 1) & uint64(len(f.slots)-1) {
		if f.slots[i] == e {
			return
		}
	}
	f.slots[i] = e
	f.used++
}

func (f *fresh) grow() {
	old, size := f.slots, max(1<<10, 2*len(f.slots))
	*f = fresh{slots: make([]entry, size), shift: uint(64 - bits.TrailingZeros(uint(size)))}
	for _, e := range old {
		if e != 0 {
			f.add(e)
		}
	}
}

// parts returns the parts that may have the chunk, the oldest first.
func (f *fresh) parts(prefix entry) []uint64 {
	if f.used == 0 {
		return nil
	}
	var parts []uint64
	for i := uint64(prefix) >> f.shift; f.slots[i] != 0; i = (i + 1) & uint64(len(f.slots)-1) {
		if e := f.slots[i]; e.prefix() == prefix {
			parts = append(parts, e.part())
		}
	}
	slices.Sort(parts)
	return parts
}

// sorted returns all entries in order.
func (f *fresh) sorted() []entry {
	all := make([]entry, 0, f.used)
	for _, e := range f.slots {
		if e != 0 {
			all = append(all, e)
		}
	}
	slices.Sort(all)
	return all
}

// base is the pages. It keeps in memory those that were asked for.
type base struct {
	epoch uint64
	bits  uint64
	pages []page // by the first bits of the id; nil: not read yet
	held  int    // bytes in pages
	hand  int    // where to look for the next page to drop
}

const (
	// pageEntries is the number of entries that a page has on average at the most.
	pageEntries = 512
	// maxHeld is the number of bytes of pages to keep: the table of 6 million
	// chunks. Beyond that, some lookups read their page again.
	maxHeld = 48 << 20
)

// newBase returns the pages that s tells of, none of them read.
func newBase(s state) base {
	if s.epoch == 0 {
		return base{}
	}
	return base{epoch: s.epoch, bits: s.bits, pages: make([]page, 1<<s.bits)}
}

// place returns the index of the page that has the chunk's entries.
func (b *base) place(prefix entry) uint64 { return uint64(prefix) >> (64 - b.bits) }

// row returns the number of the row that the page at place is in.
func (b *base) row(place uint64) uint64 { return b.epoch<<32 | place }

// keep keeps a page in memory, and drops others if there are too many.
func (b *base) keep(place uint64, p page) {
	if b.pages[place] != nil {
		return
	}
	for b.held+len(p) > maxHeld && b.held > 0 {
		b.held -= len(b.pages[b.hand])
		b.pages[b.hand] = nil
		b.hand = (b.hand + 1) % len(b.pages)
	}
	b.pages[place] = p
	b.held += len(p)
}

// page is a checksum and sorted entries, 8 bytes each, little-endian.
type page []byte

func openPage(row uint64, body []byte) (page, error) {
	if !intact(body, row) || (len(body)-checksumSize)%8 != 0 {
		return nil, fmt.Errorf("%w: page %d is wrong", ErrDamaged, row)
	}
	return body, nil
}

func (p page) len() int       { return (len(p) - checksumSize) / 8 }
func (p page) at(i int) entry { return entry(binary.LittleEndian.Uint64(p[checksumSize+8*i:])) }

// parts returns the parts that may have the chunk, the oldest first.
func (p page) parts(prefix entry) []uint64 {
	low, high := 0, p.len()
	for low < high {
		if mid := (low + high) / 2; p.at(mid) < prefix {
			low = mid + 1
		} else {
			high = mid
		}
	}
	var parts []uint64
	for ; low < p.len() && p.at(low).prefix() == prefix; low++ {
		parts = append(parts, p.at(low).part())
	}
	return parts
}
