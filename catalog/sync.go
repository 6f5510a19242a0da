package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Local is the local index of an item, as Sync sees it: a cache of what the vault
// says, which may be lost or stale at any time.
type Local interface {
	// Sources names the index objects that have been added.
	Sources(ctx context.Context) (map[string]struct{}, error)
	// Add adds what packs hold: those of the index object source, or, with source
	// "", packs that no index object names yet.
	Add(ctx context.Context, source string, contents []pack.Contents) error
	// Packs yields the packs that have been added.
	Packs(ctx context.Context) iter.Seq2[pack.ID, error]
	// Forget removes packs that are gone.
	Forget(ctx context.Context, packs []pack.ID) error
	// Disown forgets which index objects were added, and not what they said: whoever
	// reads with the index meanwhile finds every chunk.
	Disown(ctx context.Context) error
	Marker
}

// Marker marks that an index may not know all packs that are in the store.
type Marker interface {
	// Begin sets the mark, and tells whether it was set: then somebody who was
	// putting packs, or finding them again, never came to his End.
	Begin(ctx context.Context) (unclean bool, err error)
	// End takes the mark away.
	End(ctx context.Context) error
}

// Synced says what a Sync did.
type Synced struct {
	Marks     []Mark      // that there were before the index was looked at
	Indexes   int         // index objects read
	Recovered int         // packs found without an index
	Damaged   []store.Key // indexes, and packs without an index, that do not open
	Unopened  int         // those of generations that no key opens now: the index lacks them
	// Gone are packs and index objects that were there before, and that no mark of a
	// prune explains: somebody deleted them.
	Gone []store.Key
}

// Sync brings the local index up to the vault. If index objects that it was made
// of are gone, it is made anew. If it is new, or a backup was interrupted, all
// packs are listed, and those that no index object names are found again. What is of
// a generation that no key opens now is passed over, and tried again the next time.
// Nobody may put packs of the item meanwhile.
//
// Marks are read before the index is listed. Whoever has announced a backup before that
// and leans on no pack in them is safe from every prune: what he finds in the index was
// not removed by one that had ended.
func (it *Item) Sync(ctx context.Context, local Local) (Synced, error) {
	s := syncer{item: it, local: local, locked: make(lockedGenerations)}
	err := s.run(ctx)
	if err != nil {
		err = fmt.Errorf("sync index of %s: %w", it.name, err)
	}
	return s.done, err
}

// SyncPacks is a Sync that also looks which packs there are, after the marks were read,
// and forgets those that are gone. A backup needs that: an index object says what packs
// hold, and not that they are there. One that a prune gave up may put an index object
// after its packs were removed, and what a Sync before found without an index object may
// have gone since.
func (it *Item) SyncPacks(ctx context.Context, local Local) (Synced, error) {
	s := syncer{item: it, local: local, locked: make(lockedGenerations), whole: true}
	err := s.run(ctx)
	if err != nil {
		err = fmt.Errorf("sync index and packs of %s: %w", it.name, err)
	}
	return s.done, err
}

// syncer is a Sync under way.
type syncer struct {
	item   *Item
	local  Local
	locked lockedGenerations
	whole  bool // look at the packs in any case
	done   Synced
	tries  int // how often index objects went away while they were read

	// If the index is made anew: the packs that index objects named, and the index
	// objects that are gone.
	before map[pack.ID]struct{}
	gone   []string
}

// maxTries is how often a Sync begins again because a prune is faster.
const maxTries = 5

func (s *syncer) run(ctx context.Context) (err error) {
	if s.done.Marks, err = s.item.Marks(ctx); err != nil {
		return err
	}
	notes, ok := s.local.(Notebook)
	if ok {
		if err := noteMarks(ctx, notes, s.done.Marks); err != nil {
			return err
		}
	}
	// A crash from here to End leaves the mark, and the next Sync lists all packs.
	unclean, err := s.local.Begin(ctx)
	if err != nil {
		return err
	}
	if err := s.indexes(ctx, unclean); err != nil {
		return err
	}
	if err := s.local.End(ctx); err != nil || !ok {
		return err
	}
	if err := dropMarks(ctx, notes, s.done.Marks); err != nil {
		return err
	}
	return noteTombstone(ctx, notes, s.item.tombstone)
}

// indexes brings in the index objects that are not known, and the packs if need be.
func (s *syncer) indexes(ctx context.Context, unclean bool) error {
	known, err := s.local.Sources(ctx)
	if err != nil {
		return err
	}
	var missing []string
	seen := 0
	for name, err := range s.item.Indexes(ctx) {
		if err != nil {
			return err
		}
		if _, ok := known[name]; ok {
			seen++
			delete(known, name)
		} else {
			missing = append(missing, name)
		}
	}
	if len(known) > 0 {
		return s.anew(ctx, known)
	}
	for _, name := range missing {
		damaged, err := s.index(ctx, name)
		if errors.Is(err, store.ErrNotExist) && s.tries < maxTries {
			s.tries++ // a prune has put others in its place since the listing
			return s.indexes(ctx, unclean)
		}
		if err != nil {
			return err
		}
		unclean = unclean || damaged // its packs say the same of themselves
	}
	if unclean || seen == 0 || s.whole {
		return s.packs(ctx)
	}
	return nil
}

// index brings in an index object.
func (s *syncer) index(ctx context.Context, name string) (damaged bool, err error) {
	key := s.item.IndexKey(name)
	contents, err := openUnless(ctx, s.item, s.locked, key, func() ([]pack.Contents, error) { return s.item.Index(ctx, name) })
	switch {
	case isUnopened(err):
		s.done.Unopened++
		return false, nil
	case errors.Is(err, crypt.ErrDamaged):
		damaged = true
		s.done.Damaged = append(s.done.Damaged, key)
	case err != nil:
		return false, err
	}
	s.done.Indexes++
	return damaged, s.local.Add(ctx, name, contents)
}

// anew makes the index anew, because index objects that it was made of are gone.
func (s *syncer) anew(ctx context.Context, gone map[string]struct{}) error {
	if s.before == nil {
		before, err := s.named(ctx)
		if err != nil {
			return err
		}
		s.before = before
	}
	for name := range gone {
		s.gone = append(s.gone, name)
	}
	if err := s.local.Disown(ctx); err != nil {
		return err
	}
	s.done = Synced{Marks: s.done.Marks, Gone: s.done.Gone}
	return s.indexes(ctx, true)
}

// named returns the packs that are known and that index objects name.
func (s *syncer) named(ctx context.Context) (map[pack.ID]struct{}, error) {
	packs := make(map[pack.ID]struct{})
	for id, err := range s.local.Packs(ctx) {
		if err != nil {
			return nil, err
		}
		packs[id] = struct{}{}
	}
	left, err := s.unsourced(ctx)
	for id := range left {
		delete(packs, id)
	}
	return packs, err
}

// unsourced returns the packs that are known and that no index object names.
func (s *syncer) unsourced(ctx context.Context) (map[pack.ID]struct{}, error) {
	u, ok := s.local.(unsourced)
	if !ok {
		return nil, nil
	}
	left, err := u.Unsourced(ctx)
	packs := make(map[pack.ID]struct{}, len(left))
	for _, c := range left {
		packs[c.Pack] = struct{}{}
	}
	return packs, err
}

// unsourced is an optional ability of a Local: it knows which packs no index object
// names.
type unsourced interface {
	Unsourced(ctx context.Context) ([]pack.Contents, error)
}

// packs compares the packs that are there with those that are known: takes in what an
// interrupted backup left, and forgets what is gone.
func (s *syncer) packs(ctx context.Context) error {
	gone := make(map[pack.ID]struct{})
	for id, err := range s.local.Packs(ctx) {
		if err != nil {
			return err
		}
		gone[id] = struct{}{}
	}
	var left map[pack.ID]struct{}
	if s.before != nil {
		var err error
		if left, err = s.unsourced(ctx); err != nil {
			return err
		}
	}
	reader := pack.NewReader(s.item.vault.objects, s.item, s.item.id)
	unnamed := false // a pack that an index object named before, and none does now
	for id, err := range s.item.Packs(ctx) {
		if err != nil {
			return err
		}
		_, named := s.before[id]
		delete(s.before, id)
		if _, ok := gone[id]; ok {
			delete(gone, id)
			_, without := left[id]
			unnamed = unnamed || named && without
			continue
		}
		unnamed = unnamed || named
		if err := s.recover(ctx, reader, id); err != nil {
			return err
		}
	}
	if err := s.explain(ctx, gone, unnamed); err != nil || len(gone) == 0 {
		return err
	}
	return s.local.Forget(ctx, slices.Collect(maps.Keys(gone)))
}

// recover takes in a pack that no index object names.
func (s *syncer) recover(ctx context.Context, reader *pack.Reader, id pack.ID) error {
	key := pack.Key(s.item.id, id)
	contents, err := openUnless(ctx, s.item, s.locked, key, func() (pack.Contents, error) { return reader.Contents(ctx, id) })
	switch {
	case isUnopened(err):
		s.done.Unopened++
		return nil
	case errors.Is(err, crypt.ErrDamaged), errors.Is(err, store.ErrNotExist):
		s.done.Damaged = append(s.done.Damaged, key)
		return nil
	case err != nil:
		return err
	}
	s.done.Recovered++
	return s.local.Add(ctx, "", []pack.Contents{contents})
}

// explain finds what is gone and no mark accounts for: packs, and, if packs are left
// that no index object names any more, the index objects.
func (s *syncer) explain(ctx context.Context, gone map[pack.ID]struct{}, unnamed bool) error {
	lost := maps.Clone(gone)
	maps.Copy(lost, s.before)
	if len(lost) > 0 {
		marks, err := s.item.Marks(ctx) // again: packs may have been marked and removed since
		if err != nil {
			return err
		}
		for _, m := range append(marks, s.done.Marks...) {
			for _, id := range m.Packs {
				delete(lost, id)
			}
		}
		if err := s.forgive(ctx, lost); err != nil {
			return err
		}
	}
	if len(lost) > 0 {
		removed := newRemovals()
		if err := removed.update(ctx, s.item); err != nil {
			return err
		}
		for id := range removed.packs {
			delete(lost, id)
		}
	}
	for id := range lost {
		s.done.Gone = append(s.done.Gone, pack.Key(s.item.id, id))
	}
	if unnamed {
		for _, name := range s.gone {
			s.done.Gone = append(s.done.Gone, s.item.IndexKey(name))
		}
	}
	slices.Sort(s.done.Gone)
	return nil
}

// forgive takes out the packs that a mark named which was seen before, and all of them
// if the item was erased since, and made again.
func (s *syncer) forgive(ctx context.Context, lost map[pack.ID]struct{}) error {
	notes, ok := s.local.(Notebook)
	if !ok {
		return nil
	}
	tombstone, err := notes.Note(ctx, NoteSeen, erasures)
	if err != nil {
		return err
	}
	if tombstone != int64(s.item.tombstone) {
		clear(lost)
	}
	for id := range lost {
		marked, err := notes.Note(ctx, NoteMarked, id)
		if err != nil {
			return err
		}
		if marked != 0 {
			delete(lost, id)
		}
	}
	return nil
}

// lockedGenerations are those that no key opens now, and why. Each costs one try.
type lockedGenerations map[uint32]error

// isUnopened tells whether err says that no key opens a secret.
func isUnopened(err error) bool {
	var unopened *kek.UnwrapError
	return errors.As(err, &unopened)
}

// openUnless opens an object of the item, unless it is of a generation that did not
// open before.
func openUnless[T any](ctx context.Context, it *Item, locked lockedGenerations, key store.Key, open func() (T, error)) (T, error) {
	if len(locked) > 0 {
		if g, err := it.generationOf(ctx, key); err == nil && locked[g] != nil {
			var none T
			return none, locked[g]
		}
	}
	out, err := open()
	if isUnopened(err) {
		g, gerr := it.generationOf(ctx, key)
		if gerr != nil {
			return out, gerr
		}
		locked[g] = err
	}
	return out, err
}
