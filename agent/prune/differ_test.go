package prune_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

// sleeper is a host whose prune falls asleep once, before an operation.
type sleeper struct {
	*bench
	asleep, wake chan struct{}
	end          chan error
	done         prune.Result
}

// sleep starts a prune of another host, and returns when it is asleep before the first
// operation of that kind.
func (b *bench) sleep(t *testing.T, set *settings, before func(storetest.Op) bool) *sleeper {
	t.Helper()
	s := &sleeper{bench: b.host(nil, t.TempDir(), b.clock), asleep: make(chan struct{}), wake: make(chan struct{}), end: make(chan error, 1)}
	s.set = set
	var once sync.Once
	s.store = storetest.NewFaulty(b.store, func(op storetest.Op) storetest.Fault {
		if before(op) {
			once.Do(func() {
				close(s.asleep)
				<-s.wake
			})
		}
		return storetest.Fault{}
	})
	go func() {
		var err error
		s.done, err = s.prune(context.WithoutCancel(t.Context()))
		s.end <- err
	}()
	select {
	case <-s.asleep:
	case err := <-s.end:
		t.Fatalf("it ended and did not sleep: %+v, %v", s.done, err)
	}
	return s
}

// awake lets it go on to the end.
func (s *sleeper) awake(t *testing.T) prune.Result {
	t.Helper()
	close(s.wake)
	check(t, <-s.end)
	return s.done
}

// TestDiffer: one prune removes a point, and another, which sees a retention that keeps
// it, rescues the pack that it needs and is done with the mark. A backup that begins then
// knows of no mark. Whichever of the two decides first, no point lacks its packs.
func TestDiffer(t *testing.T) {
	for _, tt := range []struct {
		name string
		// where the one that removes sleeps while the other comes to an end
		before          func(op storetest.Op, outcome store.Key) bool
		rescued, remove int64 // packs, by each of them
	}{
		{"the one that keeps it decides", func(op storetest.Op, outcome store.Key) bool { return op.Kind == storetest.Put && op.Key == outcome }, 1, 0},
		{"the one that removes it decides", func(op storetest.Op, _ store.Key) bool {
			return op.Kind == storetest.Delete && isIn(op.Key, "packs")
		}, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, points := four(t)
			b.mustPrune(t)
			outcome := b.outcome(t)
			b.clock.pass(grace)
			// It has read what all points need, and is about to write down that nothing goes.
			keeper := b.sleep(t, &settings{}, func(op storetest.Op) bool { return op.Kind == storetest.Put && op.Key == outcome })
			remover := b.sleep(t, b.set, func(op storetest.Op) bool { return tt.before(op, outcome) })
			kept := keeper.awake(t)
			if b.objects(t)["marks"] != 0 {
				t.Fatal("the mark is there still")
			}
			b.files.set("again", map[string][]byte{"own": noise(1, 100_000)}) // as in a point that went
			last := b.mustBackup(t)
			removed := remover.awake(t)
			if kept.RescuedPacks != tt.rescued || removed.RemovedPoints != 2 || removed.RemovedPacks != tt.remove {
				t.Errorf("one kept %+v, the other removed %+v", kept, removed)
			}
			if left := b.points(t, *b.files.made); !slices.Equal(left, append(slices.Clone(points[2:]), last)) {
				t.Errorf("points %v", left)
			}
		})
	}
}

// TestRepackMeanwhile: a prune falls asleep after it has listed points and before it is
// done with repack records. Meanwhile a backup commits, another prune rewrites packs for
// its point, and removes the old ones: the record of that must not go as one that
// concerns no point.
func TestRepackMeanwhile(t *testing.T) {
	c := &clock{start}
	b := newBench(t, newStore(c), c)
	b.set.retention, b.set.below = &policy.Retention{Last: 1}, 50
	files := map[string][]byte{}
	for i := range 8 {
		files[fmt.Sprint("big ", i)] = noise(uint64(i), 1<<20)
	}
	b.files.set("much", files)
	b.mustBackup(t)
	for i := range 7 {
		files[fmt.Sprint("big ", i)] = nil
	}
	b.files.set("little", files)
	b.mustBackup(t)
	b.mustPrune(t)
	b.clock.pass(grace)
	s := b.sleep(t, b.set, func(op storetest.Op) bool { return op.Kind == storetest.List && isIn(op.Key, "holds") })
	b.files.set("more", map[string][]byte{"more": noise(55, 1000)})
	last := b.mustBackup(t)
	if done := b.mustPrune(t); done.RepackedPacks == 0 {
		t.Fatalf("nothing is repacked: %+v", done)
	}
	b.clock.pass(grace)
	if done := b.mustPrune(t); done.RemovedPacks == 0 {
		t.Fatalf("no old pack is removed: %+v", done)
	}
	s.awake(t)
	if left := b.points(t, *b.files.made); !slices.Equal(left, []catalog.PointName{last}) {
		t.Errorf("points %v", left)
	}
}

// told counts what a local index is told of packs.
type told struct {
	index
	adds *int
}

func (x told) Add(ctx context.Context, source string, contents []pack.Contents) error {
	*x.adds++
	return x.index.Add(ctx, source, contents)
}

// TestTeachesNothing: a backup beside a prune, in one agent, looks once which packs there
// are and then asks the local index that they share. So the prune, which has listed them
// some time ago, must not put packs there that it writes index objects of.
func TestTeachesNothing(t *testing.T) {
	c := &clock{start}
	b := newBench(t, newStore(c), c)
	b.set.retention, b.set.below = &policy.Retention{Last: 1}, 60
	for i := range 3 {
		b.files.set(fmt.Sprint("state ", i), map[string][]byte{"all": noise(99, 400_000), "own": noise(uint64(i), 600_000)})
		b.mustBackup(t)
	}
	b.mustPrune(t)
	adds, repacked := 0, int64(0)
	for range 2 {
		b.clock.pass(grace)
		check(t, b.use(t.Context(), func(it *catalog.Item, ix index) error {
			if _, err := it.Sync(t.Context(), ix); err != nil {
				return err
			}
			done, err := prune.Run(t.Context(), b.config(it, told{ix, &adds}))
			repacked += done.RepackedPacks
			return err
		}))
	}
	if repacked == 0 || adds > 0 {
		t.Errorf("%d packs are rewritten, and the local index is told of packs %d times", repacked, adds)
	}
	if len(b.points(t, *b.files.made)) != 1 {
		t.Error("the point is lost")
	}
}

// outcome returns where the outcome of the only mark is written down.
func (b *bench) outcome(t *testing.T) (key store.Key) {
	t.Helper()
	check(t, b.use(t.Context(), func(it *catalog.Item, _ index) error {
		marks, err := it.Marks(t.Context())
		if err == nil && len(marks) != 1 {
			t.Fatalf("%d marks", len(marks))
		}
		key = it.RemovedKey(marks[0].ID)
		return err
	}))
	return key
}

// TestCutOff: a prune dies between the delete of a point and its void, and the store
// repeats the Put of the point late. Whenever that is, there is no point without its
// packs.
func TestCutOff(t *testing.T) {
	for _, when := range []string{"before the next prune", "while the next prune is at it", "after the next prune"} {
		t.Run(when, func(t *testing.T) {
			b, points := four(t)
			b.mustPrune(t)
			b.clock.pass(grace)
			var key store.Key
			var raw []byte
			check(t, b.use(t.Context(), func(it *catalog.Item, _ index) (err error) {
				key = it.PointKey(points[1])
				raw, err = store.ReadAll(t.Context(), b.store, key, store.MaxObject)
				return err
			}))
			late := func() error {
				return b.store.Put(context.WithoutCancel(t.Context()), key, store.Body{raw}, store.PutOptions{})
			}
			dies := b.host(storetest.NewFaulty(b.store, func(op storetest.Op) storetest.Fault {
				if op.Kind == storetest.Put && op.Key == key {
					return storetest.Fault{Err: storetest.ErrCrashed}
				}
				return storetest.Fault{}
			}), t.TempDir(), b.clock)
			if _, err := dies.prune(t.Context()); !errors.Is(err, storetest.ErrCrashed) {
				t.Fatal(err)
			}
			if when == "before the next prune" {
				check(t, late())
			}
			met := false
			next := b.host(storetest.NewFaulty(b.store, func(op storetest.Op) storetest.Fault {
				if op.Kind == storetest.Put && op.Key == key {
					if met = true; when == "while the next prune is at it" {
						check(t, late())
					}
				}
				return storetest.Fault{}
			}), t.TempDir(), b.clock)
			next.mustPrune(t)
			if !met {
				t.Error("no void was put")
			}
			if err := late(); !errors.Is(err, store.ErrExist) {
				t.Errorf("afterwards: %v", err)
			}
			for range 3 { // each point that is listed is read
				left := b.points(t, *b.files.made)
				b.mustPrune(t)
				b.clock.pass(grace)
				t.Logf("points %v", left)
			}
			if left := b.points(t, *b.files.made); !slices.Equal(left, points[2:]) {
				t.Errorf("points %v", left)
			}
			if o := b.objects(t); o["marks"] != 0 || o["packs"] != 3 {
				t.Errorf("objects %v", o)
			}
		})
	}
}

// TestDamagedOutcome: what was decided of a mark does not open. Another prune may be at
// work by it, so the mark stays; and nothing else waits for that.
func TestDamagedOutcome(t *testing.T) {
	b, points := four(t)
	b.mustPrune(t)
	outcome := b.outcome(t)
	b.clock.pass(grace)
	dies := b.host(storetest.NewFaulty(b.store, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.Delete && isIn(op.Key, "packs") {
			return storetest.Fault{Err: storetest.ErrCrashed}
		}
		return storetest.Fault{}
	}), t.TempDir(), b.clock)
	if _, err := dies.prune(t.Context()); !errors.Is(err, storetest.ErrCrashed) {
		t.Fatal(err)
	}
	check(t, b.store.(*mem.Store).Tamper(outcome, func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw }))
	points = append(points, b.mustBackup(t))
	b.clock.pass(grace)
	for _, removed := range []int64{0, 1, 0} { // the point that is one too many since, and its pack
		if done := b.mustPrune(t); done.RemovedPoints != removed || done.RemovedPacks != removed || done.Pending == 0 {
			t.Errorf("%+v", done)
		}
		b.clock.pass(grace)
	}
	if o := b.objects(t); o["marks"] != 1 || o["packs"] != 3 {
		t.Errorf("objects %v", o)
	}
	check(t, b.store.Delete(t.Context(), outcome))
	if done := b.mustPrune(t); done.RemovedPacks != 1 {
		t.Errorf("%+v", done)
	}
	if left := b.points(t, *b.files.made); !slices.Equal(left, points[3:]) || b.objects(t)["marks"] != 0 {
		t.Errorf("points %v, objects %v", left, b.objects(t))
	}
}
