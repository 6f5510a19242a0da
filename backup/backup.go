// Package backup is the way out: from a source to a point in a vault.
//
//	source -> chunk -> (known?) -> frame -> compress -> seal -> pack -> store
//
// Run is the whole of it, in order. Directories are walked by a few walkers at
// once (walk.go); small files and trees are gathered into frames by the walker
// that reads them, large files are cut into chunks that any worker takes
// (content.go); workers name, compress and seal (frame.go); full packs are put
// and then made known by index objects (pack.go).
//
// Invariants:
//   - A session is announced before anything else, and a point leans on nothing that a
//     prune has marked (session.go), so that no prune takes away what it needs.
//   - A point is written last, when everything it needs is in the store: packs,
//     then indexes, then the point. It is there whole or not at all.
//   - What was passed over with a fault is in the point, in its count and in the
//     report; nothing is left out silently.
//   - Memory does not grow with the size of the source: every buffer comes from a
//     bounded pool, and whoever wants one waits.
package backup

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Index is the local index of the item.
type Index interface {
	catalog.Local
	catalog.Lookup
	catalog.Places
	catalog.Notebook
	catalog.PointMemory
	catalog.SessionMemory
	// HasPack tells whether the pack is known.
	HasPack(ctx context.Context, id pack.ID) (bool, error)
	// Unsourced returns the packs that were found after an interrupted backup and
	// that no index object names yet.
	Unsourced(ctx context.Context) ([]pack.Contents, error)
}

// Config of a backup.
type Config struct {
	Item   *catalog.Item
	Packs  store.Putter // where packs go: the item's store
	Index  Index
	Source source.Source

	// BringUp brings the index up to the vault, as catalog.Item.SyncPacks does, which stands
	// for nil. It is called once, after the backup has been announced.
	BringUp func(ctx context.Context) (catalog.Synced, error)
	// Retain makes the store keep packs and index objects of earlier backups as long
	// as Retention asks. It is called before the point is written, with all that the
	// point leans on and that is older than the backup; nil if nothing is to be kept.
	Retain func(ctx context.Context, packs []pack.ID, indexes []string) error

	Level     chunk.Level     // compression
	Retention store.Retention // asked for on every object
	FullRead  bool            // read unchanged files too
	Tags      []string
	Host      string // where the source is
	Agent     string // version of this program

	Uploads  int       // packs put at once; 0 means 2
	Progress *Progress // counts as it goes; may be nil
	Clock    func() time.Time
	Log      *slog.Logger
}

// Run makes one backup and returns its point. On an error no point is written;
// what was already put stays and is used by the next run.
func Run(ctx context.Context, cfg Config) (*catalog.Point, error) {
	r, err := prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return r.run(ctx)
}

// run is one backup under way.
type run struct {
	Config
	session *catalog.Session
	secret  *crypt.Secret
	reader  *catalog.Reader
	avoid   avoidance
	parent  *catalog.Point // nil: nothing to compare with
	wary    bool           // the parent needs packs that the new point is not to lean on
	needs   []pack.ID      // what the parent needs
	claims  *claims
	packer  *packer
	pools   pools
	work    chan task
	walkers chan *walker

	polynomial chunk.Polynomial

	mu      sync.Mutex
	skipped []catalog.Skip
	loose   uint64
}

// prepare opens the item's secret, announces the backup, and finds the point to compare
// with.
func prepare(ctx context.Context, cfg Config) (*run, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	if cfg.Uploads == 0 {
		cfg.Uploads = 2
	}
	if cfg.BringUp == nil {
		cfg.BringUp = func(ctx context.Context) (catalog.Synced, error) { return cfg.Item.SyncPacks(ctx, cfg.Index) }
	}
	r := &run{Config: cfg}
	var err error
	if r.secret, err = cfg.Item.Secret(ctx, cfg.Item.Generation()); err != nil {
		return nil, err
	}
	if r.polynomial, err = r.secret.Polynomial(); err != nil {
		return nil, err
	}
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	// A crash from here to End leaves packs that no index names; the next Sync is
	// told so by the mark, and finds them.
	if _, err := cfg.Index.Begin(ctx); err != nil {
		return nil, err
	}
	return r, r.findParent(ctx)
}

// run carries the data through the stages.
func (r *run) run(ctx context.Context) (*catalog.Point, error) {
	session, err := r.Source.Open(ctx, r.skip)
	if err != nil {
		return nil, err
	}
	defer session.Close()

	stages, sctx := errgroup.WithContext(ctx)
	if err := r.start(sctx, stages); err != nil { // workers and uploads: known? -> frame -> compress -> seal -> pack -> store
		return nil, err
	}

	var root []chunk.ID
	stages.Go(func() error { // source -> chunk
		defer close(r.work)
		var err error
		if root, err = r.walk(sctx, session); err != nil {
			return err
		}
		return session.Finish(sctx)
	})
	if err := stages.Wait(); err != nil {
		return nil, cause(ctx, err)
	}
	if len(root) == 0 {
		return nil, source.ErrNothing
	}
	if err := r.packer.finish(ctx); err != nil { // the last pack and index
		return nil, err
	}
	// A crash here leaves everything but the point: the next run finds all chunks
	// known and puts only the point.
	return r.commit(ctx, session, root)
}

// minWalkers keeps disks busy where there are few processors.
const minWalkers = 4

// start makes the pools and starts the workers and uploads.
func (r *run) start(ctx context.Context, stages *errgroup.Group) error {
	cpus := runtime.GOMAXPROCS(0)
	r.claims = newClaims()
	r.packer = newPacker(r)
	r.work = make(chan task)
	r.walkers = make(chan *walker, max(minWalkers, cpus))
	for range cap(r.walkers) {
		namer, err := r.secret.Namer()
		if err != nil {
			return err
		}
		r.walkers <- &walker{run: r, namer: namer}
	}
	r.pools = newPools(cpus, cap(r.walkers))
	var sealing sync.WaitGroup
	for range cpus {
		sealing.Add(1)
		stages.Go(func() error {
			defer sealing.Done()
			w, err := newWorker(r)
			if err != nil {
				return err
			}
			return w.work(ctx)
		})
	}
	stages.Go(func() error {
		sealing.Wait()
		return r.packer.drain(ctx)
	})
	for range r.Uploads {
		stages.Go(func() error { return r.packer.upload(ctx) })
	}
	return nil
}

// commit writes the point.
func (r *run) commit(ctx context.Context, session source.Session, root []chunk.ID) (*catalog.Point, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	users, groups := session.Owners()
	p := &catalog.Point{
		Item: r.Item.Name(), Kind: r.Source.Kind(), Host: r.Host, Agent: r.Agent, Tags: r.Tags,
		Name: r.session.Name, Started: r.session.Started.UnixNano(), Ended: r.Clock().UnixNano(),
		Root: root, Stats: r.Progress.stats(), Users: users, Groups: groups,
		Skipped: r.skipped, Loose: r.loose,
	}
	if err := r.listPacks(ctx, p); err != nil {
		return nil, err
	}
	if err := r.retain(ctx, p); err != nil {
		return nil, err
	}
	if err := r.Item.PutPoint(ctx, p, store.PutOptions{Retention: r.Retention}); err != nil {
		return nil, err
	}
	// A crash here leaves a good point and the mark of an unclean end: the next
	// run lists the packs once more, no harm done.
	ended := context.WithoutCancel(ctx)
	if err := errors.Join(r.Index.DropSession(ended, p.Name), r.Index.End(ended)); err != nil {
		r.Log.Warn("local index not closed", "item", r.Item.Name(), "error", err)
	}
	return p, nil
}

// listPacks says which packs the point needs.
func (r *run) listPacks(ctx context.Context, p *catalog.Point) error {
	used := r.packer.used
	if r.parent != nil {
		p.Parent = string(r.parent.Name)
	}
	switch {
	case r.wary: // every chunk was looked up: the list is exact
		p.Loose = 0
	case r.parent != nil:
		p.Loose += r.parent.Loose
		for _, id := range r.needs {
			used[id] = struct{}{}
		}
	}
	if entries := p.Stats.Files + p.Stats.Dirs + p.Stats.Others; p.Loose*looseShare > entries {
		exact, err := r.reader.PacksOf(ctx, p.Root)
		switch {
		case err == nil:
			used, p.Loose = exact, 0
		case catalog.Lost(err): // the point leans on what verify has not found yet
			r.Log.Warn("the list of packs that the point needs stays longer than it has to be, as something cannot be read; see coffer verify", "item", r.Item.Name(), "error", err)
		default:
			return err
		}
	}
	p.Packs = slices.SortedFunc(maps.Keys(used), func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) })
	return nil
}

// looseShare: once more than a fifth of a point's entries have been dropped since
// its list of packs was exact, the list is computed anew.
const looseShare = 5

// skip records an entry that was passed over. It may be called concurrently.
func (r *run) skip(s source.Skip) {
	if s.Fault {
		r.Progress.Skipped.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.skipped) < catalog.MaxSkipped {
		r.skipped = append(r.skipped, catalog.Skip{Path: []byte(s.Path), Reason: strings.ToValidUTF8(s.Reason, "?"), Fault: s.Fault})
	}
}

// cause prefers the reason for which the caller ended ctx.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
