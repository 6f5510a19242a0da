package prune_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

var schedules = flag.Int("schedules", 0, "how many schedules TestSchedules goes through; 0 is as many as fit into a test run")

// TestSchedules runs backups, prunes and restores of hosts that are clones of each other
// in one vault, and lets a seed decide whose operation on the store comes next, who dies
// at it, and whose clock jumps. Every point that is there restores at the end, byte for
// byte, and a restore that nobody's prune had reason to disturb misses nothing.
func TestSchedules(t *testing.T) {
	n := *schedules
	if n == 0 {
		if n = 100; slow || testing.Short() {
			n = 15
		}
	}
	total := make(map[string]int)
	template := scheduleTemplate(t)
	var mu sync.Mutex
	var next atomic.Uint64
	t.Run("workers", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1); seed <= uint64(n) && !t.Failed(); seed = next.Add(1) {
					synctest.Test(t, func(t *testing.T) {
						s := newSchedule(t, template, seed)
						s.run(t)
						mu.Lock()
						defer mu.Unlock()
						for what, n := range s.count {
							total[what] += n
						}
					})
					if t.Failed() {
						t.Logf("seed %d", seed)
					}
				}
			})
		}
	})
	t.Logf("%d schedules: %v", n, total)
	for _, what := range []string{"operations", "committed", "voided", "crashed", "removed points", "removed packs", "repacked", "restored", "points at the end"} {
		if total[what] == 0 {
			t.Errorf("there were no %s in all schedules", what)
		}
	}
}

// template is a vault with two points, and the state folder of its host.
type template struct {
	bench   *bench
	objects map[store.Key][]byte
}

// contents is how many there are of the file that changes.
const contents = 3

func scheduleTemplate(t *testing.T) template {
	t.Helper()
	c := &clock{start}
	st := newStore(c)
	b := newBench(t, st, c)
	// What changes lies in packs of its own, so that one is let go while another host is
	// about to lean on it; and one pack is worth rewriting as soon as the first point goes.
	b.files.set("before", map[string][]byte{"all": noise(99, 30_000), "once": noise(98, 530_000)})
	b.mustBackup(t)
	for i := range uint64(contents) {
		b.files.set(fmt.Sprint("before ", i), map[string][]byte{"own": noise(i, 530_000), "once": nil})
		b.mustBackup(t)
	}
	b.set.retention, b.set.below = &policy.Retention{Last: 1}, 70
	objects := make(map[store.Key][]byte)
	for info, err := range st.List(t.Context(), "") {
		check(t, err)
		raw, err := store.ReadAll(t.Context(), st, info.Key, store.MaxObject)
		check(t, err)
		objects[info.Key] = raw
	}
	return template{b, objects}
}

// schedule is one run of everything.
type schedule struct {
	rng   *rand.Rand
	store *mem.Store
	clock *clock // the store's
	hosts []*bench
	known map[string]map[string][]byte
	count map[string]int

	mu      sync.Mutex
	waiting []*operation
	running int          // actors that have not ended
	dead    map[int]bool // actors whose job has died
	asleep  map[int]bool // actors that are let go on only if all are
}

// operation is one on the store that waits for its turn.
type operation struct {
	actor int
	op    storetest.Op
	turn  chan storetest.Fault
}

func newSchedule(t *testing.T, from template, seed uint64) *schedule {
	t.Helper()
	s := &schedule{rng: rand.New(rand.NewPCG(seed, 1)), clock: &clock{from.bench.clock.time}, count: make(map[string]int), dead: make(map[int]bool), asleep: make(map[int]bool)}
	s.store = newStore(s.clock)
	for key, raw := range from.objects {
		check(t, s.store.Put(t.Context(), key, store.Body{raw}, store.PutOptions{}))
	}
	s.known = make(map[string]map[string][]byte)
	for name, files := range *from.bench.files.made {
		s.known[name] = files
	}
	turn := *from.bench.files.turn
	for i := range 5 {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		check(t, os.CopyFS(dir, os.DirFS(from.bench.dir)))
		h := *from.bench
		h.dir, h.clock, h.files = dir, &clock{s.clock.time}, from.bench.files.clone()
		h.files.made, h.files.turn = &s.known, &turn
		h.store, h.kept = s.gate(i), new(opened)
		s.hosts = append(s.hosts, &h)
	}
	return s
}

// gate is the store as an actor sees it: every operation waits for its turn.
func (s *schedule) gate(actor int) store.Store {
	return storetest.NewFaulty(s.store, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.List && !strings.HasSuffix(string(op.Key), "/") {
			return storetest.Fault{} // one of the objects of a listing: it is as it was when it began
		}
		o := &operation{actor: actor, op: op, turn: make(chan storetest.Fault)}
		s.mu.Lock()
		s.waiting = append(s.waiting, o)
		s.mu.Unlock()
		return <-o.turn
	})
}

// run starts the actors and deals out turns until all have ended.
func (s *schedule) run(t *testing.T) {
	t.Helper()
	jobs := []func(t *testing.T, h *bench, turn int){s.backup, s.backup, s.prune, s.prune, s.restore}
	var actors sync.WaitGroup
	s.running = len(jobs)
	for i, job := range jobs {
		actors.Go(func() {
			for turn := range 3 {
				job(t, s.hosts[i], turn)
				s.mu.Lock()
				s.dead[i] = false
				s.mu.Unlock()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.running--
		})
	}
	for {
		synctest.Wait()
		s.mu.Lock()
		waiting, running := s.waiting, s.running
		s.waiting = nil
		s.mu.Unlock()
		if running == 0 {
			break
		}
		next := s.choose(waiting)
		o := waiting[next]
		s.mu.Lock()
		s.waiting = append(slices.Delete(waiting, next, next+1), s.waiting...)
		s.mu.Unlock()
		s.count["operations"]++
		s.turn(o)
	}
	actors.Wait()
	for _, h := range s.hosts {
		h.kept.close()
	}
	s.settle(t)
}

// choose picks the operation that goes on. Whole actors sleep for a while.
func (s *schedule) choose(waiting []*operation) int {
	// What one actor has under way at once has come in no certain order.
	slices.SortStableFunc(waiting, func(a, b *operation) int {
		return cmp.Or(cmp.Compare(a.actor, b.actor), cmp.Compare(a.op.String(), b.op.String()))
	})
	if s.rng.IntN(25) == 0 {
		for i := range s.hosts {
			s.asleep[i] = s.rng.IntN(2) == 0
		}
	}
	var awake []int
	for i, o := range waiting {
		if !s.asleep[o.actor] {
			awake = append(awake, i)
		}
	}
	if len(awake) == 0 {
		return s.rng.IntN(len(waiting))
	}
	return awake[s.rng.IntN(len(awake))]
}

// turn lets an operation go on, or lets its actor die at it, and lets clocks jump.
func (s *schedule) turn(o *operation) {
	step := time.Duration(s.rng.IntN(20)) * time.Minute
	s.clock.pass(step)
	h := s.hosts[o.actor]
	switch s.rng.IntN(60) {
	case 0: // days either way
		h.clock.time = s.clock.time.Add(time.Duration(s.rng.IntN(200)-100) * time.Hour)
	case 1, 2, 3:
		h.clock.time = s.clock.time
	default:
		h.clock.pass(step)
	}
	fault := storetest.Fault{}
	s.mu.Lock()
	switch {
	case s.dead[o.actor]:
		fault = storetest.Fault{Err: storetest.ErrCrashed}
	case s.rng.IntN(150) == 0:
		s.dead[o.actor] = true
		s.count["crashed"]++
		fault = storetest.Fault{Err: storetest.ErrCrashed, Applied: s.rng.IntN(2) == 0}
	}
	s.mu.Unlock()
	o.turn <- fault
}

func (s *schedule) mark(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[what]++
}

// backup makes a point of a new state of the host's files.
func (s *schedule) backup(t *testing.T, h *bench, turn int) {
	s.mu.Lock()
	name := fmt.Sprintf("state %d of %p", turn, h)
	h.files.set(name, map[string][]byte{"own": noise(s.rng.Uint64N(contents), 530_000)})
	s.mu.Unlock()
	_, err := h.backup(context.Background())
	switch {
	case err == nil:
		s.mark("committed")
	case errors.Is(err, catalog.ErrVoided):
		s.mark("voided")
	case !errors.Is(err, storetest.ErrCrashed):
		t.Errorf("backup: %v", err)
	}
}

// prune lets a host prune, now and then with a retention that lets nothing go.
func (s *schedule) prune(t *testing.T, h *bench, _ int) {
	s.mu.Lock()
	set := *h.set
	if s.rng.IntN(3) == 0 {
		set.retention = nil
	}
	s.mu.Unlock()
	h = h.with(&set)
	done, err := h.prune(context.Background())
	if err != nil && !errors.Is(err, storetest.ErrCrashed) {
		t.Errorf("prune: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count["removed points"] += int(done.RemovedPoints)
	s.count["removed packs"] += int(done.RemovedPacks)
	s.count["rescued packs"] += int(done.RescuedPacks)
	s.count["repacked"] += int(done.RepackedPacks)
}

// restore reads the newest point. Clocks jump, so grace is not kept: it may find that
// the point goes meanwhile, and never wrong data.
func (s *schedule) restore(t *testing.T, h *bench, _ int) {
	ctx := context.Background()
	err := h.use(ctx, func(it *catalog.Item, ix index) error {
		if _, err := it.Sync(ctx, ix); err != nil {
			return err
		}
		names, err := it.Points(ctx)
		if err != nil || len(names) == 0 {
			return err
		}
		return readPoint(ctx, it, ix, names[len(names)-1], s.known)
	})
	if err == nil {
		s.mark("restored")
	} else {
		s.mark("restores that were too slow")
	}
}

// settle reads every point that is there, as somebody who sees the vault for the first
// time, and then lets prunes run until nothing is left to do.
func (s *schedule) settle(t *testing.T) {
	t.Helper()
	last := *s.hosts[0]
	last.store, last.clock, last.dir, last.kept = s.store, s.clock, t.TempDir(), new(opened)
	defer last.kept.close()
	s.count["points at the end"] += len(last.points(t, s.known))
	for range 4 {
		last.mustPrune(t)
		s.clock.pass(abandon + 100*time.Hour)
	}
	left := last.points(t, s.known)
	needed := make(map[pack.ID]struct{})
	check(t, last.use(t.Context(), func(it *catalog.Item, _ index) error {
		repacks, err := it.Repacks(t.Context())
		if err != nil {
			return err
		}
		for _, name := range left {
			p, err := it.Point(t.Context(), name)
			if err != nil {
				return err
			}
			for _, id := range repacks.PacksOf(p) {
				needed[id] = struct{}{}
			}
		}
		return nil
	}))
	if objects := last.objects(t); len(left) != 1 || objects["marks"] != 0 || objects["witnesses"] != 0 || objects["packs"] != len(needed) {
		t.Errorf("after prunes alone there are %d points that need %d packs, and %v", len(left), len(needed), objects)
	}
}
