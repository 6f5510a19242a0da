package backup

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// A prune removes packs without asking anybody. What keeps it from removing those of a
// backup under way is that the backup announces itself first: then either the prune
// finds the session and waits until it is decided, or the backup finds the prune's mark
// and does not lean on the packs in it (docs/decisions/0009-prune-without-locks.md).

// avoidance is the packs that a backup does not lean on: what is in them is stored again.
type avoidance struct {
	all   bool // what is marked is not known
	packs map[pack.ID]struct{}
}

func (a avoidance) has(id pack.ID) bool {
	if a.all {
		return true
	}
	_, ok := a.packs[id]
	return ok
}

// begin announces the backup, gives up those of this host that never ended, and learns
// what there is. The order is what the safety of a prune rests on: first the session,
// then the marks, then the index.
func (r *run) begin(ctx context.Context) error {
	r.session = catalog.NewSession(r.Clock(), r.Host)
	before, err := r.Index.OwnSessions(ctx)
	if err != nil {
		return err
	}
	// A crash after this leaves a name that the next backup voids, whether it was
	// announced or not.
	if err := r.Index.OwnSession(ctx, r.session.Name); err != nil {
		return err
	}
	if err := r.Item.Announce(ctx, r.session); err != nil {
		return err
	}
	if err := r.giveUp(ctx, before); err != nil {
		return err
	}
	synced, err := r.BringUp(ctx)
	if err != nil {
		return err
	}
	return r.avoidMarked(ctx, synced.Marks)
}

// giveUp decides the sessions of earlier backups of this host, which never ended: one
// job at a time works on an item. Only now, so that at no time is nobody there whom the
// packs belong to that they left.
func (r *run) giveUp(ctx context.Context, before []catalog.PointName) error {
	for _, name := range before {
		if _, err := r.Item.Void(ctx, name); err != nil {
			return err
		}
		// A crash here has the next backup void it again.
		if err := r.Index.DropSession(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// avoidMarked notes which packs the new point is not to lean on: those in marks, and
// those that are known to be damaged.
func (r *run) avoidMarked(ctx context.Context, marks []catalog.Mark) error {
	r.avoid.packs = make(map[pack.ID]struct{})
	for _, m := range marks {
		if m.Fault != nil {
			r.Log.Warn("a mark of a prune does not open, so everything is stored again; the next prune removes it", "item", r.Item.Name(), "error", m.Fault)
			r.avoid.all = true
		}
		for _, id := range m.Packs {
			r.avoid.packs[id] = struct{}{}
		}
	}
	for n, err := range r.Index.Notes(ctx, catalog.NoteDamaged) {
		if err != nil {
			return err
		}
		r.avoid.packs[n.Pack] = struct{}{}
	}
	r.reader = r.Item.NewReader(catalog.Avoiding{Index: r.Index, Avoid: r.avoids})
	return nil
}

// avoids tells whether the new point is not to lean on a pack. What this backup has put
// itself is in no mark.
func (r *run) avoids(id pack.ID) bool { return r.avoid.has(id) && !r.packer.own(id) }

// findParent finds the newest point, if it is of the same kind of source, and what it
// needs. An unreadable point is no reason not to make a new one.
func (r *run) findParent(ctx context.Context) error {
	newest, err := r.newest(ctx)
	if err != nil || newest == "" {
		return err
	}
	p, err := r.Item.Point(ctx, newest)
	var repacks catalog.Repacks
	if err == nil {
		repacks, err = r.Item.Repacks(ctx)
	}
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, crypt.ErrClosed) {
			return err
		}
		r.Log.Warn("last point is not readable, so everything is read again", "item", r.Item.Name(), "error", err)
		return nil
	}
	if p.Kind != r.Source.Kind() {
		return nil
	}
	r.parent, r.needs = p, repacks.PacksOf(p)
	for _, id := range r.needs {
		known, err := r.Index.HasPack(ctx, id)
		if err != nil {
			return err
		}
		if !known || r.avoid.has(id) {
			r.Log.Warn("last point needs a pack that is gone, damaged or to be removed, so every chunk is looked for", "item", r.Item.Name(), "pack", id)
			r.wary = true
			return nil
		}
	}
	return nil
}

// newest returns the name of the newest point, or "".
func (r *run) newest(ctx context.Context) (newest catalog.PointName, err error) {
	for name, err := range r.Item.PointNames(ctx) {
		if err != nil {
			return "", err
		}
		newest = name
	}
	return newest, nil
}

// find returns where a chunk is that the new point may lean on.
func (r *run) find(ctx context.Context, id chunk.ID) (pack.Location, bool, error) {
	loc, ok, err := r.Index.Lookup(ctx, id)
	if err != nil || !ok || !r.avoids(loc.Pack) {
		return loc, ok, err
	}
	places, err := r.Index.Places(ctx, id)
	if err != nil {
		return loc, false, err
	}
	for _, loc := range places {
		if !r.avoids(loc.Pack) {
			return loc, true, nil
		}
	}
	return loc, false, nil
}

// there tells whether the content of an unchanged file is all in packs that the new
// point may lean on, and that it then needs.
func (r *run) there(ctx context.Context, content []tree.Extent) (bool, error) {
	if r.avoid.all {
		return false, nil
	}
	var packs []pack.ID
	missing := errors.New("not there")
	err := r.reader.Refs(ctx, content, func(id chunk.ID, typ pack.FrameType) error {
		loc, ok, err := r.find(ctx, id)
		if err == nil && (!ok || loc.Type != typ) {
			err = missing
		}
		packs = append(packs, loc.Pack)
		return err
	})
	switch {
	case errors.Is(err, missing), catalog.Lost(err):
		return false, nil
	case err != nil:
		return false, err
	}
	for _, id := range packs {
		r.packer.use(id)
	}
	return true, nil
}

// retain has the store keep what the point leans on and this backup did not put.
func (r *run) retain(ctx context.Context, p *catalog.Point) error {
	if r.Retain == nil || r.Retention.Until.IsZero() {
		return nil
	}
	var older []pack.ID
	for _, id := range p.Packs {
		if !r.packer.own(id) {
			older = append(older, id)
		}
	}
	var indexes []string
	sources, err := r.Index.Sources(ctx)
	if err != nil {
		return err
	}
	for name := range sources {
		if !r.packer.ownIndex(name) {
			indexes = append(indexes, name)
		}
	}
	if err := r.Retain(ctx, older, indexes); err != nil {
		return fmt.Errorf("have the store keep what the new point leans on: %w", err)
	}
	return nil
}
