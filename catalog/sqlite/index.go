// Package sqlite is the local index of one item: which packs there are, and where
// each chunk is. It is a cache of what the vault says, in one SQLite file, and may
// be deleted at any time.
//
// SQLite keeps the rows safe; this package decides what a row is, since a row per
// chunk is too slow and too large (docs/decisions/0002-local-index.md):
//
//	part   up to 32 consecutive chunks of one pack: their ids, lengths and frames.
//	       Numbered, never changed, no number used twice. All that is known is here
//	pack   the range of parts of each pack
//	page   the table: all chunks as 8-byte entries (36 bits of the id, 28 bits of
//	       part number), sorted, and cut by the first bits of the id. Ids are HMACs,
//	       hence uniform, and nothing needs hashing
//
// Entries of recent parts are in memory only, and merged into the pages when they
// have become many; Open reads the parts since the last merge. Pages are read when
// they are first needed and then kept in memory, so a job that asks about a few
// chunks reads a few pages, and one that asks about many soon answers "new chunk"
// from memory alone. An entry is only a hint: a chunk is found when its part has
// the whole id.
//
// Invariants:
//   - What Lookup returns was added and not forgotten, also after a crash or a
//     power failure: transactions are atomic and in order (write-ahead log), and
//     Forget is on disk when it returns. The latest Adds may be lost; the names of
//     their sources are lost with them, so they are added again.
//   - Rows carry a checksum over themselves and their number. Damage is an error
//     (ErrDamaged) or an unknown chunk, never a wrong place.
//   - One process has the file open, one Index in it.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	engine "modernc.org/sqlite"

	"github.com/cofferbackup/coffer/internal/durable"
)

// Errors of an index.
var (
	// ErrBusy: another process, or another Index of this one, has the file open.
	ErrBusy = errors.New("local index is in use")
	// ErrDamaged: the file does not hold what was written to it. Close sets it aside, and
	// the next Open begins with an empty index, which has to be filled from the vault again.
	ErrDamaged = fmt.Errorf("local index is %w", durable.ErrDamaged)
)

// Config of an index.
type Config struct {
	// Path of the file; missing folders above it are made, with mode 0700. "": the index
	// is in memory, and gone when it is closed.
	Path   string
	Logger *slog.Logger
}

// Index is the local index of one item. It is safe for concurrent use.
type Index struct {
	cfg     Config
	damaged atomic.Bool // Close sets the file aside
	recent  [recentParts]atomic.Pointer[part]

	// disk is held while the database is used, and taken before mem.
	disk  sync.Mutex
	db    *database
	state state

	mem   sync.RWMutex
	table table
}

// recentParts is the number of parts kept in memory, each in the slot that its
// number says: consecutive chunks of a backup are found in them.
const recentParts = 1024

// Open opens the index and makes it if it is not there. A file that is damaged or not
// an index at all is set aside, one of another version removed, with a line in the log,
// and an empty index takes its place. ErrBusy if it is open already; what the disk does
// not do is a durable.Fault, here and later.
func Open(ctx context.Context, cfg Config) (*Index, error) {
	x := &Index{cfg: cfg}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := x.makeFolder(); err != nil {
		return nil, &durable.Fault{Path: cfg.Path, Err: fmt.Errorf("open local index: make its folder: %w", err)}
	}
	err := x.open()
	if errors.Is(err, errForeign) || errors.Is(err, errVersion) || errors.Is(err, ErrDamaged) {
		cfg.Logger.WarnContext(ctx, "local index begins anew", "path", cfg.Path, "cause", err)
		if err = discard(cfg.Path, err); err == nil {
			err = x.open()
		}
	}
	if errors.Is(err, ErrBusy) {
		return nil, fmt.Errorf("open local index %s: %w", cfg.Path, err)
	}
	if err != nil {
		return nil, &durable.Fault{Path: cfg.Path, Err: fmt.Errorf("open local index %s: %w", cfg.Path, err)}
	}
	return x, nil
}

// makeFolder makes the folder of the file.
func (x *Index) makeFolder() error {
	if x.cfg.Path == "" {
		return nil
	}
	return os.MkdirAll(filepath.Dir(x.cfg.Path), 0o700)
}

// open opens the file and reads what must be in memory.
func (x *Index) open() error {
	db, err := openDatabase(x.cfg.Path)
	if err != nil {
		return err
	}
	s, t, err := load(db)
	if err != nil {
		db.close()
		return err
	}
	for i := range x.recent {
		x.recent[i].Store(nil)
	}
	x.mem.Lock()
	defer x.mem.Unlock()
	x.db, x.state, x.table = db, s, t
	x.damaged.Store(false)
	return nil
}

// load reads the state, and the entries of the parts that are not in the pages.
func load(db *database) (state, table, error) {
	s, err := db.readState()
	if err != nil {
		return state{}, table{}, err
	}
	t := table{base: newBase(s)}
	err = db.eachPart(s.merged, s.next, func(p *part) error {
		for id := range p.ids() {
			t.fresh.add(entryOf(id, p.number))
		}
		return nil
	})
	return s, t, err
}

// Close releases the index. A damaged one is set aside.
func (x *Index) Close() error {
	x.disk.Lock()
	defer x.disk.Unlock()
	err := x.db.close()
	if x.damaged.Load() {
		err = setAside(x.cfg.Path)
	}
	return x.failed("close", err)
}

// failed wraps an error of the database with what was being done.
func (x *Index) failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	var ofEngine *engine.Error
	known := errors.As(err, &ofEngine)
	err = explain(err)
	damaged := errors.Is(err, ErrDamaged)
	if damaged && !x.damaged.Swap(true) {
		x.cfg.Logger.Warn("local index is damaged, and begins anew when nobody uses it any more", "path", x.cfg.Path, "cause", err)
	}
	err = fmt.Errorf("%s local index %s: %w", doing, x.cfg.Path, err)
	if damaged || known && !errors.Is(err, ErrBusy) {
		return &durable.Fault{Path: x.cfg.Path, Err: err}
	}
	return err
}

// Counts returns how many packs are known and how many chunks are in them. A chunk
// in two packs counts twice.
func (x *Index) Counts(ctx context.Context) (packs, chunks int64, err error) {
	x.disk.Lock()
	defer x.disk.Unlock()
	return int64(x.state.packs), int64(x.state.chunks), ctx.Err()
}
