package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrPointGone: a point that was seen before is not there, and no mark of a prune had
// named it.
var ErrPointGone = errors.New("a point that was there is gone")

// SyncedPoints says what a SyncPoints did.
type SyncedPoints struct {
	Read int // points that were new
	// Gone are the newest of those that are gone, and Lost is how many there are, also
	// those that were found to be gone before.
	Gone []PointName
	Lost int
	// Unopened says why a point that is new did not open for lack of a key; it is tried
	// again the next time. Nil if all did.
	Unopened error
}

// maxGone is how many points that are gone are named.
const maxGone = 10

// Err returns ErrPointGone if points are gone, or nil.
func (s SyncedPoints) Err() error {
	if s.Lost == 0 {
		return nil
	}
	more := ""
	if s.Lost > 1 {
		more = fmt.Sprintf(" and %d more", s.Lost-1)
	}
	return fmt.Errorf("point %s%s: %w: deleted behind the agent's back", s.Gone[0], more, ErrPointGone)
}

// SyncPoints brings what is remembered of the item's points up to the vault: reads
// those that are new, forgets those that a prune removed, and finds those that are gone
// with no mark to say why. It holds a few hundred of them at a time. It may run beside
// everything else, but not twice at once for one memory.
func (it *Item) SyncPoints(ctx context.Context, memory PointMemory) (SyncedPoints, error) {
	s := pointSync{item: it, memory: memory, removed: newRemovals()}
	err := s.run(ctx)
	if err != nil {
		err = fmt.Errorf("sync points of %s: %w", it.name, err)
	}
	return s.done, err
}

type pointSync struct {
	item   *Item
	memory PointMemory
	marked map[PointName]struct{}
	done   SyncedPoints

	removed *removals // read when nothing else explains that a point is missing

	fresh   []namedEntry               // to be read
	changes map[PointState][]PointName // of those that are remembered
	missing []Summary                  // remembered and not listed
}

// pointBatch is how many points are read or written together.
const pointBatch = 256

func (s *pointSync) run(ctx context.Context) error {
	if err := s.readMarks(ctx); err != nil {
		return err
	}
	s.changes = make(map[PointState][]PointName)
	if err := s.compare(ctx); err != nil {
		return err
	}
	if err := s.readFresh(ctx); err != nil {
		return err
	}
	if err := s.settleMissing(ctx); err != nil {
		return err
	}
	for state, names := range s.changes {
		if err := s.memory.SetPoints(ctx, state, names); err != nil {
			return err
		}
	}
	return s.tellGone(ctx)
}

// readMarks notes which points the marks name.
func (s *pointSync) readMarks(ctx context.Context) error {
	marks, err := s.item.Marks(ctx)
	if err != nil {
		return err
	}
	s.marked = make(map[PointName]struct{})
	for _, m := range marks {
		for _, name := range slices.Concat(m.Points, m.Forgotten) {
			s.marked[name] = struct{}{}
		}
	}
	return nil
}

// compare goes through what is listed and what is remembered, both in order.
func (s *pointSync) compare(ctx context.Context) error {
	next, stop := iter.Pull2(s.memory.Summaries(ctx, PointQuery{}))
	defer stop()
	known, err, more := next()
	for entry, lerr := range s.item.named(ctx, "points") {
		if lerr != nil {
			return lerr
		}
		if entry.Size == 0 {
			continue // a void
		}
		for ; more && err == nil && known.Name < entry.name; known, err, more = next() {
			if merr := s.miss(ctx, known); merr != nil {
				return merr
			}
		}
		if err != nil {
			return err
		}
		if more && known.Name == entry.name {
			if merr := s.meet(ctx, known, entry); merr != nil {
				return merr
			}
			known, err, more = next()
		} else if merr := s.add(ctx, entry); merr != nil {
			return merr
		}
	}
	for ; more && err == nil; known, err, more = next() {
		if merr := s.miss(ctx, known); merr != nil {
			return merr
		}
	}
	return err
}

// meet is told of a point that is remembered and there.
func (s *pointSync) meet(ctx context.Context, known Summary, entry namedEntry) error {
	if known.Size != entry.Size || known.Unreadable {
		return s.add(ctx, entry) // points never change: see what it is
	}
	state := PointThere
	if _, marked := s.marked[known.Name]; marked {
		state = PointMarked
	}
	return s.change(ctx, state, known)
}

func (s *pointSync) change(ctx context.Context, state PointState, known Summary) error {
	if known.State == state {
		return nil
	}
	s.changes[state] = append(s.changes[state], known.Name)
	if len(s.changes[state]) < pointBatch {
		return nil
	}
	names := s.changes[state]
	s.changes[state] = nil
	return s.memory.SetPoints(ctx, state, names)
}

// miss is told of a point that is remembered and not there.
func (s *pointSync) miss(ctx context.Context, known Summary) error {
	if known.State == PointGone {
		return nil
	}
	s.missing = append(s.missing, known)
	if len(s.missing) < pointBatch {
		return nil
	}
	return s.settleMissing(ctx)
}

// settleMissing forgets the missing points that a mark named, or that a prune wrote down
// as removed, and notes that the others are gone. Marks are read again: a point may have
// been marked and removed since.
func (s *pointSync) settleMissing(ctx context.Context) error {
	if len(s.missing) == 0 {
		return nil
	}
	if err := s.readMarks(ctx); err != nil {
		return err
	}
	var removed, gone []PointName
	for _, known := range s.missing {
		if _, marked := s.marked[known.Name]; marked || known.State == PointMarked || s.item.erasedBefore(known) {
			removed = append(removed, known.Name)
		} else {
			gone = append(gone, known.Name)
		}
	}
	s.missing = s.missing[:0]
	if len(gone) > 0 {
		if err := s.removed.update(ctx, s.item); err != nil {
			return err
		}
		gone = slices.DeleteFunc(gone, func(name PointName) bool {
			_, told := s.removed.points[name]
			if told {
				removed = append(removed, name)
			}
			return told
		})
	}
	if err := s.memory.DropPoints(ctx, removed); err != nil {
		return err
	}
	return s.memory.SetPoints(ctx, PointGone, gone)
}

// erasedBefore tells whether a point went with the item that this one was made again
// after.
func (it *Item) erasedBefore(known Summary) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	first, ok := it.records[it.tombstone+1]
	return it.tombstone > 0 && ok && known.Started < time.Unix(first.Created, 0).UnixNano()
}

// add is told of a point that has to be read.
func (s *pointSync) add(ctx context.Context, entry namedEntry) error {
	s.fresh = append(s.fresh, entry)
	if len(s.fresh) < pointBatch {
		return nil
	}
	return s.readFresh(ctx)
}

// readFresh reads the points that are new and remembers them. A crash here leaves those
// to be read again that are not remembered yet.
func (s *pointSync) readFresh(ctx context.Context) error {
	read := make([]Summary, len(s.fresh))
	unopened := make([]error, len(s.fresh))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, entry := range s.fresh {
		group.Go(func() (err error) {
			read[i], err = s.item.summarize(gctx, entry)
			if isUnopened(err) {
				unopened[i], err = err, nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var known []Summary
	for i := range read {
		switch {
		case unopened[i] != nil:
			s.done.Unopened = unopened[i]
			continue
		case read[i].Name == "": // gone since the listing
			continue
		}
		if _, marked := s.marked[read[i].Name]; marked {
			read[i].State = PointMarked
		}
		known = append(known, read[i])
	}
	s.fresh = s.fresh[:0]
	s.done.Read += len(known)
	if len(known) == 0 {
		return nil
	}
	return s.memory.AddPoints(ctx, known)
}

// summarize reads a point for its summary. One that is damaged has a summary too.
func (it *Item) summarize(ctx context.Context, entry namedEntry) (Summary, error) {
	var s Summary
	p, err := it.Point(ctx, entry.name)
	switch {
	case errors.Is(err, ErrNoPoint):
		return s, nil
	case Unreadable(err):
		s = Summary{Name: entry.name, Started: entry.name.Time().UnixNano(), Unreadable: true, Damaged: true}
	case err != nil:
		return s, err
	default:
		s = Summarize(p)
	}
	s.Size = entry.Size
	return s, nil
}

// tellGone says which points are gone.
func (s *pointSync) tellGone(ctx context.Context) error {
	for gone, err := range s.memory.Summaries(ctx, PointQuery{Newest: true, Gone: true}) {
		if err != nil {
			return err
		}
		if s.done.Lost++; len(s.done.Gone) < maxGone {
			s.done.Gone = append(s.done.Gone, gone.Name)
		}
	}
	slices.Sort(s.done.Gone)
	return nil
}
