package prune_test

import "fmt"

// pruneProc is a prune: one run marks, and sweeps one of the marks that are there. The
// code sweeps first and all of them: as runs follow each other and may be cut off
// anywhere, that is among what is gone through here.
type pruneProc struct {
	at   pruneStep
	runs int // begun
	mark int // the one it is about
	// holds are points that it sees a hold on, and others may not.
	holds set

	sessions, points set
	record           decision
	packs            set // to go
	going            set // points to go
	covers           set
	stale            [indexes]bool
}

type pruneStep uint8

const (
	pruneIdle pruneStep = iota
	repackBegin
	repackPoints
	repackPut
	repackIndex
	repackCommit
	markSessions // list sessions
	markDecided  // delete those that are decided, and void those that are too old
	markPoints   // list points and repack records
	markPut      // list packs and put the mark
	markList     // list sessions again
	markWitness  // put the witness
	sweepChoose  // a mark whose grace has passed
	sweepDecide  // the sessions of the witness; then read repack records
	sweepPoints  // list points
	sweepRemove  // delete a session and its point
	sweepGone    // put a void where the point was
	sweepNeeds   // read what the points need that are there
	sweepOutcome // put what is decided of the mark; or follow what is
	sweepConfirm // see that the mark is there still
	sweepIndex   // put an index object without the packs
	sweepPacks   // delete packs
	sweepStale   // delete index objects
	sweepRecord  // delete the repack record if nobody needs it
	sweepWitness // delete the witness
	sweepMark    // delete the mark
)

// proceed yields the state after a step of a prune.
type proceed func(at pruneStep, step string, change func(n *state, p *pruneProc))

func (x *explorer) prune(s *state, i int, yield func(*state, string, ...any)) {
	p := &s.prunes[i]
	to := func(at pruneStep, step string, change func(n *state, p *pruneProc)) {
		n := *s
		n.prunes[i].at = at
		if change != nil {
			change(&n, &n.prunes[i])
		}
		x.settle(&n, &n.prunes[i])
		yield(&n, "prune %d: %s", i, step)
	}
	switch {
	case p.at == pruneIdle && p.runs < x.prunes[i]:
		id := 2*i + p.runs
		start := func(_ *state, p *pruneProc) { p.runs, p.mark = p.runs+1, id }
		to(markSessions, "run", start)
		if s.repacked < x.repacks {
			to(repackBegin, "run, with a repack", func(n *state, p *pruneProc) {
				start(n, p)
				n.repacked++
			})
		}
		return
	case p.at == pruneIdle:
		return
	case p.at < markSessions:
		x.repackStep(s, p, to)
	case p.at < sweepChoose:
		x.markStep(s, p, to)
	case p.at < sweepRemove:
		x.sweepStep(s, p, to)
	case p.at < sweepNeeds:
		x.pointStep(s, p, to)
	case p.at < sweepIndex:
		x.outcomeStep(s, p, to)
	default:
		x.packStep(p, to)
	}
	if p.runs < x.prunes[i] { // else it sleeps for ever, which is the same
		to(pruneIdle, "crash", nil)
	}
}

// settle passes over what others do not see and what does not depend on them.
func (x *explorer) settle(n *state, p *pruneProc) {
	if p.at == sweepRemove && p.going == 0 {
		p.at = sweepNeeds
	}
	if p.at == sweepPacks && p.packs == 0 {
		p.at = sweepStale
	}
	if p.at == sweepStale && !x.indexed() {
		p.at = sweepRecord
	}
	if p.at == sweepRecord && (p.record != there || n.covers&p.points != 0) {
		p.at = sweepWitness
	}
	if p.at == sweepWitness {
		p.points, p.record = 0, absent
	}
	if p.at == pruneIdle {
		*p = pruneProc{runs: p.runs, holds: p.holds}
	}
	for i, m := range n.marks {
		if !m.there {
			n.outcomes[i] = outcome{}
		}
	}
}

func (x *explorer) repackStep(s *state, p *pruneProc, to proceed) {
	switch p.at {
	case repackBegin:
		to(repackPoints, "begin a repack", func(n *state, _ *pruneProc) { n.sessions = n.sessions.with(repack) })
	case repackPoints:
		to(repackPut, "list points to repack for", func(n *state, p *pruneProc) { p.covers = n.listed() })
	case repackPut:
		if !s.packs.has(old) { // nothing to copy
			to(markSessions, "find nothing to repack", func(_ *state, p *pruneProc) { p.covers = 0 })
			return
		}
		at := repackCommit
		if x.indexed() {
			at = repackIndex
		}
		to(at, "put repacked", func(n *state, _ *pruneProc) { n.packs = n.packs.with(repack) })
	case repackIndex:
		to(repackCommit, "put its index", func(n *state, _ *pruneProc) { n.index[repack] = set(0).with(repack) })
	case repackCommit:
		if s.record != absent && x.fault != looseRepack {
			to(markSessions, "is told that its repack was voided", func(_ *state, p *pruneProc) { p.covers = 0 })
			return
		}
		to(markSessions, "commit the repack", func(n *state, p *pruneProc) { n.record, n.covers, p.covers = there, p.covers, 0 })
	}
}

func (x *explorer) markStep(s *state, p *pruneProc, to proceed) {
	switch p.at {
	case markSessions:
		to(markDecided, "list sessions", func(n *state, p *pruneProc) { p.sessions = n.sessions })
	case markDecided:
		if open := s.undecided(p.sessions); open != 0 && x.abandons {
			to(markDecided, fmt.Sprintf("void session %d", open.first()), func(n *state, _ *pruneProc) { n.void(open.first()) })
		}
		to(markPoints, "delete decided sessions", func(n *state, p *pruneProc) {
			n.sessions &^= p.sessions &^ n.undecided(p.sessions)
			p.sessions = n.undecided(p.sessions)
		})
	case markPoints:
		to(markPut, "list points", func(n *state, p *pruneProc) { p.points, p.record = n.listed(), n.record })
	case markPut:
		x.markPut(s, p, to)
	case markList:
		to(markWitness, "list sessions after the mark", func(n *state, p *pruneProc) { p.sessions = n.sessions })
	case markWitness:
		to(sweepChoose, "put witness", func(n *state, p *pruneProc) {
			if m := &n.marks[p.mark]; m.there && !m.witness { // one of a mark that is gone says nothing
				m.witness, m.sessions = true, p.sessions
			}
			p.sessions = 0
		})
	}
}

// undecided returns those of some sessions that are not decided.
func (s *state) undecided(sessions set) (open set) {
	for n := range name(names) {
		if sessions.has(n) && !s.decided(n) {
			open = open.with(n)
		}
	}
	return open
}

// markPut puts the mark, if there is something to mark.
func (x *explorer) markPut(s *state, p *pruneProc, to proceed) {
	m := mark{there: true, points: p.letGo(), record: s.record == there,
		restore: s.restores.at == restoreFind || s.restores.at == restoreRead}
	m.packs = s.packs &^ s.neededBy(p.points&^m.points, p.record) &^ s.marked()
	if p.sessions != 0 { // orphans may be theirs: only what points that go have needed
		m.packs &= s.neededBy(m.points, p.record) | s.neededBy(m.points, absent)
	}
	for _, other := range s.marks {
		if other.there {
			m.points &^= other.points
		}
	}
	forget := func(p *pruneProc) { p.sessions, p.points, p.record = 0, 0, absent }
	if m.points|m.packs == 0 {
		to(sweepChoose, "mark nothing", func(_ *state, p *pruneProc) { forget(p) })
		return
	}
	to(markList, fmt.Sprintf("put mark of points %s and packs %s", m.points, m.packs), func(n *state, p *pruneProc) {
		n.marks[p.mark] = m
		forget(p)
	})
}

// cleanup lets prunes run alone, one after the other, after everybody else has died and
// all times have passed. It says what they leave that nobody needs.
func (x *explorer) cleanup(s state) string {
	alone := explorer{world: world{prunes: [2]int{1, 0}, abandons: true, fault: x.fault}}
	s.backups, s.restores = [2]backupProc{}, restoreProc{}
	for range 3 * cleanups {
		free := runsOfPrunes
		for s.marks[free].there {
			free++
		}
		s.prunes = [2]pruneProc{{at: markSessions, runs: 1, mark: free}}
		for moved := true; moved && s.prunes[0].at != pruneIdle; {
			moved = false
			alone.prune(&s, 0, func(next *state, _ string, _ ...any) {
				if !moved { // the first is the one that goes on
					moved, s = true, *next
				}
			})
			if why := x.violated(&s); why != "" {
				return why
			}
		}
	}
	switch needed := s.neededBy(s.listed(), s.record); {
	case s.packs != needed:
		return fmt.Sprintf("packs %s stay and nobody needs them", s.packs&^needed)
	case s.marks != [marks]mark{}:
		return "a mark stays"
	case letGo(s.listed()) != 0:
		return fmt.Sprintf("points %s stay", letGo(s.listed()))
	case s.sessions != 0:
		return fmt.Sprintf("sessions %s stay", s.sessions)
	}
	return ""
}
