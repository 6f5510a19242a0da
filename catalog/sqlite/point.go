package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"

	"github.com/cofferbackup/coffer/catalog"
)

// A row of a point has its summary in a blob that begins with a checksum, as all blobs
// do; the number that goes into it is that of the row: CRC-32C of the name and what
// stands beside the blob.

func pointNumber(s catalog.Summary) uint64 {
	b := []byte(s.Name)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Size))
	b = binary.LittleEndian.AppendUint64(b, s.Stats.Stored)
	return uint64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// AddPoints implements catalog.PointMemory.
func (x *Index) AddPoints(ctx context.Context, points []catalog.Summary) error {
	return x.changePoints(ctx, "remember points in", func(t *pointTable) error {
		for _, s := range points {
			encoded, err := s.Encode()
			if err != nil {
				return err
			}
			if err := t.remove(s.Name); err != nil {
				return err
			}
			body := seal(append(make([]byte, checksumSize), encoded...), pointNumber(s))
			err = t.exec("INSERT INTO point VALUES (?, ?, ?, ?, ?, ?)",
				string(s.Name), int64(s.State), s.Damaged, s.Size, int64(s.Stats.Stored), body)
			if err != nil {
				return err
			}
			t.count(s.State, int64(s.Stats.Stored), 1)
		}
		return nil
	})
}

// SetPoints implements catalog.PointMemory.
func (x *Index) SetPoints(ctx context.Context, state catalog.PointState, names []catalog.PointName) error {
	return x.changePoints(ctx, "change points of", func(t *pointTable) error {
		for _, name := range names {
			was, stored, ok, err := t.find(name)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := t.exec("UPDATE point SET state = ? WHERE name = ?", int64(state), string(name)); err != nil {
				return err
			}
			t.count(was, stored, -1)
			t.count(state, stored, 1)
		}
		return nil
	})
}

// DamagePoints implements catalog.PointMemory.
func (x *Index) DamagePoints(ctx context.Context, damaged map[catalog.PointName]bool) error {
	return x.changePoints(ctx, "change points of", func(t *pointTable) error {
		for name, is := range damaged {
			if err := t.exec("UPDATE point SET damaged = ? WHERE name = ?", is, string(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DropPoints implements catalog.PointMemory.
func (x *Index) DropPoints(ctx context.Context, names []catalog.PointName) error {
	return x.changePoints(ctx, "forget points in", func(t *pointTable) error {
		for _, name := range names {
			if err := t.remove(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// CountPoints implements catalog.PointMemory.
func (x *Index) CountPoints(ctx context.Context) (points, stored int64, err error) {
	x.disk.Lock()
	defer x.disk.Unlock()
	return int64(x.state.points), int64(x.state.stored), ctx.Err()
}

// pointTable is the table of points in a transaction, and the state with it.
type pointTable struct {
	db       *database
	next     state
	prepared map[string]*sql.Stmt
}

// exec executes a query, which is prepared once for the transaction.
func (t *pointTable) exec(query string, args ...any) error {
	s, err := t.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(context.Background(), args...)
	return err
}

func (t *pointTable) prepare(query string) (s *sql.Stmt, err error) {
	if s = t.prepared[query]; s == nil {
		s, err = t.db.conn.PrepareContext(context.Background(), query)
		if err == nil {
			t.prepared[query] = s
		}
	}
	return s, err
}

func (t *pointTable) close() {
	for _, s := range t.prepared {
		s.Close()
	}
}

func (x *Index) changePoints(ctx context.Context, doing string, change func(*pointTable) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	t := pointTable{db: x.db, next: x.state, prepared: make(map[string]*sql.Stmt)}
	defer t.close()
	err := x.db.atomically(func() error {
		if err := change(&t); err != nil {
			return err
		}
		return x.db.writeState(t.next)
	})
	if err == nil {
		x.state = t.next
	}
	return x.failed(doing, err)
}

// find returns how a point stands; ok is false if it is not remembered.
func (t *pointTable) find(name catalog.PointName) (state catalog.PointState, stored int64, ok bool, err error) {
	s, err := t.prepare("SELECT state, stored FROM point WHERE name = ?")
	if err != nil {
		return 0, 0, false, err
	}
	err = s.QueryRowContext(context.Background(), string(name)).Scan(&state, &stored)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, mistyped(err)
	}
	return state, stored, true, nil
}

func (t *pointTable) remove(name catalog.PointName) error {
	state, stored, ok, err := t.find(name)
	if err != nil || !ok {
		return err
	}
	t.count(state, stored, -1)
	return t.exec("DELETE FROM point WHERE name = ?", string(name))
}

// count counts by points that have come or gone.
func (t *pointTable) count(state catalog.PointState, stored int64, by int) {
	if state == catalog.PointGone {
		return
	}
	t.next.points += uint64(by)
	t.next.stored += uint64(stored * int64(by))
}

// Summaries implements catalog.PointMemory. It reads a few hundred at a time and does
// not hold the lock between.
func (x *Index) Summaries(ctx context.Context, q catalog.PointQuery) iter.Seq2[catalog.Summary, error] {
	return func(yield func(catalog.Summary, error) bool) {
		for last := ""; ; {
			some, err := x.somePoints(ctx, q, last)
			if err != nil {
				yield(catalog.Summary{}, x.failed("list points of", err))
				return
			}
			for _, s := range some {
				if !yield(s, nil) {
					return
				}
				last = string(s.Name)
			}
			if len(some) == 0 {
				return
			}
		}
	}
}

// somePoints returns the points that come after the last one.
func (x *Index) somePoints(ctx context.Context, q catalog.PointQuery, last string) ([]catalog.Summary, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	which, order := "name > ?", "name"
	if q.Newest {
		order = "name DESC"
		if which = "name < ?"; last == "" {
			last = "~" // after all names
		}
	}
	if q.Gone {
		which += " AND state = 2"
	}
	limit := 400
	if q.Newest {
		limit = 16 // mostly one is wanted
	}
	rows, err := x.db.conn.QueryContext(context.Background(),
		fmt.Sprintf("SELECT name, state, damaged, size, stored, body FROM point WHERE %s ORDER BY %s LIMIT %d", which, order, limit), last)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var some []catalog.Summary
	for rows.Next() {
		s, err := scanPoint(rows)
		if err != nil {
			return nil, err
		}
		some = append(some, s)
	}
	return some, rows.Err()
}

func scanPoint(rows *sql.Rows) (catalog.Summary, error) {
	var s, row catalog.Summary
	var name string
	var body sql.RawBytes
	if err := rows.Scan(&name, &row.State, &row.Damaged, &row.Size, &row.Stats.Stored, &body); err != nil {
		return s, mistyped(err)
	}
	row.Name = catalog.PointName(name)
	if !intact(body, pointNumber(row)) {
		return s, fmt.Errorf("%w: point %s is wrong", ErrDamaged, name)
	}
	s, err := catalog.DecodeSummary(body[checksumSize:])
	if err != nil {
		return s, fmt.Errorf("%w: point %s: %w", ErrDamaged, name, err)
	}
	s.Name, s.State, s.Damaged, s.Size = row.Name, row.State, row.Damaged, row.Size
	return s, nil
}
