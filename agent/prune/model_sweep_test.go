package prune_test

import "fmt"

func (x *explorer) sweepStep(s *state, p *pruneProc, to proceed) {
	switch p.at {
	case sweepChoose:
		for i, m := range s.marks {
			switch {
			case !m.there:
			case s.outcomes[i].known:
				to(sweepOutcome, fmt.Sprintf("find mark %d decided", i), func(_ *state, p *pruneProc) { p.mark = i })
			case !m.witness && x.fault != noWitness:
				to(markList, "find a mark without witness", func(_ *state, p *pruneProc) { p.mark = i })
			case x.honest && x.fault != noGrace && m.restore && s.restores.at != restoreDone: // its grace has not passed
			default:
				to(sweepDecide, fmt.Sprintf("sweep mark %d", i), func(n *state, p *pruneProc) {
					p.mark, p.sessions = i, n.marks[i].sessions
					if x.fault == noWitness {
						p.sessions = 0
					}
					if x.fault == pointsBeforeSessions {
						p.points, p.record = n.listed(), n.record
					}
				})
			}
		}
	case sweepDecide:
		// What is decided stays so: it does not matter when each was seen to be.
		if open := s.undecided(p.sessions); open != 0 {
			to(sweepDecide, fmt.Sprintf("void session %d", open.first()), func(n *state, _ *pruneProc) { n.void(open.first()) })
			to(pruneIdle, "wait for sessions", nil)
			return
		}
		to(sweepPoints, "see all sessions decided, and read repack records", func(n *state, p *pruneProc) {
			p.sessions = 0
			switch x.fault {
			case pointsBeforeSessions:
			case recordsLast:
				p.points = n.listed()
			default:
				p.record = n.record
			}
		})
	case sweepPoints:
		to(sweepRemove, "list points", func(n *state, p *pruneProc) {
			switch x.fault {
			case pointsBeforeSessions:
			case recordsLast:
				p.record = n.record
			default:
				p.points = n.listed()
			}
			p.going = n.marks[p.mark].points & p.letGo()
		})
	}
}

// letGo is the retention, but for points that are held.
func (p *pruneProc) letGo() set { return letGo(p.points) &^ p.holds }

// missing is the names under which there is nothing.
func (s *state) missing() (points set) {
	for n, d := range s.points {
		if d == absent {
			points = points.with(name(n))
		}
	}
	return points
}

func (x *explorer) pointStep(s *state, p *pruneProc, to proceed) {
	g := p.going.first()
	switch p.at {
	case sweepRemove:
		packs := s.marks[p.mark].packs & s.packs &^ s.neededBy(p.points&^p.going, p.record)
		if x.fault == packsFirst && packs != 0 {
			to(sweepRemove, "delete packs first", func(n *state, p *pruneProc) { n.packs &^= packs })
			return
		}
		to(sweepGone, fmt.Sprintf("delete point %d", g), func(n *state, p *pruneProc) {
			n.sessions = n.sessions.without(g) // before it: a session that is gone is decided
			n.points[g], n.removed = absent, n.removed.with(g)
			p.points = p.points.without(g)
		})
	case sweepGone:
		to(sweepRemove, fmt.Sprintf("void point %d", g), func(n *state, p *pruneProc) {
			p.going = p.going.without(g)
			if x.fault == noTombstone {
				return
			}
			n.void(g)
			if n.points[g] == there { // it came back: a late repeat of its put
				p.points = p.points.with(g)
			}
		})
	}
}

// outcomeStep decides which packs of a mark go, once for all prunes: put if absent.
func (x *explorer) outcomeStep(s *state, p *pruneProc, to proceed) {
	switch p.at {
	case sweepNeeds:
		to(sweepOutcome, "read what the points need", x.needed)
	case sweepOutcome:
		if o := s.outcomes[p.mark]; o.known && x.fault != ownOutcome {
			x.indexAway(to, "follow what is decided", o.packs)
			return
		}
		to(sweepConfirm, fmt.Sprintf("decide that packs %s go", p.packs), func(n *state, p *pruneProc) {
			n.outcomes[p.mark] = outcome{known: true, packs: p.packs}
		})
	case sweepConfirm:
		if !s.marks[p.mark].there && x.fault != noConfirm {
			to(pruneIdle, "find the mark gone", nil)
			return
		}
		x.indexAway(to, "find the mark there still", p.packs)
	}
}

// needed works out which packs go. A repack record that is younger than the mark does
// not count yet: a restore may have begun that knows nothing of it.
func (x *explorer) needed(n *state, p *pruneProc) {
	listed := p.points
	if x.fault != halfRemoved { // others may have been cut off between delete and void
		listed |= n.removed
	}
	for gone := listed & n.missing(); gone != 0 && x.fault != noTombstone; gone = gone.without(gone.first()) {
		n.void(gone.first()) // so that what is not counted stays away
	}
	m, points := n.marks[p.mark], listed&n.listed()
	needed := n.neededBy(points, p.record)
	if !m.record && x.fault != youngRecord {
		needed |= n.neededBy(points, absent)
	}
	p.packs, p.points = m.packs&n.packs&^needed, points
}

// indexAway goes on to the packs, after what tells of them if that is in the model.
func (x *explorer) indexAway(to proceed, step string, packs set) {
	at := sweepPacks
	if x.indexed() {
		at = sweepIndex
	}
	to(at, step, func(n *state, p *pruneProc) {
		p.packs = packs & n.packs
		if x.indexed() {
			for i, names := range n.index {
				p.stale[i] = names&(p.packs|^n.packs) != 0
			}
		}
		if x.fault == markFirst {
			n.marks[p.mark] = mark{}
		}
	})
}

func (x *explorer) packStep(p *pruneProc, to proceed) {
	switch p.at {
	case sweepIndex:
		to(sweepPacks, "put index without them", func(n *state, p *pruneProc) {
			for i, stale := range p.stale {
				if stale && i != names+p.mark {
					n.index[names+p.mark] |= n.index[i] & n.packs &^ p.packs
				}
			}
			p.stale[names+p.mark] = false
		})
	case sweepPacks:
		pack := p.packs.first()
		to(sweepPacks, fmt.Sprintf("delete pack %d", pack), func(n *state, p *pruneProc) {
			n.packs, p.packs = n.packs.without(pack), p.packs.without(pack)
		})
	case sweepStale:
		to(sweepRecord, "delete stale index objects", func(n *state, p *pruneProc) {
			for i, stale := range p.stale {
				if stale {
					n.index[i] = 0
				}
			}
			p.stale = [indexes]bool{}
		})
	case sweepRecord:
		to(sweepWitness, "delete the repack record", func(n *state, p *pruneProc) {
			n.sessions, n.record = n.sessions.without(repack), absent
		})
	case sweepWitness:
		to(sweepMark, "delete witness", func(n *state, p *pruneProc) { n.marks[p.mark].witness, n.marks[p.mark].sessions = false, 0 })
	case sweepMark:
		to(pruneIdle, "delete mark", func(n *state, p *pruneProc) { n.marks[p.mark] = mark{} })
	}
}
