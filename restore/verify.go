package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// VerifyConfig of a verification.
type VerifyConfig struct {
	Item    *catalog.Item
	Objects store.Getter
	Reader  *catalog.Reader     // of the item, over an index that is up to date
	Points  []catalog.PointName // nil: all of the item

	// Structure leaves out the content: it reads what packs, indexes and points say
	// of themselves and whether all of it fits together.
	Structure bool

	Progress *VerifyProgress // counts as it goes; may be nil
}

// VerifyProgress counts what has been verified. It may be read at any time.
type VerifyProgress struct {
	Points  atomic.Uint64
	Packs   atomic.Uint64
	Chunks  atomic.Uint64
	Files   atomic.Uint64 // files whose content was found to be there, in all points
	Bytes   atomic.Uint64 // read from the store
	Damaged atomic.Uint64
}

// Finding is something that is wrong with the vault.
type Finding struct {
	Object store.Key
	Path   string // in a point, where that is known
	Err    error
}

// Verify checks an item: that every index opens and agrees with its packs, that
// every pack is there, opens, and holds what it says, byte for byte, and that every
// point finds everything it needs. It writes nothing. It returns what it found to
// be wrong; the error says that it could not go on.
//
// Packs are read once each and from front to back, however many points use them,
// where a restore of every point into the void would read them again and again.
func Verify(ctx context.Context, cfg VerifyConfig) ([]Finding, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(VerifyProgress)
	}
	v := &verify{VerifyConfig: cfg, good: make(map[pack.ID]struct{}), seen: make(map[chunk.ID]int)}
	err := v.run(ctx)
	slices.SortFunc(v.findings, func(a, b Finding) int { return slices.Compare([]byte(a.Object), []byte(b.Object)) })
	return v.findings, err
}

// VerifyRecords checks the descriptor of a vault and all its key records.
func VerifyRecords(ctx context.Context, vault *catalog.Vault) ([]Finding, error) {
	var findings []Finding
	for key, err := range vault.CheckRecords(ctx) {
		if key == "" && err != nil {
			return findings, fmt.Errorf("verify records: %w", err)
		}
		if err != nil {
			findings = append(findings, Finding{Object: key, Err: err})
		}
	}
	return findings, nil
}

type verify struct {
	VerifyConfig
	needed map[pack.ID]struct{} // nil: all

	mu       sync.Mutex
	findings []Finding
	good     map[pack.ID]struct{} // packs found to be right

	cover cover
	seen  map[chunk.ID]int // tree chunks already looked at, and for which point
}

func (v *verify) run(ctx context.Context) error {
	names := v.Points
	if names == nil {
		var err error
		if names, err = v.Item.Points(ctx); err != nil {
			return err
		}
	}
	for key, err := range v.Item.Strays(ctx) {
		if err != nil {
			return err
		}
		if err := v.found(ctx, key, "", fmt.Errorf("it is no object of a vault: %w", crypt.ErrDamaged)); err != nil {
			return err
		}
	}
	points, err := v.points(ctx, names)
	if err != nil {
		return err
	}
	if err := v.packs(ctx); err != nil {
		return err
	}
	v.cover.points = points
	for n, p := range points {
		v.cover.begin(n)
		if err := v.point(ctx, p); err != nil {
			return err
		}
		v.Progress.Points.Add(1)
	}
	return nil
}

// found records a fault of the vault and lets the verification go on; a fault of
// the way to it ends it.
func (v *verify) found(ctx context.Context, object store.Key, path string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrDenied), errors.Is(err, store.ErrMissing),
		errors.Is(err, crypt.ErrClosed):
		return err
	}
	v.Progress.Damaged.Add(1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.findings = append(v.findings, Finding{object, path, err})
	return nil
}

// lost is found for what the way to it, the local index for one, can fail too.
func (v *verify) lost(ctx context.Context, object store.Key, path string, err error) error {
	if err != nil && !lost(err) {
		return err
	}
	return v.found(ctx, object, path, err)
}

// points reads the points and notes which packs they need.
func (v *verify) points(ctx context.Context, names []catalog.PointName) ([]*catalog.Point, error) {
	var points []*catalog.Point
	if v.Points != nil {
		v.needed = make(map[pack.ID]struct{})
	}
	for _, name := range names {
		p, err := v.Item.Point(ctx, name)
		if err != nil {
			if err := v.found(ctx, v.Item.PointKey(name), "", err); err != nil {
				return nil, err
			}
			continue
		}
		points = append(points, p)
		if v.needed != nil {
			for _, id := range p.Packs {
				v.needed[id] = struct{}{}
			}
		}
	}
	return points, nil
}

// packs verifies every index object and every pack that one names.
func (v *verify) packs(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan pack.Contents)
	group.Go(func() error {
		defer close(work)
		for name, err := range v.Item.Indexes(ctx) {
			if err != nil {
				return err
			}
			contents, err := v.Item.Index(ctx, name)
			if err := v.found(ctx, v.Item.IndexKey(name), "", err); err != nil {
				return err
			}
			for _, c := range contents {
				if _, ok := v.needed[c.Pack]; v.needed != nil && !ok {
					continue
				}
				select {
				case work <- c:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			w := packVerifier{verify: v}
			for c := range work {
				err := w.pack(ctx, c)
				if err == nil {
					v.mu.Lock()
					v.good[c.Pack] = struct{}{}
					v.mu.Unlock()
				} else if err := v.found(ctx, pack.Key(v.Item.ID(), c.Pack), "", err); err != nil {
					return err
				}
				v.Progress.Packs.Add(1)
			}
			return nil
		})
	}
	return group.Wait()
}

// packVerifier is a goroutine's memory for verifying packs.
type packVerifier struct {
	*verify
	object, raw []byte
}

// pack verifies one pack against what an index says of it.
func (w *packVerifier) pack(ctx context.Context, want pack.Contents) error {
	have, err := w.Reader.Packs.Contents(ctx, want.Pack)
	if err != nil {
		return err
	}
	if !have.Equal(want) {
		return fmt.Errorf("pack and index contradict each other: %w", crypt.ErrDamaged)
	}
	if w.Structure {
		return nil
	}
	key := pack.Key(w.Item.ID(), want.Pack)
	info, err := w.Objects.Stat(ctx, key)
	if err != nil {
		return err
	}
	if int64(cap(w.object)) < info.Size {
		w.object = make([]byte, max(info.Size, pack.TargetSize+1<<20))
	}
	object := w.object[:info.Size]
	if err := w.Objects.Get(ctx, key, object, 0); err != nil {
		return err
	}
	w.Progress.Bytes.Add(uint64(len(object)))
	if _, err := pack.Scrub(object); err != nil {
		return err
	}
	return w.frames(ctx, have, object)
}

// frames opens every frame of a pack and checks every chunk in it.
func (w *packVerifier) frames(ctx context.Context, c pack.Contents, object []byte) error {
	var raw []byte
	frame := -1
	for id, loc := range c.Locations {
		if int(loc.Frame) != frame {
			if err := ctx.Err(); err != nil {
				return err
			}
			frame = int(loc.Frame)
			var err error
			if raw, err = w.Reader.Packs.Open(ctx, loc, object[loc.At:loc.At+loc.Stored], w.raw); err != nil {
				return err
			}
			w.raw = raw
		}
		if _, err := w.Reader.Cut(ctx, raw, loc, id); err != nil {
			return err
		}
		w.Progress.Chunks.Add(1)
	}
	return nil
}
