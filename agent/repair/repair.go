// Package repair mends an item of a vault: it names packs anew that no index names any
// more, stores again what the source still has of what is damaged or gone, and says
// which points are whole again by that. It throws nothing away.
//
// What is stored again is found by its chunks: they have the same ids, and who looks for
// one finds it in the pack that is whole. So older points heal with a new backup. A
// repack record then says that they need the damaged packs no more, so that they stay
// whole whatever a prune removes.
//
// Every step adds an object, and the vault is as good after any of them as before: a
// repair that was cut off is run again.
package repair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Index is the local index of the item, brought up to the vault.
type Index interface {
	catalog.Local
	catalog.Lookup
	catalog.Places
	catalog.SessionMemory
	// Contents returns what a pack holds; ok is false if it is not known.
	Contents(ctx context.Context, id pack.ID) (c pack.Contents, ok bool, err error)
}

// Config of a repair. Nobody else of this host may write to the item meanwhile.
type Config struct {
	Item  *catalog.Item
	Index Index
	// Verify looks at all points: at the packs that read chooses, nil for all. It
	// notes what it finds, so that Backup does not lean on it.
	Verify func(ctx context.Context, read func(pack.ID) bool) (restore.Report, error)
	// BringUp brings Index up to the vault, as catalog.Item.SyncPacks does, which stands for
	// nil.
	BringUp func(ctx context.Context) (catalog.Synced, error)
	// Backup backs the item up, every file read, and says what came of it.
	Backup func(ctx context.Context) (says string, err error)

	Packs   store.Putter     // where packs go: the item's store
	Level   chunk.Level      // compression
	Options store.PutOptions // for the objects that are put
	Host    string
	Clock   func() time.Time
}

// Result of a repair.
type Result struct {
	Found    restore.Report // before
	Left     restore.Report // what stays lost
	Repaired []string       // what was done, for people
	// Unread is why the source could not be read again; nil if it was, or need not be.
	Unread error
}

// Run repairs an item. An error says that it could not go on; what was done until then
// stays and does no harm.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if cfg.BringUp == nil {
		cfg.BringUp = func(ctx context.Context) (catalog.Synced, error) { return cfg.Item.SyncPacks(ctx, cfg.Index) }
	}
	r := &run{Config: cfg}
	err := r.run(ctx)
	return r.result, err
}

type run struct {
	Config
	result  Result
	damaged map[pack.ID]struct{}
	needed  []pack.ID            // of the damaged ones, by points
	marked  map[pack.ID]struct{} // a prune is to remove them
	before  map[pack.ID]struct{} // packs that the first look saw
}

func (r *run) did(format string, args ...any) {
	r.result.Repaired = append(r.result.Repaired, fmt.Sprintf(format, args...))
}

func (r *run) run(ctx context.Context) (err error) {
	if r.result.Found, err = r.Verify(ctx, nil); err != nil {
		return err
	}
	found := r.result.Found
	needed := neededOf(r.Item, found)
	if len(found.Findings) == 0 && len(needed) == 0 && len(found.Unnamed) == 0 {
		r.result.Left = found
		return nil
	}
	r.needed = needed
	r.damaged, r.before = setOf(found.Damaged), setOf(found.Unnamed)
	for id, err := range r.Index.Packs(ctx) {
		if err != nil {
			return err
		}
		r.before[id] = struct{}{}
	}
	if len(needed) > 0 || len(found.Points) > 0 {
		r.again(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := r.mend(ctx); err != nil {
		return err
	}
	r.result.Left, err = r.Verify(ctx, func(id pack.ID) bool {
		_, old := r.before[id]
		_, bad := r.damaged[id]
		return !old || bad
	})
	return err
}

// neededOf returns the damaged packs that points need: the others harm none, and there
// is nothing in them to be saved.
func neededOf(it *catalog.Item, found restore.Report) (needed []pack.ID) {
	spare := make(map[store.Key]struct{}, len(found.Spare))
	for _, f := range found.Spare {
		spare[f.Object] = struct{}{}
	}
	for _, id := range found.Damaged {
		if _, ok := spare[pack.Key(it.ID(), id)]; !ok {
			needed = append(needed, id)
		}
	}
	return needed
}

func setOf(ids []pack.ID) map[pack.ID]struct{} {
	set := make(map[pack.ID]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return set
}

// again stores again what the source still has. If it cannot be read, what can be
// mended without it still is.
func (r *run) again(ctx context.Context) {
	says, err := r.Backup(ctx)
	if err != nil {
		r.result.Unread = err
		return
	}
	r.did("the source was read again: %s", says)
}

// mend names packs, saves what is left in damaged ones, and frees points of those,
// within a session: a prune that marks packs from now on waits until it is decided, and
// what is marked already is not leaned on.
func (r *run) mend(ctx context.Context) (err error) {
	session := catalog.NewSession(r.Clock(), r.Host)
	// A crash from here on leaves a session that the next backup voids.
	if err := r.Index.OwnSession(ctx, session.Name); err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_, verr := r.Item.Void(end, session.Name) // no point comes of it
		if verr == nil {
			verr = r.Index.DropSession(end, session.Name)
		}
		err = errors.Join(err, verr)
	}()
	if err := r.Item.Announce(ctx, session); err != nil {
		return err
	}
	// Only now: what a prune has removed since the first look is not leaned on either.
	synced, err := r.BringUp(ctx)
	if err != nil {
		return err
	}
	r.marked = make(map[pack.ID]struct{})
	for _, m := range synced.Marks {
		if m.Fault != nil {
			return fmt.Errorf("what a prune is to remove is not known, so that nothing can be leaned on; prune the item and repair it again: %w", m.Fault)
		}
		for _, id := range m.Packs {
			r.marked[id] = struct{}{}
		}
	}
	if err := r.name(ctx); err != nil {
		return err
	}
	if err := r.salvage(ctx); err != nil {
		return err
	}
	return r.heal(ctx, session.Name)
}

// name writes index objects for the packs that none names: as they say themselves what
// they hold or, if that is damaged, as this host remembers it.
func (r *run) name(ctx context.Context) error {
	reader := r.Item.NewReader(r.Index)
	index, named := r.indexWriter(), 0
	for _, id := range r.result.Found.Unnamed {
		if _, going := r.marked[id]; going {
			continue
		}
		c, err := reader.Packs.Contents(ctx, id)
		if catalog.Lost(err) {
			known := false
			if c, known, err = r.Index.Contents(ctx, id); err == nil && !known {
				continue // it says nothing, and nobody knows
			}
		}
		if err != nil {
			return err
		}
		if err := index.Add(ctx, c); err != nil {
			return err
		}
		named++
	}
	if err := index.Flush(ctx); err != nil {
		return err
	}
	if named > 0 {
		r.did("a new index has %s that none named", control.Counted(named, "pack"))
	}
	return nil
}

func (r *run) indexWriter() catalog.IndexWriter {
	return catalog.IndexWriter{Item: r.Item, Local: r.Index, Options: r.Options}
}

// heal writes down which points need the damaged packs no more. catalog.ErrVoided if a
// prune has given the session up: nothing is written then.
func (r *run) heal(ctx context.Context, session catalog.PointName) error {
	repacks, err := r.Item.Repacks(ctx)
	if err != nil && !catalog.Lost(err) { // else points need what their own lists say, and are looked at for that
		return err
	}
	record := new(catalog.Repack)
	by := make(map[pack.ID]struct{})
	for name, err := range r.Item.PointNames(ctx) {
		if err != nil {
			return err
		}
		if len(record.Points) == catalog.MaxMarked {
			r.did("there are more points that are whole again than one record can name: repair the item once more")
			break
		}
		whole, err := r.whole(ctx, name, repacks, by)
		if err != nil {
			return err
		}
		if whole {
			record.Points = append(record.Points, name)
		}
	}
	if len(record.Points) == 0 {
		return nil
	}
	record.Replaced, record.By = listOf(r.damaged), listOf(by)
	if err := r.Item.PutRepack(ctx, session, record); err != nil {
		return err
	}
	for _, name := range record.Points {
		r.did("point %s is whole again", name)
	}
	return nil
}

// whole tells whether a point that lists a damaged pack finds all it needs in others,
// and adds those that it does not list.
func (r *run) whole(ctx context.Context, name catalog.PointName, repacks catalog.Repacks, by map[pack.ID]struct{}) (bool, error) {
	p, err := r.Item.Point(ctx, name)
	if err != nil {
		if catalog.Lost(err) || errors.Is(err, catalog.ErrNoPoint) {
			return false, nil
		}
		return false, err
	}
	needs := setOf(repacks.PacksOf(p))
	if !meet(needs, r.damaged) {
		return false, nil // it is whole as it is
	}
	avoid := func(id pack.ID) bool { return has(r.damaged, id) || has(r.marked, id) && !has(needs, id) }
	exact, err := r.Item.NewReader(catalog.Avoiding{Index: r.Index, Avoid: avoid}).PacksOf(ctx, p.Root)
	if err != nil {
		if catalog.Lost(err) {
			return false, nil
		}
		return false, err
	}
	for id := range exact {
		if avoid(id) {
			return false, nil
		}
	}
	for id := range exact {
		if !has(needs, id) {
			by[id] = struct{}{}
		}
	}
	return true, nil
}

func has(set map[pack.ID]struct{}, id pack.ID) bool {
	_, ok := set[id]
	return ok
}

func meet(a, b map[pack.ID]struct{}) bool {
	for id := range b {
		if has(a, id) {
			return true
		}
	}
	return false
}

func listOf(set map[pack.ID]struct{}) []pack.ID {
	return slices.SortedFunc(maps.Keys(set), func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) })
}
