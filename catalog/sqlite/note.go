package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store/pack"
)

// kindsOfNotes are those that go with their pack. What a mark named is remembered as long
// as the mark is: an index object may tell of the pack once more while a prune is at work.
var kindsOfNotes = [...]catalog.Note{catalog.NoteRetained, catalog.NoteRead, catalog.NoteDamaged}

// SetNotes implements catalog.Notebook.
func (x *Index) SetNotes(ctx context.Context, kind catalog.Note, notes map[pack.ID]int64) error {
	if err := ctx.Err(); err != nil || len(notes) == 0 {
		return err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	err := x.db.atomically(func() error {
		set, err := x.db.conn.PrepareContext(context.Background(), "INSERT OR REPLACE INTO note VALUES (?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer set.Close()
		for id, value := range notes {
			if value == 0 {
				err = x.db.exec("DELETE FROM note WHERE kind = ? AND id = ?", int64(kind), id[:])
			} else {
				_, err = set.ExecContext(context.Background(), int64(kind), id[:], value, noteSum(kind, id, value))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return x.failed("write notes into", err)
}

// Note implements catalog.Notebook.
func (x *Index) Note(ctx context.Context, kind catalog.Note, id pack.ID) (value int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	var said int64
	err = x.db.conn.QueryRowContext(context.Background(), "SELECT value, checksum FROM note WHERE kind = ? AND id = ?", int64(kind), id[:]).Scan(&value, &said)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, x.failed("read note from", mistyped(err))
	}
	if said != noteSum(kind, id, value) {
		return 0, x.failed("read note from", fmt.Errorf("%w: a note is wrong", ErrDamaged))
	}
	return value, nil
}

// noteSum is the checksum of a note.
func noteSum(kind catalog.Note, id pack.ID, value int64) int64 {
	return int64(checksum(uint64(kind), binary.LittleEndian.AppendUint64(id[:], uint64(value))))
}

// nameSum is the checksum of a row that is a name.
func nameSum(name string) int64 { return int64(checksum(0, []byte(name))) }

// Notes implements catalog.Notebook. It reads a few hundred at a time and does not hold
// the lock between.
func (x *Index) Notes(ctx context.Context, kind catalog.Note) iter.Seq2[catalog.Noted, error] {
	return func(yield func(catalog.Noted, error) bool) {
		for after := []byte{}; ; {
			some, err := x.someNotes(ctx, kind, after)
			if err != nil {
				yield(catalog.Noted{}, x.failed("list notes of", err))
				return
			}
			for _, n := range some {
				if !yield(n, nil) {
					return
				}
				after = n.Pack[:]
			}
			if len(some) == 0 {
				return
			}
		}
	}
}

func (x *Index) someNotes(ctx context.Context, kind catalog.Note, after []byte) ([]catalog.Noted, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	rows, err := x.db.conn.QueryContext(context.Background(),
		"SELECT id, value, checksum FROM note WHERE kind = ? AND id > ? ORDER BY id LIMIT 500", int64(kind), after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var some []catalog.Noted
	for rows.Next() {
		var id []byte
		var n catalog.Noted
		var said int64
		if err := rows.Scan(&id, &n.Value, &said); err != nil {
			return nil, mistyped(err)
		}
		if copy(n.Pack[:], id) != len(n.Pack) || len(id) != len(n.Pack) {
			return nil, fmt.Errorf("%w: a note is of no pack", ErrDamaged)
		}
		if said != noteSum(kind, n.Pack, n.Value) {
			return nil, fmt.Errorf("%w: a note is wrong", ErrDamaged)
		}
		some = append(some, n)
	}
	return some, rows.Err()
}

// OwnSession implements catalog.SessionMemory.
func (x *Index) OwnSession(ctx context.Context, name catalog.PointName) error {
	return x.session(ctx, "INSERT OR IGNORE INTO session VALUES (?, ?)", string(name), nameSum(string(name)))
}

// DropSession implements catalog.SessionMemory.
func (x *Index) DropSession(ctx context.Context, name catalog.PointName) error {
	return x.session(ctx, "DELETE FROM session WHERE name = ?", string(name))
}

func (x *Index) session(ctx context.Context, query string, args ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	return x.failed("remember session in", x.db.durably(func() error { return x.db.exec(query, args...) }))
}

// OwnSessions implements catalog.SessionMemory.
func (x *Index) OwnSessions(ctx context.Context) ([]catalog.PointName, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x.disk.Lock()
	defer x.disk.Unlock()
	names, err := x.db.sessions()
	return names, x.failed("list sessions of", err)
}

func (db *database) sessions() ([]catalog.PointName, error) {
	var names []catalog.PointName
	for name, err := range db.names("SELECT name, checksum FROM session ORDER BY name") {
		if err != nil {
			return nil, err
		}
		names = append(names, catalog.PointName(name))
	}
	return names, nil
}
