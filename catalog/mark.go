package catalog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// MaxMarked is how many points, and how many packs, a mark names at the most.
const MaxMarked = 1 << 19

// Mark is what a prune is to remove. Who begins a backup when the mark is there does
// not lean on the packs in it.
type Mark struct {
	ID      string // set by PutMark
	Created time.Time
	Host    string
	Points  []PointName // ascending; they go if retention lets them go when it is time
	Packs   []pack.ID   // ascending; they go if no point needs them
	// Forgotten are points that somebody asked to go, ascending: they go whatever
	// retention says, unless they are held.
	Forgotten []PointName

	// Modified is when the store has it from, by its own clock.
	Modified time.Time
	// Fault, if not nil, says why the mark does not open. What it names is not known,
	// so that a backup may lean on nothing, and a prune has nothing to remove for it
	// but the mark itself.
	Fault error
}

// markBody is what a mark object holds.
type markBody struct {
	Created int64     `cbor:"1,keyasint"` // unix nanoseconds
	Host    string    `cbor:"2,keyasint"`
	Points  []string  `cbor:"3,keyasint,omitempty"`
	Packs   []pack.ID `cbor:"4,keyasint,omitempty"`
	Forgets []string  `cbor:"5,keyasint,omitempty"`
}

// witnessBody is what a witness object holds.
type witnessBody struct {
	Sessions []string `cbor:"1,keyasint"`
}

// PutMark writes a mark and gives it its id.
func (it *Item) PutMark(ctx context.Context, m *Mark) error {
	if max(len(m.Points), len(m.Packs), len(m.Forgotten)) > MaxMarked {
		return fmt.Errorf("mark %d points and %d packs of %s: more than %d", len(m.Points)+len(m.Forgotten), len(m.Packs), it.name, MaxMarked)
	}
	id := newID()
	m.ID, m.Host = id.String(), validText(m.Host)
	slices.Sort(m.Points)
	slices.Sort(m.Forgotten)
	slices.SortFunc(m.Packs, comparePacks)
	body := markBody{Created: m.Created.UnixNano(), Host: m.Host, Points: texts(m.Points), Packs: m.Packs, Forgets: texts(m.Forgotten)}
	if err := it.putSealed(ctx, it.MarkKey(m.ID), crypt.Mark, id, body); err != nil {
		return fmt.Errorf("write mark of %s: %w", it.name, err)
	}
	return nil
}

// Marks returns the marks that are there, those that do not open too, oldest first.
func (it *Item) Marks(ctx context.Context) ([]Mark, error) {
	marks, err := readRecords(ctx, it, "marks", func(ctx context.Context, info store.Info, id pack.ID) (Mark, error) {
		m, err := it.readMark(ctx, info, id)
		if errors.Is(err, crypt.ErrDamaged) || isUnopened(err) {
			return Mark{ID: m.ID, Modified: m.Modified, Fault: err}, nil
		}
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("read marks of %s: %w", it.name, err)
	}
	slices.SortStableFunc(marks, func(a, b Mark) int { return a.Created.Compare(b.Created) })
	return marks, nil
}

func (it *Item) readMark(ctx context.Context, info store.Info, id pack.ID) (Mark, error) {
	m := Mark{ID: id.String(), Modified: info.Modified}
	var body markBody
	err := it.readSealed(ctx, info.Key, crypt.Mark, id, &body)
	if err == nil {
		m.Created, m.Host, m.Packs = time.Unix(0, body.Created).UTC(), body.Host, body.Packs
		m.Points, err = pointNames(body.Points)
	}
	if err == nil {
		m.Forgotten, err = pointNames(body.Forgets)
	}
	if err != nil {
		err = fmt.Errorf("read mark %s of %s: %w", m.ID, it.name, err)
	}
	return m, err
}

// PutWitness writes down which sessions there were after a mark was visible. One that
// is there already stays, and serves as well: any listing after the mark does.
func (it *Item) PutWitness(ctx context.Context, mark string, sessions []PointName) error {
	id, err := pack.ParseID(mark)
	if err != nil {
		return fmt.Errorf("mark %w", err)
	}
	err = it.putSealed(ctx, it.WitnessKey(mark), crypt.Witness, id, witnessBody{Sessions: texts(slices.Sorted(slices.Values(sessions)))})
	if err != nil && !errors.Is(err, store.ErrExist) {
		return fmt.Errorf("write witness of mark %s of %s: %w", mark, it.name, err)
	}
	return nil
}

// Witness returns the sessions that there were after a mark was visible; ok is false
// if nobody has written them down yet. One that is damaged (crypt.ErrDamaged) may be
// deleted and written again.
func (it *Item) Witness(ctx context.Context, mark string) (sessions []PointName, ok bool, err error) {
	id, err := pack.ParseID(mark)
	if err != nil {
		return nil, false, fmt.Errorf("mark %w", err)
	}
	var body witnessBody
	err = it.readSealed(ctx, it.WitnessKey(mark), crypt.Witness, id, &body)
	if errors.Is(err, store.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		sessions, err = pointNames(body.Sessions)
	}
	if err != nil {
		return nil, false, fmt.Errorf("read witness of mark %s of %s: %w", mark, it.name, err)
	}
	return sessions, true, nil
}

// Witnesses returns the ids of the marks that witnesses are there of, be the marks
// there or not.
func (it *Item) Witnesses(ctx context.Context) ([]string, error) {
	var marks []string
	for id, err := range it.ids(ctx, it.prefix("witnesses")) {
		if err != nil {
			return nil, err
		}
		marks = append(marks, id.String())
	}
	return marks, nil
}

// MarkKey returns the object key of a mark.
func (it *Item) MarkKey(id string) store.Key { return it.prefix("marks") + store.Key(id) }

// WitnessKey returns the object key of the witness of a mark.
func (it *Item) WitnessKey(mark string) store.Key { return it.prefix("witnesses") + store.Key(mark) }

func newID() (id pack.ID) {
	rand.Read(id[:])
	return id
}

func comparePacks(a, b pack.ID) int { return slices.Compare(a[:], b[:]) }

func texts(names []PointName) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return out
}

// pointNames is the inverse of texts. crypt.ErrDamaged if one is no name.
func pointNames(texts []string) ([]PointName, error) {
	out := make([]PointName, len(texts))
	for i, s := range texts {
		name, _, _, err := ParsePointName(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, crypt.ErrDamaged)
		}
		out[i] = name
	}
	return out, nil
}
