package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// file is a file being restored. It is created when its first chunk arrives and
// committed when its last one has been written.
type file struct {
	dir   *directory
	node  *tree.Node
	path  string
	link  *linked         // not nil if it has more names
	old   target.Existing // what was there, if it was compared
	reuse []span          // what is right in it

	pending atomic.Int32 // chunks asked for, and 1 for the plan

	create sync.Once
	w      target.File
	mu     sync.Mutex
	err    error // the first fault; nothing is committed then
}

type span struct{ at, length int64 }

// want is one chunk that a file needs.
type want struct {
	file *file
	id   chunk.ID
	loc  pack.Location
	at   int64 // in the file
}

// batch is what the plan asks for at a time.
type batch struct {
	wants []want
	bytes int
	dirs  int
	last  *directory
}

// Limits of a batch: they bound memory, open directories, and how far a chunk may
// be from its neighbour in the pack and still be read together with it.
const (
	batchWants = 8192
	batchBytes = 64 << 20
	batchDirs  = 256
)

// add adds a want and tells whether the batch is full.
func (b *batch) add(w want) bool {
	b.wants = append(b.wants, w)
	b.bytes += int(w.loc.Length)
	if w.file.dir != b.last {
		b.last = w.file.dir
		b.dirs++
	}
	return len(b.wants) >= batchWants || b.bytes >= batchBytes || b.dirs >= batchDirs
}

// fetch is a run of neighbouring frames of one pack, and what is wanted of them.
type fetch struct {
	wants []want // sorted by frame
	size  int    // bytes from the first frame to the last
}

// fetchBytes is how much is read at once, about; gapBytes how much that nobody
// wants may be in between.
const (
	fetchBytes = 4 << 20
	gapBytes   = 256 << 10
)

// schedule sorts batches by place and cuts them into fetches.
func (r *run) schedule(ctx context.Context, out chan<- fetch) error {
	for b := range r.batches {
		slices.SortStableFunc(b.wants, func(x, y want) int {
			if c := slices.Compare(x.loc.Pack[:], y.loc.Pack[:]); c != 0 {
				return c
			}
			return int(int64(x.loc.At) - int64(y.loc.At))
		})
		for start := 0; start < len(b.wants); {
			f := cutFetch(b.wants[start:])
			start += len(f.wants)
			select {
			case out <- f:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// cutFetch takes as many wants as are worth reading at once.
func cutFetch(wants []want) fetch {
	first := wants[0].loc
	end := first.At + first.Stored
	n := 1
	for ; n < len(wants); n++ {
		loc := wants[n].loc
		if loc.Pack != first.Pack || loc.At > end+gapBytes || (loc.At >= end && loc.At+loc.Stored-first.At > fetchBytes) {
			break
		}
		end = max(end, loc.At+loc.Stored)
	}
	return cut(wants, n)
}

// cut takes the first n of wants of one pack.
func cut(wants []want, n int) fetch {
	last := wants[n-1].loc
	return fetch{wants: wants[:n], size: int(last.At + last.Stored - wants[0].loc.At)}
}

// frameOf returns how many of the wants are of the first one's frame.
func frameOf(wants []want) int {
	n := 1
	for n < len(wants) && wants[n].loc.Frame == wants[0].loc.Frame {
		n++
	}
	return n
}

// fetcher reads, opens, decompresses and writes.
type fetcher struct {
	*run
	sealed, raw []byte
}

func newFetcher(r *run) *fetcher { return &fetcher{run: r} }

func (f *fetcher) work(ctx context.Context, fetches <-chan fetch) error {
	for work := range fetches {
		if err := f.fetch(ctx, work); err != nil {
			return err
		}
	}
	return nil
}

// fetch gets one run of frames and writes what is wanted of them.
func (f *fetcher) fetch(ctx context.Context, work fetch) error {
	if f.DryRun {
		return f.each(ctx, work.wants, func(w want) error {
			f.Progress.Written.Add(uint64(w.loc.Length))
			return nil
		})
	}
	if cap(f.sealed) < work.size {
		f.sealed = make([]byte, max(work.size, fetchBytes))
	}
	sealed := f.sealed[:work.size]
	first := work.wants[0].loc
	err := f.Reader.Packs.Read(ctx, first, sealed)
	if n := frameOf(work.wants); errors.Is(err, store.ErrShort) && n < len(work.wants) {
		// The pack was cut off, but perhaps behind some of these.
		return errors.Join(f.fetch(ctx, cut(work.wants, n)), f.fetch(ctx, cut(work.wants[n:], len(work.wants)-n)))
	}
	if err != nil {
		if !catalog.Lost(err) {
			return err
		}
		return f.each(ctx, work.wants, func(w want) error { return f.elsewhere(ctx, w, err) })
	}
	return f.frames(ctx, work, sealed)
}

// frames writes what is wanted of frames that have been read.
func (f *fetcher) frames(ctx context.Context, work fetch, sealed []byte) error {
	first := work.wants[0].loc
	for start := 0; start < len(work.wants); {
		loc := work.wants[start].loc
		n := frameOf(work.wants[start:])
		at := loc.At - first.At
		raw, openErr := f.Reader.Packs.Open(ctx, loc, sealed[at:at+loc.Stored], f.raw)
		if openErr == nil {
			f.raw = raw
		} else if !catalog.Lost(openErr) {
			return openErr
		}
		err := f.each(ctx, work.wants[start:start+n], func(w want) error {
			if openErr != nil {
				return f.elsewhere(ctx, w, openErr)
			}
			data, err := f.Reader.Cut(ctx, raw, w.loc, w.id)
			if err != nil {
				return f.elsewhere(ctx, w, err)
			}
			return f.write(w, data)
		})
		if err != nil {
			return err
		}
		start += n
	}
	return nil
}

// each does something for every want and settles it. A fault of one file does not
// stop the others; a fault of the target as a whole does.
func (f *fetcher) each(ctx context.Context, wants []want, do func(want) error) error {
	for _, w := range wants {
		err := do(w)
		if err != nil {
			w.file.fail(err)
			if errors.Is(err, target.ErrFull) || errors.Is(err, target.ErrReadOnly) {
				return fmt.Errorf("%s: %w", w.file.path, err)
			}
		}
		if err := f.complete(ctx, w.file); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// elsewhere writes a chunk that could not be had where it was looked for first, if
// another pack has it.
func (f *fetcher) elsewhere(ctx context.Context, w want, cause error) error {
	if !catalog.Lost(cause) {
		return cause
	}
	data, err := f.Reader.Elsewhere(ctx, w.id, w.loc, cause)
	if err != nil {
		return err
	}
	return f.write(w, data)
}

func (f *fetcher) write(w want, data []byte) error {
	if err := w.file.open(); err != nil {
		return err
	}
	if _, err := w.file.w.WriteAt(data, w.at); err != nil {
		return err
	}
	f.Progress.Written.Add(uint64(len(data)))
	return nil
}

// open creates the file, with what is taken over from the one that is there.
func (f *file) open() error {
	if err := f.failed(); err != nil {
		return err
	}
	f.create.Do(func() {
		w, err := f.dir.Create(f.node)
		if err != nil {
			f.fail(err)
			return
		}
		f.w = w
		for _, s := range f.reuse {
			if err := w.Reuse(f.old, s.at, s.length); err != nil {
				f.fail(err)
				return
			}
		}
	})
	return f.failed()
}

func (f *file) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *file) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

// abort removes what has been written.
func (f *file) abort() {
	if f.w != nil {
		f.w.Abort()
	}
	if f.old != nil {
		f.old.Close()
	}
}

// complete settles one chunk of a file, or the plan of it. The last one commits
// the file.
func (r *run) complete(ctx context.Context, f *file) error {
	if f.pending.Add(-1) > 0 {
		return nil
	}
	err := f.failed()
	if !r.DryRun {
		if err = f.open(); err == nil {
			err = f.w.Commit()
			f.w = nil
		}
	}
	f.abort()
	if err := r.fault(ctx, f.path, err); err != nil {
		return err
	}
	if err == nil {
		r.Progress.Files.Add(1)
	}
	if err := r.settle(ctx, f.link, err == nil, nil); err != nil {
		return err
	}
	return r.finish(ctx, f.dir)
}
