package restore

import (
	"context"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// cover checks that the packs which a point is known to need have all that it needs:
// expiry removes what no point is known to need, without reading any tree.
//
// A chunk may be in several packs, after a crash or where two index objects tell of
// it, and the local index says one of them. So a chunk whose pack is not in the list
// is noted first, and looked for in the packs of the list when some have come
// together.
type cover struct {
	now     int                  // the point being checked
	packs   map[pack.ID]struct{} // in its list
	lists   [][]pack.ID          // of the points before, the last coverLists of them
	within  map[int]bool         // those points: is all of their list in this one
	missing map[pack.ID]struct{} // packs found to be missing in the list, and said
	noted   map[chunk.ID]place
}

// place is where a chunk is, and who needs it.
type place struct {
	pack pack.ID
	path string
}

const (
	// maxNoted bounds the memory of what is noted.
	maxNoted = 64 << 10
	// coverLists is of how many points the lists are remembered. What was last looked
	// at for a point before those is looked at again.
	coverLists = 64
)

// begin goes on to a point.
func (c *cover) begin(n int, packs []pack.ID) {
	lists := append(c.lists, make([][]pack.ID, n-c.now)...) // of points that could not be read there is none
	if len(lists) == 0 {
		lists = make([][]pack.ID, 1)
	}
	lists[len(lists)-1] = packs
	*c = cover{now: n, lists: slices.Clone(lists[max(0, len(lists)-coverLists):]), within: map[int]bool{n: true},
		packs: make(map[pack.ID]struct{}), missing: make(map[pack.ID]struct{}), noted: make(map[chunk.ID]place)}
	for _, id := range packs {
		c.packs[id] = struct{}{}
	}
}

// includes tells whether all packs of an earlier point are in this one's list: then
// what is covered there is covered here.
func (c *cover) includes(n int) bool {
	within, known := c.within[n]
	if known {
		return within
	}
	at := len(c.lists) - 1 - (c.now - n)
	within = at >= 0
	if within {
		within = !slices.ContainsFunc(c.lists[at], func(id pack.ID) bool { return !c.listed(id) })
	}
	c.within[n] = within
	return within
}

// listed tells whether the point's list has the pack.
func (c *cover) listed(id pack.ID) bool {
	_, ok := c.packs[id]
	return ok
}

// note notes a chunk whose pack is not in the list. full asks for resolve.
func (c *cover) note(id chunk.ID, p place) (full bool) {
	if _, said := c.missing[p.pack]; !said {
		c.noted[id] = p
	}
	return len(c.noted) >= maxNoted
}

// resolve looks for what is noted in the packs of the list, and reports each pack
// that has something which none of them has.
func (v *verify) resolve(ctx context.Context, point store.Key) error {
	c := &v.cover
	if len(c.noted) == 0 {
		return nil
	}
	for name, err := range v.Item.Indexes(ctx) {
		if err != nil {
			return err
		}
		contents, err := v.Item.Index(ctx, name)
		if err != nil && !catalog.Lost(err) { // a damaged one was reported when its packs were verified
			return err
		}
		for _, p := range contents {
			if !c.listed(p.Pack) {
				continue
			}
			for id := range p.Locations {
				delete(c.noted, id)
			}
		}
	}
	for _, p := range c.noted {
		if _, said := c.missing[p.pack]; said {
			continue
		}
		c.missing[p.pack] = struct{}{}
		err := fmt.Errorf("it needs pack %s, which its list of packs does not name: keep that pack until the item has been backed up again: %w", p.pack, crypt.ErrDamaged)
		if err := v.found(ctx, point, p.path, err); err != nil {
			return err
		}
	}
	clear(c.noted)
	return nil
}
