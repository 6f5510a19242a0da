package restore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

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
	// Knows tells whether the index knows a pack; nil: it is up to date. A point that
	// needs a pack which it does not know, and an index object names, was made by another
	// host since the index was brought up: of all points, it is left for the next time.
	Knows func(ctx context.Context, id pack.ID) (bool, error)

	// Structure leaves out the content: it reads what packs, indexes and points say
	// of themselves and whether all of it fits together.
	Structure bool
	// Read chooses the packs that are looked into; nil: all. Of the others it is only
	// checked that they are there.
	Read func(pack.ID) bool
	// Checked, if not nil, is told of each pack that was read, and what is wrong with
	// it. It is called concurrently.
	Checked func(pack.ID, error)

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

// MaxFindings is how many findings a verification remembers. Progress counts all.
const MaxFindings = 10_000

// Report is what a verification found.
type Report struct {
	// Findings are what is wrong and harms a point, by object and path: the first
	// MaxFindings.
	Findings []Finding
	// Spare is what is wrong and harms none: a damaged pack that no point needs, a
	// damaged index of packs that others name.
	Spare []Finding

	Damaged []pack.ID           // packs that are damaged or gone, sorted
	Indexes []string            // index objects that do not open
	Unnamed []pack.ID           // packs that are there, and in no index that opens, sorted
	Points  []catalog.PointName // that do not restore as a whole
}

// Verify checks an item: that every index opens and agrees with its packs, that
// every pack is there, opens, and holds what it says, byte for byte, and that every
// point finds everything it needs. It writes nothing. The error says that it could
// not go on; the report is what it had found until then.
//
// Packs are read once each and from front to back, however many points use them,
// where a restore of every point into the void would read them again and again. Of a
// pack that is damaged each frame is tried: what can still be had from it is not lost.
//
// Backups and prunes may go on meanwhile. What a prune takes away is not missed.
func Verify(ctx context.Context, cfg VerifyConfig) (Report, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(VerifyProgress)
	}
	v := &verify{VerifyConfig: cfg, packs: make(map[pack.ID]*health), needed: make(map[pack.ID]struct{}), harmed: make(map[catalog.PointName]uint64), seen: make(map[chunk.ID]int)}
	err := v.run(ctx)
	v.report.sort()
	return v.report, err
}

func (r *Report) sort() {
	byID := func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) }
	slices.SortFunc(r.Damaged, byID)
	slices.SortFunc(r.Unnamed, byID)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return slices.Compare([]byte(a.Object), []byte(b.Object)) })
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
	only    bool // packs that Points need, and no others
	repacks catalog.Repacks
	needed  map[pack.ID]struct{}

	mu      sync.Mutex
	report  Report
	packs   map[pack.ID]*health // that are there, or that an index names
	indexes []Finding           // of those that do not open

	cover  cover
	seen   map[chunk.ID]int             // tree chunks below which all is well, and for which point they were looked at
	faulty uint64                       // findings of the point being checked
	harmed map[catalog.PointName]uint64 // findings of the points that have some
}

func (v *verify) run(ctx context.Context) error {
	names := v.Points
	var err error
	if names == nil {
		if names, err = v.Item.Points(ctx); err != nil {
			return err
		}
	}
	if err := v.readRepacks(ctx); err != nil {
		return err
	}
	if v.only = v.Points != nil; v.only {
		if err := v.need(ctx, names); err != nil {
			return err
		}
	} else if err := errors.Join(v.strays(ctx), v.records(ctx)); err != nil {
		return err
	}
	if err := v.readPacks(ctx); err != nil {
		return err
	}
	if err := v.points(ctx, names); err != nil {
		return err
	}
	return v.settle(ctx)
}

func (v *verify) strays(ctx context.Context) error {
	for key, err := range v.Item.Strays(ctx) {
		if err != nil {
			return err
		}
		if err := v.found(ctx, key, "", fmt.Errorf("it is no object of a vault: %w", crypt.ErrDamaged)); err != nil {
			return err
		}
	}
	return nil
}

// need notes the packs of the points that were asked for. What is wrong with a point
// is said when it is checked.
func (v *verify) need(ctx context.Context, names []catalog.PointName) error {
	for _, name := range names {
		p, err := v.Item.Point(ctx, name)
		if err != nil {
			if ctx.Err() != nil || passing(err) {
				return err
			}
			continue
		}
		for _, id := range v.repacks.PacksOf(p) {
			v.needed[id] = struct{}{}
		}
	}
	return nil
}

// passing tells whether an error is of the way to the vault and not of the vault.
func passing(err error) bool {
	for _, known := range []error{store.ErrUnavailable, store.ErrDenied, store.ErrMissing, crypt.ErrClosed} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// found records a fault of the vault and lets the verification go on; a fault of
// the way to it ends it.
func (v *verify) found(ctx context.Context, object store.Key, path string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case passing(err):
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keep(Finding{object, path, err})
	return nil
}

// keep adds a finding. The caller holds mu.
func (v *verify) keep(f Finding) {
	v.Progress.Damaged.Add(1)
	v.faulty++
	if len(v.report.Findings) < MaxFindings {
		v.report.Findings = append(v.report.Findings, f)
	}
}

// lost is found for what the way to it, the local index for one, can fail too.
func (v *verify) lost(ctx context.Context, object store.Key, path string, err error) error {
	if err != nil && !catalog.Lost(err) {
		return err
	}
	return v.found(ctx, object, path, err)
}

// settle says what is wrong with packs and indexes, now that it is known which of
// them points need.
func (v *verify) settle(ctx context.Context) error {
	if err := v.forgive(ctx); err != nil {
		return err
	}
	unnamed := false // a pack that is needed
	for _, id := range slices.SortedFunc(maps.Keys(v.packs), func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) }) {
		h := v.packs[id]
		_, needed := v.needed[id]
		if !h.named {
			v.report.Unnamed = append(v.report.Unnamed, id)
			unnamed = unnamed || needed
		}
		if h.err == nil {
			continue
		}
		if gone, err := v.letGo(ctx, h, needed); err != nil || gone {
			if err != nil {
				return err
			}
			continue
		}
		v.report.Damaged = append(v.report.Damaged, id)
		v.put(Finding{Object: pack.Key(v.Item.ID(), id), Err: h.err}, needed)
	}
	for _, f := range v.indexes {
		v.put(f, unnamed)
	}
	return nil
}

// put adds a finding to those that harm a point, or to the others.
func (v *verify) put(f Finding, harms bool) {
	if harms {
		v.keep(f)
	} else if len(v.report.Spare) < MaxFindings {
		v.report.Spare = append(v.report.Spare, f)
	}
}

// letGo tells whether a pack that is not there was taken away by a prune: then no
// point needs it, and the index that named it is gone as well or about to go.
func (v *verify) letGo(ctx context.Context, h *health, needed bool) (bool, error) {
	if needed || h.index == "" || !errors.Is(h.err, store.ErrNotExist) {
		return false, nil
	}
	_, err := v.Objects.Stat(ctx, v.Item.IndexKey(h.index))
	if errors.Is(err, store.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// forgive takes back what was found wrong with points that are there no more, or of
// which only the name is left.
func (v *verify) forgive(ctx context.Context) error {
	var still []catalog.PointName
	for _, name := range v.report.Points {
		key := v.Item.PointKey(name)
		info, err := v.Objects.Stat(ctx, key)
		switch {
		case err == nil && info.Size > 0:
			still = append(still, name)
		case err == nil, errors.Is(err, store.ErrNotExist):
			v.report.Findings = slices.DeleteFunc(v.report.Findings, func(f Finding) bool { return f.Object == key })
			v.Progress.Damaged.Add(-v.harmed[name])
		default:
			return err
		}
	}
	v.report.Points = still
	return nil
}
