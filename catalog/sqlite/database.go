package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	engine "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/cofferbackup/coffer/internal/durable"
)

// The header of the file says whose it is and which schema it has (PRAGMA
// application_id and user_version).
const (
	applicationID = 0x436f6678 // "Cofx"
	schemaVersion = 3
)

// schema of an empty file. Blobs begin with their checksum; other rows have it in a
// column. A part that no pack covers is never read.
const schema = `
CREATE TABLE state (n INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE source (name TEXT PRIMARY KEY, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pack (
	first INTEGER PRIMARY KEY,    -- its first part
	parts INTEGER NOT NULL,       -- how many, at least one
	id BLOB NOT NULL UNIQUE,
	chunks INTEGER NOT NULL,
	indexed INTEGER NOT NULL,     -- 1: an index object of the vault names it
	checksum INTEGER NOT NULL
);
CREATE INDEX unindexed ON pack (first) WHERE indexed = 0;
CREATE TABLE part (n INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE page (n INTEGER PRIMARY KEY, body BLOB NOT NULL);   -- n: epoch << 32 | place
CREATE TABLE gone (              -- parts that are forgotten and may still be in pages
	first INTEGER PRIMARY KEY,
	past INTEGER NOT NULL,        -- the part after the last
	checksum INTEGER NOT NULL
);
CREATE TABLE note (              -- numbers about packs and index objects
	kind INTEGER NOT NULL,
	id BLOB NOT NULL,
	value INTEGER NOT NULL,
	checksum INTEGER NOT NULL,
	PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE point (             -- points that were seen
	name TEXT PRIMARY KEY,
	state INTEGER NOT NULL,
	damaged INTEGER NOT NULL,
	size INTEGER NOT NULL,
	stored INTEGER NOT NULL,
	body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX gone_point ON point (name) WHERE state = 2;
CREATE TABLE session (name TEXT PRIMARY KEY, checksum INTEGER NOT NULL) WITHOUT ROWID;
`

// settings of the connection. The cache is small because this package keeps parts
// and pages itself. The empty transaction takes the lock.
var settings = [...]string{
	"PRAGMA journal_mode = wal",
	"PRAGMA synchronous = normal",
	"PRAGMA cache_size = -6144", // KiB
	"PRAGMA journal_size_limit = 33554432",
	"PRAGMA temp_store = memory",
	"PRAGMA cell_size_check = on",
	"PRAGMA mmap_size = 0",
	"BEGIN IMMEDIATE",
	"COMMIT",
}

var (
	errForeign = errors.New("not a local index")
	errVersion = errors.New("local index of another version")
)

// database is the one connection to the file. In exclusive locking mode it holds
// the file's lock until it is closed, needs no shared memory beside the
// write-ahead log, and makes no system call to begin a read.
//
// Its methods are not safe for concurrent use, and run to their end: a context
// that could be cancelled would cost SQLite's driver a goroutine per statement.
type database struct {
	pool *sql.DB
	conn *sql.Conn

	getPart, putPart *sql.Stmt
	getPage, putPage *sql.Stmt
	getPack, putPack *sql.Stmt
	putState         *sql.Stmt
}

// openDatabase opens the file at path, or one in memory, and fills it if it is empty.
func openDatabase(path string) (*database, error) {
	dsn, err := sourceName(path)
	if err != nil {
		return nil, err
	}
	connector, err := engine.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	db := &database{pool: sql.OpenDB(connector)}
	if err := db.begin(); err != nil {
		db.close()
		return nil, explain(err)
	}
	return db, nil
}

// sourceName is the URI of the file at path, which is there then.
func sourceName(path string) (string, error) {
	if path == "" {
		return ":memory:", nil
	}
	// Made here for its mode. A file that is there must not be opened and closed:
	// that would drop the locks that SQLite holds on it in this process.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	abs = filepath.ToSlash(abs)
	if !strings.HasPrefix(abs, "/") {
		abs = "/" + abs // a drive letter
	}
	return (&url.URL{Scheme: "file", Path: abs}).String(), nil
}

// begin takes the lock, checks or makes the schema, and prepares the statements.
func (db *database) begin() error {
	ctx := context.Background()
	var err error
	if db.conn, err = db.pool.Conn(ctx); err != nil {
		return err
	}
	// Before the first look, so that no other process can come in between; the
	// rest only once it is clear that the file is ours.
	if err := db.execAll("PRAGMA busy_timeout = 0", "PRAGMA locking_mode = exclusive", "PRAGMA page_size = 8192"); err != nil {
		return err
	}
	var tables, application, version int64
	err = db.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
	if err == nil {
		err = db.conn.QueryRowContext(ctx, "PRAGMA application_id").Scan(&application)
	}
	if err == nil {
		err = db.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	}
	switch {
	case err != nil:
		return err
	case tables == 0 && application == 0:
		err = db.create()
	case application != applicationID:
		return errForeign
	case version != schemaVersion:
		return fmt.Errorf("%w: schema %d, not %d", errVersion, version, schemaVersion)
	}
	if err == nil {
		err = db.execAll(settings[:]...)
	}
	if err != nil {
		return err
	}
	return db.prepare()
}

// create makes the schema, with a page size that six parts fill.
func (db *database) create() error {
	return db.atomically(func() error {
		first := state{next: 1, merged: 1}
		_, err := db.conn.ExecContext(context.Background(), fmt.Sprintf(
			"%s; INSERT INTO state VALUES (1, x'%x'); PRAGMA application_id = %d; PRAGMA user_version = %d",
			schema, first.encode(), applicationID, schemaVersion))
		return err
	})
}

func (db *database) prepare() error {
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&db.getPart, "SELECT body FROM part WHERE n = ?"},
		{&db.putPart, "INSERT INTO part VALUES (?, ?)"},
		{&db.getPage, "SELECT body FROM page WHERE n = ?"},
		{&db.putPage, "INSERT INTO page VALUES (?, ?)"},
		{&db.getPack, "SELECT first, parts, id, chunks, indexed, checksum FROM pack WHERE id = ?"},
		{&db.putPack, "INSERT OR REPLACE INTO pack VALUES (?, ?, ?, ?, ?, ?)"},
		{&db.putState, "UPDATE state SET body = ? WHERE n = 1"},
	} {
		var err error
		if *s.to, err = db.conn.PrepareContext(context.Background(), s.sql); err != nil {
			if err = explain(err); errors.Is(err, syscall.EIO) {
				return err
			}
			return fmt.Errorf("%w: %w", ErrDamaged, err) // the schema is not what the header says
		}
	}
	return nil
}

// atomically runs f in a transaction.
func (db *database) atomically(f func() error) error {
	if err := db.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := f()
	if err == nil {
		err = db.exec("COMMIT")
	}
	if err != nil {
		// SQLite has rolled back by itself after some errors; then this one fails,
		// and that does not matter.
		_ = db.exec("ROLLBACK")
	}
	return err
}

// durably is atomically, and on disk when it returns. Other transactions are so
// only after the next checkpoint or durable one; the log keeps their order, so a
// power failure takes the latest and never one from between.
func (db *database) durably(f func() error) error {
	if err := db.exec("PRAGMA synchronous = FULL"); err != nil {
		return err
	}
	err := db.atomically(f)
	return errors.Join(err, db.exec("PRAGMA synchronous = NORMAL"))
}

func (db *database) execAll(queries ...string) error {
	for _, q := range queries {
		if err := db.exec(q); err != nil {
			return err
		}
	}
	return nil
}

func (db *database) exec(query string, args ...any) error {
	_, err := db.conn.ExecContext(context.Background(), query, args...)
	return err
}

// close is fine twice.
func (db *database) close() error {
	for _, s := range []*sql.Stmt{db.getPart, db.putPart, db.getPage, db.putPage, db.getPack, db.putPack, db.putState} {
		if s != nil {
			s.Close()
		}
	}
	if db.conn != nil {
		db.conn.Close()
	}
	return db.pool.Close()
}

// foreignSuffix is behind the name of a file that may be somebody else's.
const foreignSuffix = ".foreign"

// discard makes room for a new file. What is damaged, or may be somebody else's, is kept
// under another name, with one such file of each kind at the most.
func discard(path string, cause error) error {
	if errors.Is(cause, ErrDamaged) {
		return setAside(path)
	}
	if errors.Is(cause, errForeign) {
		if err := os.Rename(path, path+foreignSuffix); err != nil {
			return err
		}
	}
	return remove(path)
}

// setAside keeps a damaged file for who wants to know what has become of it. One that its
// disk does not read stays: SQLite says of both that they are malformed, and the disk may
// come back.
func setAside(path string) error {
	if path == "" {
		return nil
	}
	if err := read(path); err != nil {
		return err
	}
	if err := durable.SetAside(path); err != nil {
		return err
	}
	return remove(path)
}

// read reads a file that nobody has open.
func read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// Remove removes the index kept at path, which nobody may have open, and what was set
// aside of it. No error if there is none.
func Remove(path string) error {
	if err := remove(path); err != nil {
		return err
	}
	return removeEach(path, durable.AsideSuffix, foreignSuffix)
}

// remove removes the file and its log. The file goes first: a log without a file
// is ignored, a file without its log may be half of a checkpoint.
func remove(path string) error { return removeEach(path, "", "-wal", "-journal", "-shm") }

func removeEach(path string, suffixes ...string) error {
	for _, suffix := range suffixes {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// explain turns SQLite's codes into errors of this package and into next steps.
func explain(err error) error {
	var e *engine.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return fmt.Errorf("%w: another process has it open; stop that one first", ErrBusy)
	case codes.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", errForeign, ErrDamaged)
	case codes.SQLITE_CORRUPT:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case codes.SQLITE_FULL:
		return fmt.Errorf("%w, in its folder: %w", syscall.ENOSPC, err)
	case codes.SQLITE_IOERR:
		if e.Code() != codes.SQLITE_IOERR_SHORT_READ {
			return fmt.Errorf("%w, of its disk: %w", syscall.EIO, err)
		}
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case codes.SQLITE_READONLY, codes.SQLITE_CANTOPEN:
		return fmt.Errorf("the file or its folder is not writable; check owner, mode and mount: %w", err)
	}
	return err
}
