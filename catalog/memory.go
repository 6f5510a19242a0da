package catalog

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store/pack"
)

// What a host remembers of an item besides its packs. The local index keeps it, so it
// may be lost at any time; then less is noticed, and something is read again.

// Note is a kind of number that is remembered of a pack, or of an index object by the
// same kind of id.
type Note uint8

// The kinds of notes.
const (
	NoteRetained Note = 1 // until when the store keeps it, unix seconds
	NoteRead     Note = 2 // when all of it was last read and found good, unix seconds
	NoteDamaged  Note = 3 // since when it is known to be damaged or gone, unix seconds
	NoteMarked   Note = 4 // a mark that was seen names it: which, as a number
	NoteSeen     Note = 5 // it is a mark that was seen, and its number
	NoteRepack   Note = 6 // it is the id of a session of a repack of this host, begun then, unix milliseconds
	NoteBuried   Note = 7 // it is a record of what was removed, and where each of its points was is a void: 1
)

// Noted is a note on a pack.
type Noted struct {
	Pack  pack.ID
	Value int64 // never 0
}

// Notebook remembers notes. A note goes with its pack when that is forgotten, but for
// what a mark named, and not when the index is emptied.
type Notebook interface {
	// SetNotes writes notes of a kind in the place of those that were there. A value
	// of 0 takes the note away.
	SetNotes(ctx context.Context, kind Note, notes map[pack.ID]int64) error
	// Notes yields the notes of a kind, by id. After an error it yields nothing more.
	Notes(ctx context.Context, kind Note) iter.Seq2[Noted, error]
	// Note returns one note; 0 if there is none.
	Note(ctx context.Context, kind Note, id pack.ID) (int64, error)
}

// Summary is what is remembered of a point.
type Summary struct {
	Name    PointName `cbor:"-"`
	Kind    string    `cbor:"1,keyasint"`
	Host    string    `cbor:"2,keyasint"`
	Started int64     `cbor:"3,keyasint"` // unix nanoseconds
	Ended   int64     `cbor:"4,keyasint"`
	Tags    []string  `cbor:"5,keyasint,omitempty"`
	Stats   Stats     `cbor:"6,keyasint"`
	// Unreadable: the point's own object does not open, and nothing else is known.
	Unreadable bool `cbor:"7,keyasint,omitempty"`

	Size    int64      `cbor:"-"` // of the object, bytes
	Damaged bool       `cbor:"-"` // it is known not to restore as a whole
	State   PointState `cbor:"-"`
}

// PointState says how a point was seen last.
type PointState uint8

// The states.
const (
	PointThere  PointState = 0
	PointMarked PointState = 1 // there, and a mark names it
	PointGone   PointState = 2 // not there, though no mark named it
)

// PointQuery says which points are wanted. The zero value is all, oldest first.
type PointQuery struct {
	Newest bool // the newest first
	Gone   bool // those that are gone, and no others
}

// PointMemory remembers points.
type PointMemory interface {
	// AddPoints remembers points, in the place of those of the same names.
	AddPoints(ctx context.Context, points []Summary) error
	// SetPoints changes the state of points that are remembered.
	SetPoints(ctx context.Context, state PointState, names []PointName) error
	// DamagePoints says of points that are remembered whether they are known to be damaged.
	DamagePoints(ctx context.Context, damaged map[PointName]bool) error
	// DropPoints forgets points.
	DropPoints(ctx context.Context, names []PointName) error
	// Summaries yields points by name. The memory may be changed while it goes on.
	// After an error it yields nothing more.
	Summaries(ctx context.Context, q PointQuery) iter.Seq2[Summary, error]
	// CountPoints returns how many points are there and what they have stored, bytes.
	CountPoints(ctx context.Context) (points, stored int64, err error)
}

// SessionMemory remembers the sessions that this host has begun and not seen to their
// end. What it was told is on disk when it returns.
type SessionMemory interface {
	OwnSessions(ctx context.Context) ([]PointName, error)
	OwnSession(ctx context.Context, name PointName) error
	DropSession(ctx context.Context, name PointName) error
}

// Encode writes what does not stand beside it: all but name, size and state.
func (s Summary) Encode() ([]byte, error) { return encoding.Marshal(s) }

// DecodeSummary is the inverse of Encode. It does not insist on the deterministic
// encoding: a summary is of this host alone.
func DecodeSummary(b []byte) (Summary, error) {
	var s Summary
	if err := decoding.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("summary of a point: %w: %w", err, crypt.ErrDamaged)
	}
	return s, nil
}

// Summarize returns what is remembered of a point that is there.
func Summarize(p *Point) Summary {
	return Summary{Name: p.Name, Kind: p.Kind, Host: p.Host, Started: p.Started, Ended: p.Ended, Tags: p.Tags, Stats: p.Stats}
}

// erasures is what the number of the item's tombstone is noted under (NoteSeen): no
// mark has this id.
var erasures pack.ID

// markNumber is a mark's id as the value of a note.
func markNumber(id pack.ID) int64 { return int64(binary.BigEndian.Uint64(id[:]) | 1) }

// noteMarks remembers which packs the marks name, so that it is known why they are
// gone when the marks are, too.
func noteMarks(ctx context.Context, notes Notebook, marks []Mark) error {
	for _, m := range marks {
		id, err := pack.ParseID(m.ID)
		if err != nil || m.Fault != nil {
			continue
		}
		seen, err := notes.Note(ctx, NoteSeen, id)
		if err != nil {
			return err
		}
		if seen != 0 {
			continue
		}
		named := make(map[pack.ID]int64, len(m.Packs))
		for _, p := range m.Packs {
			named[p] = markNumber(id)
		}
		if err := notes.SetNotes(ctx, NoteMarked, named); err != nil {
			return err
		}
		if err := notes.SetNotes(ctx, NoteSeen, map[pack.ID]int64{id: markNumber(id)}); err != nil {
			return err
		}
	}
	return nil
}

// dropMarks forgets what marks named that are not there any more: from now on nothing
// explains that one of those packs is gone.
func dropMarks(ctx context.Context, notes Notebook, marks []Mark) error {
	ended := make(map[int64]pack.ID)
	for n, err := range notes.Notes(ctx, NoteSeen) {
		if err != nil {
			return err
		}
		if n.Pack != erasures && !slices.ContainsFunc(marks, func(m Mark) bool { return m.ID == n.Pack.String() }) {
			ended[n.Value] = n.Pack
		}
	}
	if len(ended) == 0 {
		return nil
	}
	drop := make(map[pack.ID]int64)
	for n, err := range notes.Notes(ctx, NoteMarked) {
		if err != nil {
			return err
		}
		if _, over := ended[n.Value]; over {
			drop[n.Pack] = 0
		}
	}
	if err := notes.SetNotes(ctx, NoteMarked, drop); err != nil {
		return err
	}
	for _, id := range ended {
		if err := notes.SetNotes(ctx, NoteSeen, map[pack.ID]int64{id: 0}); err != nil {
			return err
		}
	}
	return nil
}

// noteTombstone remembers which erasure of the item was seen last.
func noteTombstone(ctx context.Context, notes Notebook, tombstone uint32) error {
	seen, err := notes.Note(ctx, NoteSeen, erasures)
	if err != nil || seen == int64(tombstone) {
		return err
	}
	return notes.SetNotes(ctx, NoteSeen, map[pack.ID]int64{erasures: int64(tombstone)})
}
