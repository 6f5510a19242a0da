package prune_test

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// The model of the protocol: a few processes over a store that puts a key only once,
// every interleaving of their steps, each of them dead at any step or asleep for as
// long as it likes. Steps are named as the functions of this package and of packages
// backup and catalog that take them.
//
//	model_state_test.go   what is in the store, and what each process remembers
//	model_backup_test.go  the steps of a backup and of a restore
//	model_prune_test.go   the steps of a prune, and those of its repack and of its mark
//	model_sweep_test.go   those of its sweep
//
// Clocks are not in it: whether the grace has passed, and whether a session is old
// enough to be given up, is answered yes and no at every time. Only where the promise
// to restores is checked, grace is what it says.

// world is a model to explore.
type world struct {
	name     string
	backups  [2]int // runs of each: a crash, a void, and a good end lead to the next
	prunes   [2]int
	restores int
	repacks  int  // how many prunes may repack before they mark
	abandons bool // prunes void sessions also before they mark
	late     bool // the put of a point may be repeated late, as by a store that answered it with an error
	views    bool // one prune sees a hold on the old point, and the other does not
	honest   bool // grace is kept by those who sweep: a restore that ends within it misses nothing
	fault    fault
	min      int // states that there are at least: so that the model does not shrink unseen
}

// fault is a step of the protocol taken out. Each must make the model find a loss.
type fault int

const (
	none fault = iota
	noWitness
	lateSession
	noVoid
	pointsBeforeSessions
	noGrace
	believeIndex
	packsBeforeMarks
	markFirst
	packsFirst
	youngRecord
	noTombstone
	looseRepack
	ownOutcome
	noConfirm
	halfRemoved
	recordsLast
)

func (f fault) String() string {
	return [...]string{"nothing", "the witness is not asked", "the session is announced after the marks are read",
		"a point is put over a void", "points are listed before the sessions are decided", "grace is not kept",
		"index objects are believed without a look at the packs", "the packs are listed before the marks are read",
		"the mark goes before its packs", "packs go before points", "a repack record counts at once",
		"no void stays where a point was", "a repack is not decided by one put",
		"each prune goes by what it decides", "a decision counts of which the mark is gone",
		"no void is put where another prune was cut off", "repack records are read after the points"}[f]
}

// where is the world in which the fault is looked for.
func (f fault) where() string {
	switch f {
	case noGrace:
		return "a restore"
	case noTombstone:
		return "a late repeat"
	case halfRemoved:
		return "a late repeat and a prune cut off"
	case ownOutcome, noConfirm:
		return "two prunes that differ"
	case recordsLast:
		return "a backup twice, and a repack"
	case youngRecord, looseRepack:
		return "repack and a restore"
	}
	return "two backups, a prune twice"
}

// indexed tells whether index objects are in the model. A backup that looks which packs
// there are believes none, so that without that fault it may be taken to know every pack
// that is there, and the objects need not be in the model: it does more than they let it.
func (x *explorer) indexed() bool { return x.fault == believeIndex }

// explorer walks the states of a world.
type explorer struct {
	world
	seen  hashSet
	clean map[objects]bool // stores that a prune alone was seen to clean up
	path  []string
	lost  string // how something was lost: the steps, and what
}

func (x *explorer) explore(s *state) {
	if x.lost != "" || !x.seen.add(s.hash()) {
		return
	}
	if why := x.violated(s); why != "" {
		x.lost = strings.Join(x.path, "\n") + "\n=> " + why
		return
	}
	if !x.late && !x.clean[s.objects] { // the rest of the promise: what nobody needs goes in the end
		x.clean[s.objects] = true
		if why := x.cleanup(*s); why != "" {
			x.lost = strings.Join(x.path, "\n") + "\n=> then everybody dies, and prunes run alone: " + why
			return
		}
	}
	x.steps(s, func(next *state, format string, args ...any) {
		if x.lost != "" {
			return
		}
		x.path = append(x.path, fmt.Sprintf(format, args...))
		x.explore(next)
		x.path = x.path[:len(x.path)-1]
	})
}

// steps yields every state that one step leads to.
func (x *explorer) steps(s *state, yield func(next *state, format string, args ...any)) {
	for i := range s.backups {
		x.backup(s, i, yield)
	}
	for i := range s.prunes {
		x.prune(s, i, yield)
	}
	x.restore(s, yield)
}

// violated says what is wrong with a state, or nothing.
func (x *explorer) violated(s *state) string {
	for n := range s.points {
		if missing := s.needed(name(n), s.record) &^ s.packs; s.points[n] == there && missing != 0 {
			return fmt.Sprintf("point %d is there and its packs %s are not", n, missing)
		}
	}
	if s.restores.missed {
		return "a restore within the grace missed a pack"
	}
	return ""
}

func (x *explorer) run() {
	x.clean = make(map[objects]bool)
	s := x.begin()
	x.explore(&s)
}

func worlds() []world {
	return []world{
		{name: "two backups, a prune twice", backups: [2]int{2, 1}, prunes: [2]int{2, 0}, min: 2_080_000},
		{name: "a backup twice, two prunes", backups: [2]int{2, 0}, prunes: [2]int{1, 1}, abandons: true, min: 1_020_000},
		{name: "two backups, two prunes", backups: [2]int{1, 1}, prunes: [2]int{1, 1}, min: 4_180_000},
		{name: "a late repeat", backups: [2]int{1, 1}, prunes: [2]int{2, 0}, late: true, min: 300_000},
		{name: "a late repeat and a prune cut off", backups: [2]int{1, 1}, prunes: [2]int{3, 0}, late: true, min: 2_140_000},
		{name: "two prunes that differ", backups: [2]int{1, 1}, prunes: [2]int{1, 1}, views: true, min: 1_840_000},
		{name: "two prunes that differ, one of them twice", backups: [2]int{2, 0}, prunes: [2]int{2, 1}, views: true, min: 6_960_000},
		{name: "a restore", backups: [2]int{1, 0}, prunes: [2]int{2, 1}, restores: 1, honest: true, min: 1_580_000},
		{name: "repack and a restore", backups: [2]int{1, 0}, prunes: [2]int{1, 1}, restores: 1, repacks: 1, honest: true, min: 3_960_000},
		{name: "a backup twice, and a repack", backups: [2]int{2, 0}, prunes: [2]int{1, 1}, repacks: 1, min: 16_800_000},
		{name: "repack under any clock", backups: [2]int{1, 0}, prunes: [2]int{1, 1}, repacks: 1, abandons: true, min: 1_586_000},
	}
}

// TestModel goes through every state of every world.
func TestModel(t *testing.T) {
	var total atomic.Int64
	t.Cleanup(func() { t.Logf("%d states in all", total.Load()) })
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			if slow && w.min > 1_000_000 {
				t.Skip("the race detector has nothing to find in it, and takes minutes")
			}
			t.Parallel()
			x := explorer{world: w}
			x.run()
			if x.lost != "" {
				t.Fatalf("after %d states:\n%s", x.seen.n, x.lost)
			}
			t.Logf("%d states, %d states of the store, 0 violations", x.seen.n, len(x.clean))
			total.Add(int64(x.seen.n))
			if x.seen.n < w.min {
				t.Errorf("the model has shrunk from %d states", w.min)
			}
		})
	}
}

// TestModelFindsFaults takes steps out of the protocol, one at a time.
func TestModelFindsFaults(t *testing.T) {
	for f := noWitness; f <= recordsLast; f++ {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			i := slices.IndexFunc(worlds(), func(w world) bool { return w.name == f.where() })
			x := explorer{world: worlds()[i]}
			x.fault = f
			x.run()
			if x.lost == "" {
				t.Fatalf("nothing is lost by it in %d states of %q", x.seen.n, x.name)
			}
			lines := strings.Split(x.lost, "\n")
			t.Logf("found in %q after %d states: %s", x.name, x.seen.n, lines[len(lines)-1])
		})
	}
}

// hashSet is a set of 64-bit hashes. Two states of one hash would hide one of them: of
// ten million states that is a chance of one in 300,000.
type hashSet struct {
	slots []uint64
	n     int
}

func (h *hashSet) add(v uint64) bool {
	if v == 0 {
		v = 1
	}
	if h.n >= len(h.slots)/2 {
		old := h.slots
		h.slots = make([]uint64, max(1<<16, 2*len(old)))
		h.n = 0
		for _, v := range old {
			if v != 0 {
				h.add(v)
			}
		}
	}
	i := v & uint64(len(h.slots)-1)
	for ; h.slots[i] != 0; i = (i + 1) & uint64(len(h.slots)-1) {
		if h.slots[i] == v {
			return false
		}
	}
	h.slots[i] = v
	h.n++
	return true
}

// seed is one for the whole process: hashes are compared within it only.
func (s *state) hash() uint64 { return maphash.Comparable(hashSeed, *s) }

var hashSeed = maphash.MakeSeed()

// set is a set of small numbers: names of points and sessions, packs.
type set uint8

func (s set) has(n name) bool    { return s&(1<<n) != 0 }
func (s set) with(n name) set    { return s | 1<<n }
func (s set) without(n name) set { return s &^ (1 << n) }

// first returns the smallest of a set that is not empty.
func (s set) first() name {
	for n := range name(8) {
		if s.has(n) {
			return n
		}
	}
	panic("set is empty")
}

func (s set) String() string {
	var all []string
	for n := range name(8) {
		if s.has(n) {
			all = append(all, fmt.Sprint(n))
		}
	}
	return "{" + strings.Join(slices.Clip(all), " ") + "}"
}
