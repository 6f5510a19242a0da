package prune_test

// Names. A session and the point that it becomes have one, and so has the pack that a
// backup puts, if it puts one: pack n is put by session n. Later names are newer.
type name uint8

const (
	old    name = 0 // a point from before, and the pack that it needs; retention lets the point go
	repack name = 5 // the session of a repack, and the pack in which it puts what is needed of pack old
	names       = 6
)

// sessionOf is the name of a run of a backup.
func sessionOf(backup, run int) name { return name(1 + 2*backup + run) }

// There are so many marks: one for each run of each prune, and those of the prunes that
// clean up after everybody has died.
const (
	runsOfPrunes = 4
	cleanups     = 4
	marks        = runsOfPrunes + cleanups
	indexes      = names + marks // index objects: those of sessions, and those that sweeps write
)

// decision is what is under the name of a point, or of a repack record.
type decision uint8

const (
	absent decision = iota
	void
	there
)

// objects is what is in the store.
type objects struct {
	points   [names]decision
	needs    [names]set // what each point needs, once it was put
	removed  set        // what was written down as removed
	sessions set
	packs    set
	index    [indexes]set // what each index object names; empty: it is not there
	marks    [marks]mark
	outcomes [marks]outcome
	record   decision // the repack record: pack repack stands for pack old
	covers   set      // the points that it is good for, once it was put
}

type mark struct {
	there, witness bool
	points, packs  set
	sessions       set  // in the witness
	record         bool // the repack record was there before the mark
	restore        bool // a restore ran when it was put
}

// outcome is what was decided of a mark. The model has it removed as soon as its mark has
// gone, which is a year earlier than in truth.
type outcome struct {
	known bool
	packs set
}

// state is what is in the store, and where everybody is.
type state struct {
	objects
	backups  [2]backupProc
	prunes   [2]pruneProc
	restores restoreProc
	repacked int // how many repacks were begun
}

// begin is the state at the beginning: one point, whose pack an index object names.
func (x *explorer) begin() (s state) {
	s.points[old], s.needs[old] = there, set(0).with(old)
	s.packs = set(0).with(old)
	if x.views {
		s.prunes[1].holds = set(0).with(old)
	}
	if x.indexed() {
		s.index[old] = s.packs
	}
	return s
}

// needed is what a point needs, if the repack record is as somebody has seen it.
func (s *state) needed(n name, record decision) set {
	packs := s.needs[n]
	if record == there && s.covers.has(n) && packs.has(old) {
		packs = packs.without(old).with(repack)
	}
	return packs
}

// listed is the points that are there.
func (s *state) listed() (points set) {
	for n, d := range s.points {
		if d == there {
			points = points.with(name(n))
		}
	}
	return points
}

// neededBy is what some points need.
func (s *state) neededBy(points set, record decision) (packs set) {
	for n := range name(names) {
		if points.has(n) {
			packs |= s.needed(n, record)
		}
	}
	return packs
}

// letGo is the retention: the old point goes, and of the others all but the newest.
// One that is always kept, and needs nothing, is not in the model.
func letGo(points set) set {
	newest := set(0)
	for n := range name(names) {
		if points.has(n) && n != old {
			newest = set(0).with(n)
		}
	}
	return points &^ newest
}

// decided tells whether a session is: what stands under its name, or its session object
// has gone.
func (s *state) decided(n name) bool {
	if !s.sessions.has(n) {
		return true
	}
	if n == repack {
		return s.record != absent
	}
	return s.points[n] != absent
}

// void is catalog.Item.Void: nobody commits under that name any more.
func (s *state) void(n name) {
	if n == repack {
		if s.record == absent {
			s.record = void
		}
	} else if s.points[n] == absent {
		s.points[n] = void
	}
}
