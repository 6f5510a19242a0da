package backup

import (
	"context"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// extents collects the extents of a file in order, while their names are still
// being computed, and moves long lists of them into list chunks. A list is cut
// where an id asks for it, so that one changed chunk changes one list on each
// level, also where chunks were inserted before it.
type extents struct {
	h      *holder
	ctx    context.Context // of the file being read: extents live no longer
	queue  []waiting
	levels [][]tree.Extent // lists of the file, of lists, ...
}

// waiting is an extent whose chunk id may still come.
type waiting struct {
	extent tree.Extent
	named  <-chan chunk.ID // nil: extent is complete
}

const (
	maxInline  = 512 // extents that a node holds itself
	minList    = 32
	cutList    = 128 // one extent in so many asks for a cut
	maxWaiting = 64
)

// hole adds length bytes of zeros.
func (x *extents) hole(length uint64) {
	if length > 0 {
		x.queue = append(x.queue, waiting{extent: tree.Extent{Length: length, Kind: tree.Hole}})
	}
}

// add adds a chunk; named, if not nil, will tell its id.
func (x *extents) add(e tree.Extent, named <-chan chunk.ID) error {
	x.queue = append(x.queue, waiting{e, named})
	if len(x.queue) < maxWaiting {
		return nil
	}
	return x.drain(maxWaiting / 2)
}

// drain completes the oldest extents until keep are left.
func (x *extents) drain(keep int) error {
	n := len(x.queue) - keep
	for i := range x.queue[:n] {
		w := &x.queue[i]
		if w.named != nil {
			select {
			case w.extent.ID = <-w.named:
			case <-x.ctx.Done():
				return x.ctx.Err()
			}
		}
		if err := x.push(0, w.extent); err != nil {
			return err
		}
	}
	x.queue = append(x.queue[:0], x.queue[n:]...)
	return nil
}

func (x *extents) push(level int, e tree.Extent) error {
	if level == len(x.levels) {
		x.levels = append(x.levels, nil)
	}
	l := x.levels[level]
	if last := len(l) - 1; last >= 0 && e.Kind == tree.Hole && l[last].Kind == tree.Hole {
		l[last].Length += e.Length
		return nil
	}
	l = append(l, e)
	x.levels[level] = l
	if len(l) <= maxInline {
		return nil
	}
	cut := minList
	for cut < maxInline && (l[cut-1].Kind == tree.Hole || l[cut-1].ID[0]%cutList != 0) {
		cut++
	}
	return x.list(level, cut)
}

// list moves the first n extents of a level into a list chunk.
func (x *extents) list(level, n int) error {
	l := x.levels[level]
	e := tree.Extent{Kind: tree.Listed}
	for _, part := range l[:n] {
		e.Length += part.Length
	}
	var err error
	if e.ID, err = x.h.save(x.ctx, pack.List, tree.AppendExtents(nil, l[:n])); err != nil {
		return err
	}
	x.levels[level] = append(l[:0], l[n:]...)
	return x.push(level+1, e)
}

// finish returns the content of the file's node.
func (x *extents) finish() ([]tree.Extent, error) {
	if err := x.drain(0); err != nil || len(x.levels) == 0 {
		return nil, err
	}
	for level := 0; level < len(x.levels)-1; level++ {
		if n := len(x.levels[level]); n > 0 {
			if err := x.list(level, n); err != nil {
				return nil, err
			}
		}
	}
	return x.levels[len(x.levels)-1], nil
}
