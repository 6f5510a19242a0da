package sqlite

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// Lookup returns where the chunk is: in the pack that was added first among those
// that have it and were not forgotten. Once the pages it needs are in memory, it
// says of a chunk that is not known that it is not without asking the database.
func (x *Index) Lookup(ctx context.Context, id chunk.ID) (loc pack.Location, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return loc, false, err
	}
	parts, err := x.candidates(prefixOf(id))
	if err != nil {
		return loc, false, x.failed("look up chunk in", err)
	}
	for _, n := range parts {
		p, err := x.part(n)
		if err != nil {
			return loc, false, x.failed("look up chunk in", err)
		}
		if p == nil {
			continue // forgotten since
		}
		if loc, ok, err = p.find(id); ok || err != nil {
			return loc, ok, x.failed("look up chunk in", err)
		}
	}
	return pack.Location{}, false, nil
}

// candidates returns the numbers of the parts that may have the chunk, the oldest
// first.
func (x *Index) candidates(prefix entry) ([]uint64, error) {
	x.mem.RLock()
	fresh := x.table.fresh.parts(prefix)
	var p page
	merged := x.table.base.epoch > 0
	if merged {
		p = x.table.base.pages[x.table.base.place(prefix)]
	}
	x.mem.RUnlock()
	if !merged {
		return fresh, nil
	}
	if p == nil {
		// If a merge comes in between, the page has what was fresh before: some
		// parts come twice then, and none is missed.
		var err error
		if p, err = x.page(prefix); err != nil {
			return nil, err
		}
	}
	return append(p.parts(prefix), fresh...), nil
}

// page reads the page that has the chunk's entries.
func (x *Index) page(prefix entry) (page, error) {
	x.disk.Lock()
	defer x.disk.Unlock()
	// Only who holds disk changes the base, so reading it needs no lock.
	if x.table.base.epoch == 0 {
		return nil, nil // emptied since
	}
	place := x.table.base.place(prefix)
	if p := x.table.base.pages[place]; p != nil {
		return p, nil
	}
	p, err := x.db.readPage(x.table.base.row(place))
	if err != nil {
		return nil, err
	}
	x.mem.Lock()
	defer x.mem.Unlock()
	x.table.base.keep(place, p)
	return p, nil
}

func (db *database) readPage(row uint64) (page, error) {
	body, err := readBlob(db.getPage, int64(row))
	if err != nil {
		return nil, err
	}
	return openPage(row, body)
}

// part returns part n, or nil if its pack was forgotten.
func (x *Index) part(n uint64) (*part, error) {
	slot := &x.recent[n%recentParts]
	if p := slot.Load(); p != nil && p.number == n {
		return p, nil
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	p, err := x.db.readPart(n)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, x.db.checkGone(n)
	}
	slot.Store(p) // before disk is unlocked: Forget must find it
	return p, nil
}

// checkGone makes sure that part n, which is not there, is not missed by a pack.
func (db *database) checkGone(n uint64) error {
	var missed bool
	err := db.conn.QueryRowContext(context.Background(),
		"SELECT EXISTS (SELECT 1 FROM (SELECT first, parts FROM pack WHERE first <= ? ORDER BY first DESC LIMIT 1) WHERE first + parts > ?)",
		int64(n), int64(n)).Scan(&missed)
	if err == nil && missed {
		return fmt.Errorf("%w: part %d is missing", ErrDamaged, n)
	}
	return explain(err)
}
