// Package scrub checks the objects of a vault without any key: that each is what its
// name says and has kept every bit. It only reads.
//
// What it finds are accidents. It cannot tell a forged object from a true one, nor
// which packs a point needs, because that is sealed: a pack that is gone as a whole
// is found by a verify, which has the keys.
//
// Invariants:
//   - Every object of the listing is read to its last byte, or is in the report.
//   - Memory does not grow with the vault: objects on their way have a budget, and
//     the report names so many faults and counts the rest.
package scrub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Objects is what a scrub needs of a store.
type Objects interface {
	store.Getter
	store.Lister
}

// Config of a scrub.
type Config struct {
	Objects  Objects
	Workers  int       // objects read at once; 0 means 4
	Progress *Progress // counts as it goes; may be nil
}

// Progress is how far a scrub is.
type Progress struct {
	Objects, Bytes, Faults atomic.Int64
}

// Count is how many objects there are of a kind, and their bytes.
type Count struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (c Count) plus(bytes int64) Count { return Count{c.Objects + 1, c.Bytes + bytes} }

// Fault is what is wrong with an object, or with what should be under a name.
type Fault struct {
	Key  store.Key `json:"key"`
	Says string    `json:"says"`
}

// MaxNamed is how many faults, and how many strays, a report names.
const MaxNamed = 1000

// Report is what a scrub found.
type Report struct {
	Kinds  map[string]Count `json:"kinds"`  // objects by kind: "packs", "points", ...
	Erased Count            `json:"erased"` // of them, what an erasure left: noise
	Items  int              `json:"items"`  // that have key records and are not erased
	// Faults are in the order of their keys, the first MaxNamed of them.
	Faults []Fault `json:"faults,omitempty"`
	Faulty int64   `json:"faulty"` // how many there are
	// Strays are objects whose names the format does not know. They are no fault.
	Strays    []store.Key `json:"strays,omitempty"`
	Straying  int64       `json:"straying"`
	Vanished  int64       `json:"vanished"` // deleted by somebody after they were listed
	TotalSize int64       `json:"total_size"`
}

const (
	defaultWorkers = 4
	// budget is how many bytes of objects are in memory at once; one object may be
	// larger.
	budget = 64 << 20
)

// Run checks every object. An error means that it did not come to an end; what is
// wrong with objects is in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Workers == 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	r := &run{Config: cfg, memory: semaphore.NewWeighted(budget), report: Report{Kinds: make(map[string]Count)}}
	if err := r.records(ctx); err != nil {
		return nil, fmt.Errorf("scrub key records: %w", err)
	}
	if err := r.objects(ctx); err != nil {
		return nil, fmt.Errorf("scrub objects: %w", err)
	}
	r.report.Items = r.owners.alive()
	slices.SortFunc(r.report.Faults, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Says, b.Says)) })
	return &r.report, nil
}

// run is one scrub under way.
type run struct {
	Config
	memory *semaphore.Weighted
	owners *owners

	mu     sync.Mutex
	report Report
}

// objects goes through the whole listing.
func (r *run) objects(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(r.Workers)
	var failed error
	for info, err := range r.Objects.List(gctx, "") {
		if err != nil {
			failed = err
			break
		}
		p := parse(info.Key)
		switch {
		case p.kind == "":
			r.stray(info.Key)
			continue
		case p.kind == descriptors, p.kind == keyRecords:
			continue // they have been looked at
		}
		r.count(p.kind, info.Size)
		if (p.kind == points || p.kind == "repacks") && info.Size == 0 {
			continue // a void
		}
		group.Go(func() error { return r.object(gctx, p, info) })
	}
	return errors.Join(group.Wait(), failed)
}

// object checks a sealed object.
func (r *run) object(ctx context.Context, p place, info store.Info) error {
	var h crypt.Header
	good := false
	err := r.read(ctx, info, func(b []byte) {
		var err error
		if h, err = pack.Scrub(b); err != nil {
			r.fault(info.Key, err.Error())
		}
		good = err == nil
	})
	if err != nil || !good {
		return err
	}
	if h.Kind != p.seal || h.Item.String() != p.item {
		r.fault(info.Key, fmt.Sprintf("it is another object: its header is that of kind %q of item %s", h.Kind, h.Item))
		return nil
	}
	return r.generation(ctx, p, info, h)
}

// generation checks that there is a key record for what an object was sealed under.
func (r *run) generation(ctx context.Context, p place, info store.Info, h crypt.Header) error {
	state := r.owners.look(p.item, h.Generation)
	if state == unknown {
		// The item, or its generation, may be younger than the first look.
		if err := r.again(ctx, p.item); err != nil {
			return err
		}
		state = r.owners.look(p.item, h.Generation)
	}
	switch state {
	case unknown:
		r.fault(info.Key, fmt.Sprintf("no key opens it: there is no key record of generation %d of item %s", h.Generation, p.item))
	case erased:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report.Erased = r.report.Erased.plus(info.Size)
	}
	return nil
}

// read reads an object and has it checked. What cannot be read is in the report,
// unless the store as a whole does not answer.
func (r *run) read(ctx context.Context, info store.Info, check func([]byte)) error {
	if info.Size < 0 || info.Size > store.MaxObject {
		r.fault(info.Key, fmt.Sprintf("it has %d bytes, and no object has more than %d", info.Size, int64(store.MaxObject)))
		return nil
	}
	need := min(info.Size, budget)
	if err := r.memory.Acquire(ctx, need); err != nil {
		return err
	}
	defer r.memory.Release(need)
	b := make([]byte, info.Size)
	err := r.Objects.Get(ctx, info.Key, b, 0)
	switch {
	case err == nil:
		r.Progress.Objects.Add(1)
		r.Progress.Bytes.Add(info.Size)
		check(b)
		return nil
	case errors.Is(err, store.ErrNotExist):
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report.Vanished++
		return nil
	case ctx.Err() != nil, errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrMissing):
		return err
	}
	r.fault(info.Key, "it cannot be read: "+err.Error())
	return nil
}

// fault notes what is wrong. The faults with the first keys are named, so that two
// scrubs of one vault name the same.
func (r *run) fault(key store.Key, says string) {
	r.Progress.Faults.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Faulty++
	f := Fault{key, says}
	if len(r.report.Faults) < MaxNamed {
		r.report.Faults = append(r.report.Faults, f)
		return
	}
	last := 0
	for i := range r.report.Faults {
		if r.report.Faults[i].Key > r.report.Faults[last].Key {
			last = i
		}
	}
	if key < r.report.Faults[last].Key {
		r.report.Faults[last] = f
	}
}

func (r *run) stray(key store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report.Straying++; len(r.report.Strays) < MaxNamed {
		r.report.Strays = append(r.report.Strays, key)
	}
}

func (r *run) count(kind string, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Kinds[kind] = r.report.Kinds[kind].plus(bytes)
	r.report.TotalSize += bytes
}
