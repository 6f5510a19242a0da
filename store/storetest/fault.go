package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// Kind of an operation.
type Kind int

// The kinds.
const (
	Get Kind = iota
	Stat
	List
	Put
	Delete
	Retain
)

func (k Kind) String() string {
	return [...]string{"get", "stat", "list", "put", "delete", "retain"}[k]
}

// Writes tells whether operations of the kind change the store.
func (k Kind) Writes() bool { return k == Put || k == Delete || k == Retain }

// Op is an operation that is about to happen.
type Op struct {
	Kind Kind
	Key  store.Key // List: the prefix
}

func (o Op) String() string { return fmt.Sprintf("%s %s", o.Kind, o.Key) }

// Fault is how an operation goes wrong. The zero value: it does not.
type Fault struct {
	Err     error // what the caller is told
	Applied bool  // it happens all the same
}

// Faulty is a store whose operations go wrong as a hook says. It implements
// store.Store, and store.Retainer if the inner store does.
type Faulty struct {
	inner store.Store
	hook  func(Op) Fault
}

var (
	_ store.Store    = (*Faulty)(nil)
	_ store.Retainer = (*Faulty)(nil)
)

// NewFaulty returns inner with faults. Hook is asked before each operation, and
// once more for each object that a listing yields; it may be called concurrently.
func NewFaulty(inner store.Store, hook func(Op) Fault) *Faulty {
	return &Faulty{inner: inner, hook: hook}
}

// do carries out apply, or not, as the hook says. An operation that would be
// refused anyway is not shown to the hook.
func (f *Faulty) do(ctx context.Context, op Op, apply func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := op.Key.Check(); err != nil {
		return err
	}
	fault := f.hook(op)
	if fault.Err == nil {
		return apply()
	}
	if fault.Applied {
		_ = apply() // whatever it says, the caller is told something else
	}
	return fmt.Errorf("%s: %w", op, fault.Err)
}

// Get implements store.Getter.
func (f *Faulty) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	return f.do(ctx, Op{Get, key}, func() error { return f.inner.Get(ctx, key, p, off) })
}

// Stat implements store.Getter.
func (f *Faulty) Stat(ctx context.Context, key store.Key) (info store.Info, err error) {
	err = f.do(ctx, Op{Stat, key}, func() error {
		info, err = f.inner.Stat(ctx, key)
		return err
	})
	return info, err
}

// Put implements store.Putter.
func (f *Faulty) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	return f.do(ctx, Op{Put, key}, func() error { return f.inner.Put(ctx, key, body, opts) })
}

// Delete implements store.Deleter.
func (f *Faulty) Delete(ctx context.Context, key store.Key) error {
	return f.do(ctx, Op{Delete, key}, func() error { return f.inner.Delete(ctx, key) })
}

// RetainedUntil implements store.Retainer. It is a Stat of the object.
func (f *Faulty) RetainedUntil(ctx context.Context, key store.Key) (until time.Time, err error) {
	r, ok := f.inner.(store.Retainer)
	if !ok {
		return until, fmt.Errorf("retention of %s: %w", key, errors.ErrUnsupported)
	}
	err = f.do(ctx, Op{Stat, key}, func() error {
		until, err = r.RetainedUntil(ctx, key)
		return err
	})
	return until, err
}

// Retain implements store.Retainer.
func (f *Faulty) Retain(ctx context.Context, key store.Key, r store.Retention) error {
	inner, ok := f.inner.(store.Retainer)
	if !ok {
		return fmt.Errorf("retain %s: %w", key, errors.ErrUnsupported)
	}
	return f.do(ctx, Op{Retain, key}, func() error { return inner.Retain(ctx, key, r) })
}

// List implements store.Lister.
func (f *Faulty) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	op := Op{List, prefix}
	return func(yield func(store.Info, error) bool) {
		if ctx.Err() == nil {
			if err := f.hook(op).Err; err != nil {
				yield(store.Info{}, fmt.Errorf("%s: %w", op, err))
				return
			}
		}
		for info, err := range f.inner.List(ctx, prefix) {
			if err == nil {
				err = f.hook(op).Err
			}
			if err != nil {
				yield(store.Info{}, fmt.Errorf("%s: %w", op, err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// ErrCrashed is what everything answers after a Crash.
var ErrCrashed = errors.New("the process is dead")

// Outcome says whether the write at which a process died happened.
type Outcome int

// The outcomes.
const (
	NotApplied Outcome = iota
	Applied
)

func (o Outcome) String() string { return [...]string{"not applied", "applied"}[o] }

// Crash is the death of a process at its nth write: that write happens or not,
// its caller is told ErrCrashed, and so is everybody who asks for anything after
// that. Writes already under way come to their own end.
//
// To try every crash point, run the job once with a Crash at 0, which never
// comes, read Writes, and run it again for each number and outcome.
type Crash struct {
	at  int
	how Outcome

	mu     sync.Mutex
	writes int
}

// NewCrash returns a crash at the nth write, from 1. Zero: it never comes.
func NewCrash(n int, how Outcome) *Crash { return &Crash{at: n, how: how} }

// Store returns inner as the dying process sees it. Several stores may share a
// Crash.
func (c *Crash) Store(inner store.Store) *Faulty {
	return NewFaulty(inner, func(op Op) Fault {
		if op.Kind.Writes() {
			return c.write()
		}
		if c.Dead() {
			return Fault{Err: ErrCrashed}
		}
		return Fault{}
	})
}

// Write carries out a write that goes somewhere else than to a store, or not:
// it counts like the others.
func (c *Crash) Write(apply func() error) error {
	fault := c.write()
	if fault.Err == nil {
		return apply()
	}
	if fault.Applied {
		_ = apply()
	}
	return fault.Err
}

func (c *Crash) write() Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead() {
		return Fault{Err: ErrCrashed}
	}
	if c.writes++; c.writes == c.at {
		return Fault{Err: ErrCrashed, Applied: c.how == Applied}
	}
	return Fault{}
}

func (c *Crash) dead() bool { return c.at > 0 && c.writes >= c.at }

// Writes returns how many writes were begun.
func (c *Crash) Writes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// Dead tells whether the crash has come.
func (c *Crash) Dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead()
}

// AtEveryWrite tries a job with a crash at each of its writes, which happens or does not.
// begin makes what the job works on anew, as the process sees it that crash is to kill; it
// returns the job, and what is to be checked after it. It is called first with a crash
// that never comes.
func AtEveryWrite(t *testing.T, begin func(t *testing.T, crash *Crash) (job func() error, check func())) {
	t.Helper()
	count := NewCrash(0, NotApplied)
	job, check := begin(t, count)
	if err := job(); err != nil {
		t.Fatal(err)
	}
	check()
	met := 0
	for n := 1; n <= count.Writes(); n++ {
		for _, how := range []Outcome{NotApplied, Applied} {
			t.Run(fmt.Sprintf("write %d %v", n, how), func(t *testing.T) {
				crash := NewCrash(n, how)
				job, check := begin(t, crash)
				if err := job(); err != nil && !errors.Is(err, ErrCrashed) {
					t.Fatalf("the job died of something else: %v", err)
				}
				check()
				if crash.Dead() { // how many writes there are differs a little from run to run
					met++
				}
			})
		}
	}
	t.Logf("%d crash points, 0 lost points", met)
	if met < 2*count.Writes()-4 {
		t.Errorf("only %d crash points of %d writes were met", met, count.Writes())
	}
}
