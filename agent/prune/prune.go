// Package prune removes what retention lets go of an item: points, and the packs that
// no remaining point needs. It takes no lock and stops no backup, and its safety rests
// on no clock (docs/decisions/0009-prune-without-locks.md).
//
// A run has four parts, and each can be cut off anywhere: the next run goes on.
//
//	sessions  decides backups that ended long ago, and forgets those that are decided
//	sweep     removes what marks name that are older than the grace time
//	repack    rewrites packs of which little is needed
//	mark      puts a mark that names what is to go, and writes down which backups there
//	          were after it was visible (the witness)
//
// Invariants:
//   - A mark is swept only when every session of its witness is decided, and what a
//     point needs is read after that. So a backup that may lean on a marked pack is
//     counted, and one that came later has seen the mark.
//   - A point goes only if it is let go when it goes, and not only when it was marked.
//   - Which packs of a mark go is decided once, by one put, and every prune goes by that;
//     the mark is removed when it is carried out.
//   - Points go first, then packs, then what told of them, and the mark last. Where a
//     point was, a void stays for a year, so that no late repeat of its Put brings it back.
//   - If a point that is to stay cannot be read, nothing that it may need goes.
//   - Grace is kept by this host's clock and by the store's: whichever is behind.
//
// model_test.go goes through every interleaving of the protocol.
package prune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Errors of a prune.
var (
	// ErrMayNotDelete: the store's credentials do not allow to delete. What was marked
	// stays marked.
	ErrMayNotDelete = errors.New("the credentials of this host may not delete from the store")
	// ErrHeld: a point that was to go is held.
	ErrHeld = errors.New("point is held")
	// ErrLeavesNone: the item would have no point left.
	ErrLeavesNone = errors.New("no point would be left")
)

// Index is the local index of the item, brought up to the vault.
type Index interface {
	catalog.Local
	catalog.Lookup
	catalog.Places
	catalog.PointMemory
	catalog.Notebook
	// Contents returns what a pack holds; ok is false if it is not known.
	Contents(ctx context.Context, id pack.ID) (c pack.Contents, ok bool, err error)
	// DropSources forgets that index objects were added, and not what is in them.
	DropSources(ctx context.Context, names []string) error
}

// Config of a prune of one item.
type Config struct {
	Item  *catalog.Item
	Store store.Store // the item's
	Index Index
	// SyncPoints brings what Index remembers of points up to the vault, as
	// catalog.Item.SyncPoints does, which stands for nil.
	SyncPoints func(ctx context.Context) (catalog.SyncedPoints, error)

	Retention *policy.Retention // nil: all points are kept that nobody asked to go
	Allow     policy.Allow
	Grace     time.Duration // how long what is marked stays
	Abandon   time.Duration // after how long a backup that never ended is given up

	RepackBelow int             // rewrite packs of which less than so many percent are needed; 0: none
	RepackMost  int64           // bytes that are written for it at the most
	Lock        store.Retention // asked for on what is written in the place of something else

	DryRun bool // write and delete nothing in the store, and say what would go
	Host   string
	// Removing is called before a point is removed, perhaps again after a crash. ErrHeld
	// keeps the point and its mark; another error ends the run.
	Removing func(ctx context.Context, name catalog.PointName) error
	Progress *Progress // may be nil
	Clock    func() time.Time
	Log      *slog.Logger
}

// Result says what a run did, or would have done.
type Result struct {
	// Kept is how many points stay, and Nothing that the retention keeps none of them.
	Kept    int
	Nothing bool

	MarkedPoints, MarkedPacks, MarkedBytes int64 // put into marks by this run
	Goes                                   time.Time
	Pending                                int // marks that are there and whose time has not come
	// Waiting are backups that have not ended and hold back marks whose time has come.
	Waiting int

	RemovedPoints, RemovedPacks, FreedBytes int64
	RescuedPacks                            int64 // marked, and needed by a point that is there now
	RepackedPacks, RepackedBytes            int64 // rewritten, and bytes written for that
	Foreign                                 int64 // points that go, or went, because another host asked for it
	Locked                                  int64 // objects that the store does not let go yet
	LockedUntil                             time.Time
}

// Progress counts as a run goes on. It may be read at any time.
type Progress struct {
	Points  atomic.Int64 // looked at
	Read    atomic.Int64 // bytes read
	Removed atomic.Int64 // objects
}

// run is a prune under way.
type run struct {
	Config
	done  Result
	now   time.Time // by this host's clock
	store storeClock
	del   *remover

	open  []catalog.PointName // sessions that are not decided
	own   []catalog.PointName // sessions of this run
	marks []catalog.Mark
	seen  *survey
}

// Run prunes an item once. What it could not do because the store keeps an object, or
// because a backup has not ended, is in the result. After an error some of the work is
// done, and the next run goes on.
func Run(ctx context.Context, cfg Config) (Result, error) {
	r := newRun(cfg)
	err := r.run(ctx)
	r.del.report(&r.done)
	if err != nil {
		err = fmt.Errorf("prune %s: %w", cfg.Item.Name(), err)
	}
	return r.done, err
}

func newRun(cfg Config) *run {
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	if cfg.SyncPoints == nil {
		cfg.SyncPoints = func(ctx context.Context) (catalog.SyncedPoints, error) { return cfg.Item.SyncPoints(ctx, cfg.Index) }
	}
	return &run{Config: cfg, now: cfg.Clock(), store: storeClock{item: cfg.Item, objects: cfg.Store, mark: catalog.Mark{Created: cfg.Clock(), Host: cfg.Host}},
		del: &remover{store: cfg.Store, dry: cfg.DryRun, locks: !cfg.Lock.Until.IsZero(), now: cfg.Clock(), progress: cfg.Progress}}
}

func (r *run) run(ctx context.Context) error {
	if r.Retention != nil {
		if err := r.Retention.Check(r.Allow); err != nil {
			return err
		}
	}
	if err := r.giveUp(ctx); err != nil {
		return err
	}
	if err := r.sessions(ctx); err != nil {
		return err
	}
	ready, err := r.ripe(ctx)
	if err != nil {
		return err
	}
	// Only now, with the sessions of those marks decided.
	if r.seen, err = r.look(ctx); err != nil {
		return err
	}
	if err := r.sweep(ctx, ready); err != nil {
		return err
	}
	if err := r.repack(ctx); err != nil {
		return err
	}
	return r.mark(ctx)
}
