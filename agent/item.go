package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// item is an open item: its secrets, its local index, and a reader. It is shared
// by those who use it at the same time and closed by the last.
type item struct {
	*catalog.Item
	vault  *vault
	index  Index
	reader *catalog.Reader
	users  int  // guarded by vault.mu
	shared bool // it was open before one of its users came; guarded by vault.mu

	sync    sync.Mutex // held while the index is brought up to the vault
	writing bool       // a backup is putting packs; guarded by sync
}

// bringUp brings the item's index up to the vault. While a backup runs it is: only
// the backup changes it then.
func (it *item) bringUp(ctx context.Context, log *slog.Logger) (catalog.Synced, error) {
	if it.writing {
		return catalog.Synced{}, nil
	}
	done, err := it.Sync(ctx, it.index)
	if err != nil {
		return done, Fault(err)
	}
	if done.Recovered > 0 || len(done.Damaged) > 0 {
		log.Warn("packs without an index found", "item", it.Name(), "good", done.Recovered, "damaged", done.Damaged)
	}
	return done, nil
}

// beginWriting brings the index up for a backup, and says that one is putting packs
// until the function that it returns is called. found hears of packs of an
// interrupted backup.
func (it *item) beginWriting(ctx context.Context, log *slog.Logger, found func(packs int)) (end func(), err error) {
	it.sync.Lock()
	defer it.sync.Unlock()
	if err := it.catchUp(ctx); err != nil {
		return nil, err
	}
	synced, err := it.bringUp(ctx, log)
	if err != nil {
		return nil, err
	}
	it.writing = true
	if synced.Recovered > 0 {
		found(synced.Recovered)
	}
	return func() {
		it.sync.Lock()
		defer it.sync.Unlock()
		it.writing = false
	}, nil
}

// catchUp has an item that somebody had open already take over the generations that
// were made since: what a backup writes is under the newest.
func (it *item) catchUp(ctx context.Context) error {
	it.vault.mu.Lock()
	shared := it.shared
	it.vault.mu.Unlock()
	if !shared {
		return nil
	}
	return Fault(it.Reread(ctx))
}

// openItem opens an item, with open if nobody has it open. The caller closes it.
func (a *Agent) openItem(ctx context.Context, name string, open func(*vault) (*catalog.Item, error)) (*item, error) {
	cfg, ok := a.Settings.Items[name]
	if !ok {
		return nil, notFound("item", name, "coffer item list")
	}
	v, err := a.vault(ctx, cfg.Vault)
	if err != nil {
		return nil, err
	}
	if it := v.use(name); it != nil {
		return it, nil
	}
	if err := v.opening.Enter(ctx); err != nil {
		return nil, err
	}
	defer v.opening.Leave()
	if it := v.use(name); it != nil { // somebody else opened it
		return it, nil
	}
	opened, err := open(v)
	if err != nil {
		a.accuse(ctx, cfg.Vault, name, err)
		return nil, Fault(err)
	}
	index, err := a.Parts.Index(ctx, a.state.indexPath(v.vault.ID(), opened.ID()))
	if err != nil {
		opened.Close()
		return nil, fmt.Errorf("item %s: %w", name, err)
	}
	it := &item{Item: opened, vault: v, index: index, reader: opened.NewReader(index), users: 1}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.items[name] = it
	return it, nil
}

// use returns an item that is open already, or nil. The caller closes it.
func (v *vault) use(name string) *item {
	v.mu.Lock()
	defer v.mu.Unlock()
	it := v.items[name]
	if it != nil {
		it.users++
		it.shared = true
	}
	return it
}

// detach has the next who opens an item read it anew. Who has it open keeps it.
func (v *vault) detach(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.items, name)
}

// existing opens an item that has been backed up before, for reading.
func (a *Agent) existing(ctx context.Context, name string) (*item, error) {
	it, err := a.openItem(ctx, name, func(v *vault) (*catalog.Item, error) { return v.vault.Item(ctx, name) })
	if err != nil {
		return nil, err
	}
	it.sync.Lock()
	defer it.sync.Unlock()
	if _, err := it.bringUp(ctx, a.Log); err != nil {
		it.close()
		return nil, err
	}
	return it, nil
}

// protected opens an item and makes it if this is its first backup.
func (a *Agent) protected(ctx context.Context, name string) (*item, error) {
	return a.openItem(ctx, name, func(v *vault) (*catalog.Item, error) {
		it, err := v.vault.Item(ctx, name)
		if !errors.Is(err, catalog.ErrNoItem) {
			return it, err
		}
		return v.vault.CreateItem(ctx, name, a.Clock())
	})
}

// close gives up one use of the item.
func (it *item) close() {
	it.vault.mu.Lock()
	defer it.vault.mu.Unlock()
	if it.users--; it.users == 0 {
		if it.vault.items[it.Name()] == it {
			delete(it.vault.items, it.Name())
		}
		it.release()
	}
}

func (it *item) release() {
	it.index.Close()
	it.Item.Close()
}

// point reads a point, or returns it as read before.
func (it *item) point(ctx context.Context, name catalog.PointName) (*catalog.Point, error) {
	id := it.ID().String() + "/" + string(name)
	it.vault.mu.Lock()
	p, ok := it.vault.points[id]
	it.vault.mu.Unlock()
	if ok {
		return p, nil
	}
	p, err := it.Point(ctx, name)
	if err != nil {
		return nil, Fault(err)
	}
	it.vault.mu.Lock()
	defer it.vault.mu.Unlock()
	it.vault.points[id] = p
	return p, nil
}

// PickPoint finds the point of an item that a selector means (control.ParseSelector).
// Times without a zone are in loc.
func PickPoint(ctx context.Context, it *catalog.Item, selector string, loc *time.Location) (catalog.PointName, error) {
	names, err := it.Points(ctx)
	if err != nil {
		return "", Fault(err)
	}
	sel, err := control.ParseSelector(selector, loc)
	if err != nil {
		return "", &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("%q names no point", selector), Next: "see what there is: coffer point list " + it.Name()}
	}
	var found []catalog.PointName
	for _, n := range names {
		switch {
		case n.String() == selector || string(n) == selector:
			return n, nil
		case sel.Latest, !sel.AtOrBefore.IsZero() && !n.Time().After(sel.AtOrBefore):
			found = []catalog.PointName{n}
		case sel.Prefix != "" && (strings.HasPrefix(n.String(), sel.Prefix) || strings.HasPrefix(string(n), sel.Prefix)):
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return "", Fault(fmt.Errorf("item %s has no point %q: %w", it.Name(), selector, catalog.ErrNoPoint))
	case 1:
		return found[0], nil
	}
	return "", &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("%d points of %s begin with %q", len(found), it.Name(), selector),
		Next: "write more of it: coffer point list " + it.Name()}
}

// Items implements control.Items.
func (a *Agent) Items(ctx context.Context) ([]control.Item, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var out []control.Item
	for _, name := range slices.Sorted(maps.Keys(a.Settings.Items)) {
		it, err := a.item(ctx, glancing, name)
		if err != nil {
			return nil, err
		}
		out = append(out, it)
	}
	return out, nil
}

// Item implements control.Items.
func (a *Agent) Item(ctx context.Context, name string) (control.Item, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	return a.item(ctx, glancing, name)
}

// item describes an item, with what can be learned of its points while glancing
// lasts.
func (a *Agent) item(ctx, glancing context.Context, name string) (control.Item, error) {
	cfg, ok := a.Settings.Items[name]
	if !ok {
		return control.Item{}, notFound("item", name, "coffer item list")
	}
	kind, from := sourceOf(cfg)
	out := control.Item{Name: name, Vault: cfg.Vault, Kind: kind, Source: from}
	points, err := a.points(glancing, name)
	err = overdue(ctx, glancing, err, store.ErrUnavailable)
	switch {
	case errors.Is(err, catalog.ErrNoItem), control.CodeOf(err) == control.CodeNotFound:
		return out, ctx.Err()
	case err != nil:
		out.Error = control.AsError(err)
		return out, ctx.Err()
	}
	out.Points = len(points)
	for _, p := range points {
		out.StoredBytes += int64(p.Stats.Stored)
	}
	if n := len(points); n > 0 {
		last := points[n-1]
		out.LastPoint, out.LastGood, out.SourceBytes = last.Name.String(), last.Name.Time(), int64(last.Stats.Bytes)
	}
	return out, nil
}

func sourceOf(cfg config.Item) (kind, from string) {
	switch {
	case cfg.Files != nil:
		return "files", strings.Join(cfg.Files.Paths, ", ")
	case cfg.Stream != nil:
		return "stream", strings.Join(cfg.Stream.Command, " ")
	}
	return "", ""
}

// points reads all points of an item, oldest first.
func (a *Agent) points(ctx context.Context, name string) ([]*catalog.Point, error) {
	it, err := a.openItem(ctx, name, func(v *vault) (*catalog.Item, error) { return v.vault.Item(ctx, name) })
	if err != nil {
		return nil, err
	}
	defer it.close()
	names, err := it.Points(ctx)
	if err != nil {
		return nil, Fault(err)
	}
	points := make([]*catalog.Point, 0, len(names))
	for _, n := range names {
		p, err := it.point(ctx, n)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}
