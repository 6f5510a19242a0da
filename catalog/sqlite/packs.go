package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	engine "modernc.org/sqlite"

	"github.com/cofferbackup/coffer/store/pack"
)

// packRow is a row of the table of packs.
type packRow struct {
	first, parts uint64
	id           pack.ID
	chunks       uint64
	indexed      bool
}

func (p packRow) indexedInt() int64 {
	if p.indexed {
		return 1
	}
	return 0
}

func (p packRow) checksum() int64 {
	b := append([]byte(nil), p.id[:]...)
	for _, v := range []uint64{p.parts, p.chunks, uint64(p.indexedInt())} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return int64(checksum(p.first, b))
}

func (db *database) writePack(p packRow) error {
	_, err := db.putPack.ExecContext(context.Background(),
		int64(p.first), int64(p.parts), p.id[:], int64(p.chunks), p.indexedInt(), p.checksum())
	return err
}

// readPack returns the row of a pack; ok is false if there is none.
func (db *database) readPack(id pack.ID) (row packRow, ok bool, err error) {
	row, err = scanPack(db.getPack.QueryRowContext(context.Background(), id[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return row, false, nil
	}
	if err == nil && row.id != id {
		err = fmt.Errorf("%w: pack %s is wrong", ErrDamaged, id)
	}
	return row, err == nil, err
}

func scanPack(rows interface{ Scan(...any) error }) (packRow, error) {
	var p packRow
	var id []byte
	var sum int64
	if err := rows.Scan(&p.first, &p.parts, &id, &p.chunks, &p.indexed, &sum); err != nil {
		return p, mistyped(err)
	}
	if copy(p.id[:], id) != len(p.id) || len(id) != len(p.id) || sum != p.checksum() {
		return p, fmt.Errorf("%w: the pack of part %d is wrong", ErrDamaged, p.first)
	}
	return p, nil
}

// mistyped says of an error of Scan that a column had no such value.
func mistyped(err error) error {
	if e := new(engine.Error); errors.Is(err, sql.ErrNoRows) || errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// HasPack tells whether the pack is known.
func (x *Index) HasPack(ctx context.Context, id pack.ID) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	_, ok, err := x.db.readPack(id)
	return ok, x.failed("look up pack in", err)
}

// Packs yields the packs that are known, in the order in which they were added.
// The index may be used, and changed, while it goes on. After an error it yields
// nothing more.
func (x *Index) Packs(ctx context.Context) iter.Seq2[pack.ID, error] {
	return func(yield func(pack.ID, error) bool) {
		for row, err := range x.rows(ctx, "") {
			if !yield(row.id, err) {
				return
			}
		}
	}
}

// Contents returns what the pack holds; ok is false if it is not known.
func (x *Index) Contents(ctx context.Context, id pack.ID) (c pack.Contents, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return c, false, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	row, ok, err := x.db.readPack(id)
	if ok {
		c, err = x.db.contents(row)
	}
	return c, ok && err == nil, x.failed("read contents of a pack from", err)
}

// Unsourced returns what the packs hold that no index object names yet.
func (x *Index) Unsourced(ctx context.Context) ([]pack.Contents, error) {
	var all []pack.Contents
	for row, err := range x.rows(ctx, "indexed = 0 AND") {
		if err != nil {
			return nil, err
		}
		c, ok, err := x.Contents(ctx, row.id)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, c)
		}
	}
	return all, nil
}

// contents puts the contents of a pack together from its parts.
func (db *database) contents(row packRow) (pack.Contents, error) {
	var c pack.Contents
	next := row.first
	err := db.eachPart(row.first, row.first+row.parts, func(p *part) error {
		if p.number != next || p.pack() != row.id {
			return fmt.Errorf("%w: part %d is not where it should be", ErrDamaged, p.number)
		}
		next++
		return p.appendTo(&c)
	})
	if err == nil && next != row.first+row.parts {
		err = fmt.Errorf("%w: part %d is missing", ErrDamaged, next)
	}
	return c, err
}

// rows yields the rows of packs that a condition holds for. It reads a few hundred
// at a time and does not hold the lock between.
func (x *Index) rows(ctx context.Context, condition string) iter.Seq2[packRow, error] {
	return func(yield func(packRow, error) bool) {
		for after := uint64(0); ; {
			some, err := x.someRows(ctx, condition, after)
			if err != nil {
				yield(packRow{}, x.failed("list packs of", err))
				return
			}
			for _, row := range some {
				if !yield(row, nil) {
					return
				}
				after = row.first
			}
			if len(some) == 0 {
				return
			}
		}
	}
}

func (x *Index) someRows(ctx context.Context, condition string, after uint64) ([]packRow, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	return x.db.rows(condition, after)
}

// rows returns some of the rows of packs that a condition holds for, in order.
func (db *database) rows(condition string, after uint64) ([]packRow, error) {
	rows, err := db.conn.QueryContext(context.Background(),
		"SELECT first, parts, id, chunks, indexed, checksum FROM pack WHERE "+condition+" first > ? ORDER BY first LIMIT 500", int64(after))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var some []packRow
	for rows.Next() {
		row, err := scanPack(rows)
		if err != nil {
			return nil, err
		}
		some = append(some, row)
	}
	return some, rows.Err()
}

// Forget removes packs that are gone from the vault. A chunk that is in another
// pack as well is found there from now on. It is on disk when it returns; call it
// before a pack is deleted, so that a crash between the two leaves a pack too many
// and never a chunk too few. Packs that are not known are passed over.
func (x *Index) Forget(ctx context.Context, packs []pack.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	next := x.state
	var gone []span
	err := x.db.durably(func() error {
		for _, id := range packs {
			row, ok, err := x.db.readPack(id)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := x.db.deletePack(row); err != nil {
				return err
			}
			next.packs--
			next.chunks -= row.chunks
			next.stale += row.chunks
			gone = append(gone, span{row.first, row.first + row.parts})
		}
		return x.db.writeState(next)
	})
	if err != nil {
		return x.failed("forget packs in", err)
	}
	x.state = next
	for _, s := range gone {
		x.dropRecent(s)
	}
	return x.failed("merge table of", x.mergeIfDue())
}

func (x *Index) dropRecent(s span) {
	for i := range x.recent {
		if p := x.recent[i].Load(); p != nil && s.first <= p.number && p.number < s.end {
			x.recent[i].Store(nil)
		}
	}
}

func (db *database) deletePack(row packRow) error {
	if err := db.exec("DELETE FROM part WHERE n >= ? AND n < ?", int64(row.first), int64(row.first+row.parts)); err != nil {
		return err
	}
	if err := db.exec("DELETE FROM pack WHERE first = ?", int64(row.first)); err != nil {
		return err
	}
	for _, kind := range kindsOfNotes {
		if err := db.exec("DELETE FROM note WHERE kind = ? AND id = ?", int64(kind), row.id[:]); err != nil {
			return err
		}
	}
	s := span{row.first, row.first + row.parts}
	return db.exec("INSERT INTO gone VALUES (?, ?, ?)", int64(s.first), int64(s.end), s.checksum())
}
