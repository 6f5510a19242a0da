package sqlite

import (
	"context"
	"fmt"
	"iter"

	"github.com/cofferbackup/coffer/store/pack"
)

// Add adds what packs hold, all of it or nothing: the packs of the index object
// source, or, with source "", packs that no index object names yet. Packs that are
// known already stay as they are, except that they cease to be without an index.
// After a crash of the machine the latest calls may be undone, the last one first.
// It does not keep contents. After an error it is either all there or not at all.
func (x *Index) Add(ctx context.Context, source string, contents []pack.Contents) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	a := adding{db: x.db, state: x.state, indexed: source != ""}
	err := x.db.atomically(func() error { return a.run(source, contents) })
	if err != nil {
		return x.failed("add to", err)
	}
	x.state = a.state
	x.mem.Lock()
	for _, e := range a.entries {
		x.table.fresh.add(e)
	}
	x.mem.Unlock()
	// A crash here leaves entries that are in no page; Open makes them from the parts.
	return x.failed("merge table of", x.mergeIfDue())
}

// adding is an Add before its transaction is through.
type adding struct {
	db      *database
	state   state
	indexed bool
	entries []entry
}

func (a *adding) run(source string, contents []pack.Contents) error {
	if a.indexed {
		if err := a.db.exec("INSERT OR IGNORE INTO source VALUES (?, ?)", source, nameSum(source)); err != nil {
			return err
		}
	}
	for _, c := range contents {
		known, ok, err := a.db.readPack(c.Pack)
		switch {
		case err != nil:
			return err
		case !ok:
			err = a.pack(c)
		case a.indexed && !known.indexed:
			known.indexed = true
			err = a.db.writePack(known)
		}
		if err != nil {
			return err
		}
	}
	return a.db.writeState(a.state)
}

// pack adds a pack that is not known.
func (a *adding) pack(c pack.Contents) error {
	first := a.state.next
	parts, err := encodeParts(c, first)
	if err != nil {
		return err
	}
	if first+uint64(len(parts)) > maxPart {
		// After 268 million parts in the life of one file.
		return fmt.Errorf("%w: it has used all its numbers", ErrDamaged)
	}
	row := packRow{first: first, parts: uint64(len(parts)), id: c.Pack, indexed: a.indexed}
	for _, p := range parts {
		if _, err := a.db.putPart.ExecContext(context.Background(), int64(p.number), p.body); err != nil {
			return err
		}
		for id := range p.ids() {
			a.entries = append(a.entries, entryOf(id, p.number))
		}
		row.chunks += uint64(p.count())
	}
	a.state.next += row.parts
	a.state.packs++
	a.state.chunks += row.chunks
	return a.db.writePack(row)
}

// Sources returns the names of the index objects that were added.
func (x *Index) Sources(ctx context.Context) (map[string]struct{}, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	names, err := x.db.sources()
	return names, x.failed("list index objects of", err)
}

func (db *database) sources() (map[string]struct{}, error) {
	names := make(map[string]struct{})
	for name, err := range db.names("SELECT name, checksum FROM source") {
		if err != nil {
			return nil, err
		}
		names[name] = struct{}{}
	}
	return names, nil
}

// names yields the rows of a query for names and their checksums. After an error it
// yields nothing more.
func (db *database) names(query string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		rows, err := db.conn.QueryContext(context.Background(), query)
		if err != nil {
			yield("", err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			var said int64
			err := rows.Scan(&name, &said)
			switch {
			case err != nil:
				err = mistyped(err)
			case said != nameSum(name):
				err = fmt.Errorf("%w: a name is wrong", ErrDamaged)
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield("", err)
		}
	}
}

// Begin marks that a job is about to put packs, and tells whether an earlier one
// never ended: then there may be packs in the vault that no index object names. The
// mark is on disk when it returns.
func (x *Index) Begin(ctx context.Context) (unclean bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return x.mark(1)
}

// End takes the mark away.
func (x *Index) End(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := x.mark(0)
	return err
}

func (x *Index) mark(running uint64) (before bool, err error) {
	x.disk.Lock()
	defer x.disk.Unlock()
	next := x.state
	next.running = running
	if err := x.db.durably(func() error { return x.db.writeState(next) }); err != nil {
		return false, x.failed("mark job in", err)
	}
	before = x.state.running != 0
	x.state = next
	return before, nil
}

// DropSources forgets that index objects were added, whose packs others name as well or
// are forgotten: they are gone from the vault, and are not missed.
func (x *Index) DropSources(ctx context.Context, names []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	err := x.db.atomically(func() error {
		for _, name := range names {
			if err := x.db.exec("DELETE FROM source WHERE name = ?", name); err != nil {
				return err
			}
		}
		return nil
	})
	return x.failed("forget index objects in", err)
}

// Disown forgets that index objects were added, and keeps what they said. The packs are
// as those that no index object names, until one is added that names them.
func (x *Index) Disown(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	err := x.db.atomically(func() error {
		if err := x.db.exec("DELETE FROM source"); err != nil {
			return err
		}
		for after := uint64(0); ; {
			rows, err := x.db.rows("indexed = 1 AND", after)
			if err != nil || len(rows) == 0 {
				return err
			}
			for _, row := range rows {
				after, row.indexed = row.first, false
				if err := x.db.writePack(row); err != nil {
					return err
				}
			}
		}
	})
	return x.failed("forget index objects in", err)
}
