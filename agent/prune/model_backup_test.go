package prune_test

// backupProc is a backup: it needs what is in pack old, and leans on a pack that has
// it, or puts one of its own.
type backupProc struct {
	at  backupStep
	run int
	// local is the local index: packs that this host has known.
	local, avoid, known, needs set
}

type backupStep uint8

const (
	backupBegin  backupStep = iota // put the session
	backupMarks                    // read the marks
	backupSync                     // read the index objects, and list the packs: only what is there is known
	backupLean                     // choose what to lean on; or put a pack
	backupIndex                    // put the index
	backupCommit                   // put the point
	backupRepeat                   // and perhaps once more, late
	backupVoid                     // a new run: void the own session of the one before
	backupDone
)

func (x *explorer) backup(s *state, i int, yield func(*state, string, ...any)) {
	b := &s.backups[i]
	if x.backups[i] == 0 || b.at == backupDone {
		return
	}
	me := sessionOf(i, b.run)
	to := func(at backupStep, step string, change func(n *state, b *backupProc)) {
		n := *s
		n.backups[i].at = at
		if change != nil {
			change(&n, &n.backups[i])
		}
		yield(&n, "backup %d: %s", me, step)
	}
	switch b.at {
	case backupBegin:
		if x.fault == lateSession {
			to(backupMarks, "nothing", nil)
			break
		}
		to(backupMarks, "begin", func(n *state, _ *backupProc) { n.sessions = n.sessions.with(me) })
	case backupMarks:
		if x.fault == packsBeforeMarks {
			to(backupSync, "sync", func(n *state, b *backupProc) { b.known = n.packs })
			break
		}
		to(backupSync, "marks", func(n *state, b *backupProc) { b.avoid = n.marked() })
	case backupSync:
		if x.fault == packsBeforeMarks {
			to(backupLean, "marks", func(n *state, b *backupProc) { b.avoid = n.marked() })
			break
		}
		to(backupLean, "sync", func(n *state, b *backupProc) {
			b.known = n.packs
			if x.fault == believeIndex {
				b.known = n.named() | b.local
				b.local = b.known
			}
			if x.fault == lateSession {
				n.sessions = n.sessions.with(me)
			}
		})
	case backupLean:
		x.lean(s, b, to)
	case backupIndex:
		to(backupCommit, "put index", func(n *state, b *backupProc) {
			if x.indexed() {
				n.index[me], b.local = b.needs, b.local|b.needs
			}
		})
	case backupCommit:
		x.commit(s, me, to)
	case backupRepeat:
		x.repeat(me, to)
	case backupVoid:
		to(backupBegin, "void the own session before", func(n *state, _ *backupProc) { n.void(sessionOf(i, b.run-1)) })
	}
	if b.run+1 < x.backups[i] && b.at != backupVoid && b.at != backupBegin && b.at != backupRepeat {
		to(backupDone, "crash", x.again)
	}
}

// lean chooses what the point will need: a known pack, whichever, or one of its own.
func (x *explorer) lean(s *state, b *backupProc, to func(backupStep, string, func(*state, *backupProc))) {
	usable := b.known &^ b.avoid
	for pack := range name(names) {
		if usable.has(pack) {
			to(backupCommit, "lean on a known pack", func(_ *state, b *backupProc) { b.needs = set(0).with(pack) })
		}
	}
	if usable == 0 {
		me := sessionOf(s.owner(b), b.run)
		to(backupIndex, "put pack", func(n *state, b *backupProc) {
			b.needs = set(0).with(me)
			n.packs |= b.needs
		})
	}
}

// owner tells whose process b is.
func (s *state) owner(b *backupProc) int {
	if b == &s.backups[0] {
		return 0
	}
	return 1
}

func (x *explorer) commit(s *state, me name, to func(backupStep, string, func(*state, *backupProc))) {
	put := func(n *state, b *backupProc) { n.points[me], n.needs[me] = there, b.needs }
	switch {
	case s.points[me] == absent || x.fault == noVoid:
		to(backupDone, "commit", func(n *state, b *backupProc) {
			put(n, b)
			x.again(n, b)
		})
		if x.late {
			to(backupRepeat, "commit, and not know of it", put)
		}
	default:
		to(backupDone, "is told that it was voided", x.again)
	}
}

// repeat puts the point once more, long after it was put, or does not.
func (x *explorer) repeat(me name, to func(backupStep, string, func(*state, *backupProc))) {
	to(backupDone, "give up repeating", x.again)
	to(backupDone, "put the point once more", func(n *state, b *backupProc) {
		if n.points[me] == absent {
			n.points[me] = there
		}
		x.again(n, b)
	})
}

// again begins the next run, if there is one.
func (x *explorer) again(n *state, b *backupProc) {
	i := n.owner(b)
	if b.run+1 >= x.backups[i] {
		*b = backupProc{at: backupDone, run: b.run}
		return
	}
	*b = backupProc{at: backupVoid, run: b.run + 1, local: b.local}
}

// named is what the index objects name, all of them.
func (s *state) named() (packs set) {
	for _, i := range s.index {
		packs |= i
	}
	return packs
}

// marked is what the marks name, all of them.
func (s *state) marked() (packs set) {
	for _, m := range s.marks {
		if m.there {
			packs |= m.packs
		}
	}
	return packs
}

// restoreProc is a restore: it looks where the packs of a point are, and then reads.
type restoreProc struct {
	at     restoreStep
	point  name
	packs  set
	missed bool
}

type restoreStep uint8

const (
	restoreBegin restoreStep = iota
	restoreFind              // read marks and repack records
	restoreRead
	restoreDone
)

func (x *explorer) restore(s *state, yield func(*state, string, ...any)) {
	r := &s.restores
	if x.restores == 0 || r.at == restoreDone {
		return
	}
	n := *s
	switch r.at {
	case restoreBegin:
		for p := range name(names) {
			// Who restores what is marked to go is told so, and gets no promise.
			if s.points[p] == there && !s.goes(p) {
				n := *s
				n.restores.at, n.restores.point = restoreFind, p
				yield(&n, "restore: begin with point %d", p)
			}
		}
	case restoreFind:
		n.restores.at, n.restores.packs = restoreRead, s.needs[r.point]
		if s.record == there && (s.marked().has(old) || !s.packs.has(old)) {
			n.restores.packs = s.needed(r.point, there)
		}
		yield(&n, "restore: find packs %s", n.restores.packs)
	case restoreRead:
		n.restores = restoreProc{at: restoreDone, missed: x.honest && r.packs&^s.packs != 0}
		yield(&n, "restore: read packs %s", r.packs)
	}
}

// goes tells whether a point is marked.
func (s *state) goes(p name) bool {
	for _, m := range s.marks {
		if m.there && m.points.has(p) {
			return true
		}
	}
	return false
}
