package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Repack says that the packs By hold all that the points in it need of the packs
// Replaced. A point that is not in it keeps what its own list says.
type Repack struct {
	ID       string      // set by PutRepack: its session's
	Replaced []pack.ID   // ascending
	By       []pack.ID   // ascending
	Points   []PointName // ascending
}

// repackBody is what a repack object holds.
type repackBody struct {
	Replaced []pack.ID `cbor:"1,keyasint"`
	By       []pack.ID `cbor:"2,keyasint"`
	Points   []string  `cbor:"3,keyasint"`
}

// PutRepack writes a repack record, whose packs By are in the store and in an index. It
// is the commit of a session in which those packs were put, or found good, under the
// session's id: if that was given up meanwhile, the packs may be gone (ErrVoided). Which
// of the two it is, is decided by this one Put.
func (it *Item) PutRepack(ctx context.Context, session PointName, r *Repack) error {
	if max(len(r.Replaced), len(r.By), len(r.Points)) > MaxMarked {
		return fmt.Errorf("repack %d packs of %d points of %s: more than %d", len(r.Replaced), len(r.Points), it.name, MaxMarked)
	}
	_, _, id, err := ParsePointName(string(session))
	if err != nil {
		return err
	}
	r.ID = pack.ID(id).String()
	slices.SortFunc(r.Replaced, comparePacks)
	slices.SortFunc(r.By, comparePacks)
	slices.Sort(r.Points)
	body := repackBody{Replaced: r.Replaced, By: r.By, Points: texts(r.Points)}
	err = it.putSealed(ctx, it.RepackKey(r.ID), crypt.Repack, id, body)
	if errors.Is(err, store.ErrExist) {
		var info store.Info
		if info, err = it.vault.objects.Stat(ctx, it.RepackKey(r.ID)); err == nil && info.Size == 0 {
			err = ErrVoided
		}
	}
	if err != nil {
		return fmt.Errorf("write repack record of %s: %w", it.name, err)
	}
	return nil
}

// Repacks are the repack records of an item.
type Repacks struct {
	all []Repack
	of  map[pack.ID][]int // by replaced pack: which of all
}

// Repacks reads the repack records that are there. One that does not open is an error:
// without it, what some points need is not known.
func (it *Item) Repacks(ctx context.Context) (Repacks, error) {
	all, err := readRecords(ctx, it, "repacks", it.readRepack)
	if err != nil {
		return Repacks{}, fmt.Errorf("read repack records of %s: %w", it.name, err)
	}
	return NewRepacks(all...), nil
}

func (it *Item) readRepack(ctx context.Context, info store.Info, id pack.ID) (Repack, error) {
	if info.Size == 0 { // a void
		return Repack{}, store.ErrNotExist
	}
	var body repackBody
	if err := it.readSealed(ctx, info.Key, crypt.Repack, id, &body); err != nil {
		return Repack{}, err
	}
	r := Repack{ID: id.String(), Replaced: body.Replaced, By: body.By}
	var err error
	r.Points, err = pointNames(body.Points)
	if err == nil && !slices.IsSorted(r.Points) {
		err = fmt.Errorf("read %s: its points are in no order: %w", info.Key, crypt.ErrDamaged)
	}
	return r, err
}

// NewRepacks are these records, the points of each in order. It keeps them.
func NewRepacks(all ...Repack) Repacks {
	r := Repacks{all: all, of: make(map[pack.ID][]int)}
	for i, record := range all {
		for _, id := range record.Replaced {
			r.of[id] = append(r.of[id], i)
		}
	}
	return r
}

// All returns the records. They are not to be changed.
func (r Repacks) All() []Repack { return r.all }

// PacksOf returns the packs that a point needs now, ascending: its own list, with what
// stands for packs that were replaced. What stands for a pack may be replaced itself; where
// that comes back to a pack, this one holds what is needed.
func (r Repacks) PacksOf(p *Point) []pack.ID {
	if len(r.all) == 0 {
		return p.Packs
	}
	f := follower{repacks: r, point: p.Name, needed: make(map[pack.ID]struct{}, len(p.Packs)), met: make(map[pack.ID]bool)}
	for _, id := range p.Packs {
		f.follow(id)
	}
	return slices.SortedFunc(maps.Keys(f.needed), comparePacks)
}

// follower follows what stands for the packs of a point.
type follower struct {
	repacks Repacks
	point   PointName
	needed  map[pack.ID]struct{}
	met     map[pack.ID]bool // replaced packs; true: what stands for it is in needed
}

func (f *follower) follow(id pack.ID) {
	by, replaced := f.repacks.standIns(f.point, id)
	done, met := f.met[id]
	switch {
	case !replaced || met && !done: // else it came back to where it began
		f.needed[id] = struct{}{}
		return
	case done:
		return
	}
	f.met[id] = false
	for _, other := range by {
		f.follow(other)
	}
	f.met[id] = true
}

// standIns returns the packs that stand for a pack, as far as a point needs it. Of
// two records either would do.
func (r Repacks) standIns(point PointName, id pack.ID) ([]pack.ID, bool) {
	for _, i := range r.of[id] {
		if _, covered := slices.BinarySearch(r.all[i].Points, point); covered {
			return r.all[i].By, true
		}
	}
	return nil, false
}

// RepackKey returns the object key of a repack record, or of its void.
func (it *Item) RepackKey(id string) store.Key { return it.prefix("repacks") + store.Key(id) }
