package proof

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store/pack"
)

// Index is what is remembered of packs and points beside where they are.
type Index interface {
	Packs(ctx context.Context) iter.Seq2[pack.ID, error]
	catalog.Notebook
	catalog.PointMemory
}

// Packs returns the packs that are known, with what is noted of their reading, and
// which of them are known to be damaged.
func Packs(ctx context.Context, ix Index) (packs []Pack, damaged map[pack.ID]struct{}, err error) {
	read, damaged := make(map[pack.ID]int64), make(map[pack.ID]struct{})
	for n, err := range ix.Notes(ctx, catalog.NoteRead) {
		if err != nil {
			return nil, nil, err
		}
		read[n.Pack] = n.Value
	}
	for n, err := range ix.Notes(ctx, catalog.NoteDamaged) {
		if err != nil {
			return nil, nil, err
		}
		damaged[n.Pack] = struct{}{}
	}
	for id, err := range ix.Packs(ctx) {
		if err != nil {
			return nil, nil, err
		}
		p := Pack{ID: id}
		switch at := read[id]; {
		case at > 0:
			p.Read = time.Unix(at, 0)
		case at < 0: // known since, and not read
			p.Known = time.Unix(-at, 0)
		}
		packs = append(packs, p)
	}
	return packs, damaged, nil
}

// Oldest returns the oldest reading of any of the packs; zero if one was never read, or
// if there are none.
func Oldest(packs []Pack) time.Time {
	var oldest time.Time
	for i, p := range packs {
		if p.Read.IsZero() {
			return time.Time{}
		}
		if i == 0 || p.Read.Before(oldest) {
			oldest = p.Read
		}
	}
	return oldest
}

// Meet notes of packs that nothing is noted of, or what a clock that was wrong has
// noted, from when on their time runs.
func Meet(ctx context.Context, ix Index, packs []Pack, plan Plan) error {
	notes := make(map[pack.ID]int64)
	for _, p := range packs {
		if p.Read.After(plan.Now) || p.Read.IsZero() && (p.Known.IsZero() || p.Known.After(plan.Now)) {
			notes[p.ID] = -plan.New().Unix()
		}
	}
	if err := ix.SetNotes(ctx, catalog.NoteRead, notes); err != nil {
		return fmt.Errorf("note packs that were never read: %w", err)
	}
	return nil
}

// notedAtOnce is how many readings are noted together. So many are made again after a
// crash.
const notedAtOnce = 64

// Readings notes packs as they are read.
type Readings struct {
	ix    Index
	clock func() time.Time

	mu   sync.Mutex
	good map[pack.ID]int64
	err  error
}

// NewReadings returns a Readings that notes in ix.
func NewReadings(ix Index, clock func() time.Time) *Readings {
	return &Readings{ix: ix, clock: clock, good: make(map[pack.ID]int64)}
}

// Checked returns what restore.VerifyConfig.Checked wants. Damage is not noted: that is
// Settle's, once it is known that no prune explains it.
func (r *Readings) Checked(ctx context.Context) func(pack.ID, error) {
	return func(id pack.ID, err error) {
		if err != nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.good[id] = r.clock().Unix()
		if len(r.good) >= notedAtOnce && r.err == nil {
			r.err = r.flush(ctx)
		}
	}
}

// flush notes what has come together. The caller holds mu.
func (r *Readings) flush(ctx context.Context) error {
	mended := make(map[pack.ID]int64, len(r.good))
	for id := range r.good {
		mended[id] = 0
	}
	err := r.ix.SetNotes(ctx, catalog.NoteRead, r.good)
	if err == nil {
		err = r.ix.SetNotes(ctx, catalog.NoteDamaged, mended)
	}
	r.good = make(map[pack.ID]int64)
	return err
}

// Settle notes the last readings, and what a verification of all points found to be
// damaged. One of structure alone clears no point of what was found in its data.
func (r *Readings) Settle(ctx context.Context, report restore.Report, depth Depth) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.flush(ctx); err != nil || r.err != nil {
		return fmt.Errorf("note what was read: %w", firstOf(r.err, err))
	}
	damaged := make(map[pack.ID]int64, len(report.Damaged))
	for _, id := range report.Damaged {
		damaged[id] = r.clock().Unix()
	}
	if err := r.ix.SetNotes(ctx, catalog.NoteDamaged, damaged); err != nil {
		return fmt.Errorf("note what is damaged: %w", err)
	}
	points := make(map[catalog.PointName]bool)
	for s, err := range r.ix.Summaries(ctx, catalog.PointQuery{}) {
		if err != nil {
			return fmt.Errorf("note which points are damaged: %w", err)
		}
		if s.Damaged && depth != Structure {
			points[s.Name] = false
		}
	}
	for _, name := range report.Points {
		points[name] = true
	}
	if err := r.ix.DamagePoints(ctx, points); err != nil {
		return fmt.Errorf("note which points are damaged: %w", err)
	}
	return nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
