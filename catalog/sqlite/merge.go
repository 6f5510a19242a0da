package sqlite

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// minFresh is how many entries there are at least before they are merged into the
// pages. They are read again by the next Open, at 0.1 microseconds each.
const minFresh = 128 << 10

// mergeIfDue merges when an eighth of the table is fresh or stale. A merge writes
// the whole table, so each entry is written about nine times while it grows. The
// caller holds disk.
func (x *Index) mergeIfDue() error {
	if due := max(minFresh, x.state.entries/8); uint64(x.table.fresh.used)+x.state.stale < due {
		return nil
	}
	next := x.state
	if err := x.db.atomically(func() (err error) {
		next, err = x.db.merge(next, &x.table)
		return err
	}); err != nil {
		return err
	}
	x.state = next
	x.mem.Lock()
	defer x.mem.Unlock()
	x.table = table{base: newBase(next)}
	return nil
}

// merge writes the pages anew, with the fresh entries and without those of
// forgotten packs, and returns the state with them.
func (db *database) merge(s state, t *table) (state, error) {
	gone, err := db.gone()
	if err != nil {
		return s, err
	}
	fresh := t.fresh.sorted()
	old := s
	s.epoch, s.merged, s.stale = s.epoch+1, s.next, 0
	for s.entries += uint64(len(fresh)); s.entries>>s.bits > pageEntries; {
		s.bits++
	}
	w := pageWriter{db: db, base: base{epoch: s.epoch, bits: s.bits}, gone: gone, body: make(page, checksumSize)}
	for place := range len(t.base.pages) {
		p, err := db.readPage(t.base.row(uint64(place)))
		if err != nil {
			return s, err
		}
		for i := range p.len() {
			e := p.at(i)
			for len(fresh) > 0 && fresh[0] < e {
				if err := w.add(fresh[0]); err != nil {
					return s, err
				}
				fresh = fresh[1:]
			}
			if err := w.add(e); err != nil {
				return s, err
			}
		}
	}
	for _, e := range fresh {
		if err := w.add(e); err != nil {
			return s, err
		}
	}
	if err := w.finish(); err != nil {
		return s, err
	}
	s.entries = w.written
	if err := db.exec("DELETE FROM page WHERE n >= ? AND n < ?", int64(old.epoch<<32), int64(s.epoch<<32)); err != nil {
		return s, err
	}
	if err := db.exec("DELETE FROM gone"); err != nil {
		return s, err
	}
	return s, db.writeState(s)
}

// pageWriter cuts sorted entries into pages.
type pageWriter struct {
	db      *database
	base    base
	gone    []span
	place   uint64 // of the open page
	body    page
	written uint64
}

func (w *pageWriter) add(e entry) error {
	if covers(w.gone, e.part()) {
		return nil
	}
	for w.place < w.base.place(e) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.body = binary.LittleEndian.AppendUint64(w.body, uint64(e))
	w.written++
	return nil
}

func (w *pageWriter) finish() error {
	for w.place < 1<<w.base.bits {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return nil
}

func (w *pageWriter) flush() error {
	row := w.base.row(w.place)
	_, err := w.db.putPage.ExecContext(context.Background(), int64(row), seal(w.body, row))
	w.place, w.body = w.place+1, w.body[:checksumSize]
	return err
}

// span is the parts of a forgotten pack: from first to before end.
type span struct{ first, end uint64 }

func (s span) checksum() int64 {
	return int64(checksum(s.first, binary.LittleEndian.AppendUint64(nil, s.end)))
}

// covers tells whether part n is in one of the spans, which are sorted.
func covers(spans []span, n uint64) bool {
	_, found := slices.BinarySearchFunc(spans, n, func(s span, n uint64) int {
		switch {
		case s.end <= n:
			return -1
		case s.first > n:
			return 1
		}
		return 0
	})
	return found
}

func (db *database) gone() ([]span, error) {
	rows, err := db.conn.QueryContext(context.Background(), "SELECT first, past, checksum FROM gone ORDER BY first")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []span
	for rows.Next() {
		var s span
		var sum int64
		if err := rows.Scan(&s.first, &s.end, &sum); err != nil {
			return nil, mistyped(err)
		}
		if sum != s.checksum() {
			return nil, fmt.Errorf("%w: the span of part %d is wrong", ErrDamaged, s.first)
		}
		all = append(all, s)
	}
	return all, rows.Err()
}
