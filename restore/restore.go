// Package restore is the way back: from a point in a vault to a target, and the
// other ways to look into a point.
//
//	target <- chunk <- frame <- decompress <- open <- pack <- store
//
// Run is the whole of it. One goroutine walks the point's trees and decides what
// has to be written (plan.go); what it asks for is collected into batches, sorted
// by where it is in the packs, and fetched and written by workers, so that every
// frame is read once and several are in flight (fetch.go).
//
// Invariants:
//   - Nothing is written that does not authenticate and carry the right chunk id.
//   - A file appears under its name only when it is complete; a file that is
//     already right is not touched.
//   - Names are single components by the format; the target keeps everything
//     inside itself.
package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore/target"
)

// Overwrite says what to do with files that are already in the target.
type Overwrite uint8

// The policies. The zero value writes what differs.
const (
	IfDifferent Overwrite = iota // leave a file of the same size and time, write others
	Never                        // leave whatever is there
	Always                       // compare every file's content
)

// Config of a restore.
type Config struct {
	Point  *catalog.Point
	Reader *catalog.Reader // of the point's item
	Target target.Target

	Select       Selection // nothing set: everything
	Overwrite    Overwrite
	Delete       bool // remove what the point does not have, in selected directories
	DryRun       bool
	NumericOwner bool

	Progress *Progress // counts as it goes; may be nil
}

// Progress counts what a restore has done so far. It may be read at any time.
// Bytes are plaintext.
type Progress struct {
	Files   atomic.Uint64 // complete: written or found to be right
	Dirs    atomic.Uint64
	Others  atomic.Uint64 // symlinks, hard links, devices, FIFOs
	Bytes   atomic.Uint64 // of files complete or under way, holes included
	Written atomic.Uint64 // bytes written
	Kept    atomic.Uint64 // files that were right or not to be overwritten
	Deleted atomic.Uint64
	Skipped atomic.Uint64 // entries that could not be restored, or not with everything
}

// Result of a restore.
type Result struct {
	Skipped []catalog.Skip // at most catalog.MaxSkipped; Progress counts all
}

// ErrNoMatch: nothing in the point is selected.
var ErrNoMatch = errors.New("nothing in the point matches")

// Run restores the selected part of a point. Entries that cannot be restored are
// skipped and reported; a fault of the vault or of the target as a whole ends it.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	r := &run{Config: cfg, links: make(map[link]*linked)}
	err := r.run(ctx)
	return Result{Skipped: r.skipped}, err
}

// run is one restore under way.
type run struct {
	Config
	sink    target.Sink
	batches chan *batch

	mu      sync.Mutex
	skipped []catalog.Skip
	links   map[link]*linked
	matched bool
}

func (r *run) run(ctx context.Context) (err error) {
	if err := r.exist(ctx); err != nil {
		return err
	}
	r.sink, err = r.Target.Open(ctx, target.Options{
		Users: r.Point.Users, Groups: r.Point.Groups, NumericOwner: r.NumericOwner, DryRun: r.DryRun, Report: r.lack,
	})
	if err != nil {
		return err
	}
	defer r.sink.Close()

	stages, sctx := errgroup.WithContext(ctx)
	r.batches = make(chan *batch, 1)
	fetches := make(chan fetch)
	stages.Go(func() error { // decide what is needed
		defer close(r.batches)
		return r.plan(sctx)
	})
	stages.Go(func() error { // sort it by where it is
		defer close(fetches)
		return r.schedule(sctx, fetches)
	})
	for range runtime.GOMAXPROCS(0) + 2 { // read, open, decompress, write
		stages.Go(func() error { return newFetcher(r).work(sctx, fetches) })
	}
	if err := stages.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !r.matched {
		return fmt.Errorf("%w %s", ErrNoMatch, strings.Join(slices.Concat(r.Select.Paths, r.Select.Patterns), ", "))
	}
	if r.DryRun {
		return nil
	}
	return r.sink.Finish(ctx)
}

// exist makes sure that the paths that are asked for are in the point, before the
// target is touched.
func (r *run) exist(ctx context.Context) error {
	for _, path := range r.Select.Paths {
		if _, err := Find(ctx, r.Reader, r.Point.Root, path); err != nil {
			return err
		}
	}
	return nil
}

// lack records what an entry had to go without.
func (r *run) lack(l target.Lack) { r.skip(l.Path, l.Reason) }

// fault records an entry that cannot be restored and lets the restore go on,
// unless everything after it would fail too.
func (r *run) fault(ctx context.Context, path string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, target.ErrFull), errors.Is(err, target.ErrReadOnly):
		return fmt.Errorf("write %s: %w", path, err)
	}
	r.skip(path, err.Error())
	return nil
}

func (r *run) skip(path, reason string) {
	r.Progress.Skipped.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.skipped) < catalog.MaxSkipped {
		r.skipped = append(r.skipped, catalog.Skip{Path: []byte(path), Reason: reason, Fault: true})
	}
}
