package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/gate"
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

	looking gate.Gate  // held while its points are looked at
	pruning gate.Gate  // held by a prune
	leaving leaving    // points that it is about to remove
	sync    sync.Mutex // held while the index is brought up to the vault
	writing bool       // a backup is putting packs; guarded by sync
	apart   bool       // its index is in memory, and nobody else's
	spare   spare      // in the place of the index, for who reads
}

// bringUp brings the item's index up to the vault. While a backup runs it is: only
// the backup changes it then.
func (a *Agent) bringUp(ctx context.Context, it *item) (catalog.Synced, error) {
	if it.writing {
		return catalog.Synced{}, nil
	}
	return a.broughtUp(ctx, it, it.Sync)
}

// broughtUp brings the item's index up with sync, and tells what that found.
func (a *Agent) broughtUp(ctx context.Context, it *item, sync func(context.Context, catalog.Local) (catalog.Synced, error)) (catalog.Synced, error) {
	done, err := sync(ctx, it.index)
	if err != nil {
		return done, Fault(err)
	}
	if done.Recovered > 0 || len(done.Damaged) > 0 {
		a.Log.Warn("packs without an index found", "item", it.Name(), "good", done.Recovered, "damaged", done.Damaged)
	}
	return done, a.tellGone(ctx, it, done.Gone)
}

// beginWriting takes over what a backup has to know before it begins. The function that
// it returns ends it.
func (it *item) beginWriting(ctx context.Context) (end func(), err error) {
	it.sync.Lock()
	defer it.sync.Unlock()
	if err := it.catchUp(ctx); err != nil {
		return nil, err
	}
	return func() {
		it.sync.Lock()
		defer it.sync.Unlock()
		it.writing = false
	}, nil
}

// bringUpWriting brings the index up for a backup, which is putting packs from then on.
// found hears of packs of an interrupted backup.
func (a *Agent) bringUpWriting(ctx context.Context, it *item, found func(packs int)) (catalog.Synced, error) {
	it.sync.Lock()
	defer it.sync.Unlock()
	synced, err := a.broughtUp(ctx, it, it.SyncPacks)
	if err != nil {
		return synced, err
	}
	it.writing = true
	if synced.Recovered > 0 {
		found(synced.Recovered)
	}
	return synced, nil
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
	cfg, ok := a.settings().Items[name]
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
		return nil, Fault(fmt.Errorf("item %s: %w", name, err))
	}
	it := a.newItem(v, opened, index)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.items[name] = it
	return it, nil
}

func (a *Agent) newItem(v *vault, opened *catalog.Item, index Index) *item {
	it := &item{Item: opened, vault: v, index: index, users: 1, looking: gate.New(), pruning: gate.New()}
	it.reader = opened.NewReader(lookup{a, it})
	return it
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
	if _, err := a.bringUp(ctx, it); err != nil {
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
	it.spare.close()
	it.index.Close()
	it.Item.Close()
}

// point reads a point, or returns it as read before.
func (it *item) point(ctx context.Context, name catalog.PointName) (*catalog.Point, error) {
	id := it.ID().String() + "/" + string(name)
	if p := it.vault.points.get(id); p != nil {
		return p, nil
	}
	p, err := it.Point(ctx, name)
	if err != nil {
		return nil, Fault(err)
	}
	it.vault.points.put(id, p)
	return p, nil
}

// PickReadable finds the point of an item that a selector means, as PickPoint does, and
// has read read it. If that is the latest, it passes over those that are damaged. notes
// say which, and that the clock of the one it takes was wrong.
func PickReadable(ctx context.Context, it *catalog.Item, selector string, now time.Time, read func(catalog.PointName) error) (notes []string, err error) {
	var first error // why the newest does not open
	for before := catalog.PointName(""); ; {
		name, err := pickPoint(ctx, it, selector, now.Location(), before)
		if first != nil && errors.Is(err, catalog.ErrNoPoint) {
			return nil, first
		}
		if err != nil {
			return nil, err
		}
		err = read(name)
		if latest := selector == "" || selector == "latest"; !latest || !errors.Is(err, crypt.ErrDamaged) && !errors.Is(err, store.ErrShort) {
			if err == nil && latest && name.Time().Sub(now) > ahead {
				notes = append(notes, fmt.Sprintf("point %s of %s is dated in the future: the clock that made it was wrong, and another may be newer", name, it.Name()))
			}
			return notes, err
		}
		notes = append(notes, fmt.Sprintf("point %s of %s is passed over, as it does not open: %v", name, it.Name(), err))
		first, before = cmp.Or(first, err), name
	}
}

// ahead is how far in the future a point may be: clocks differ by less.
const ahead = 10 * time.Minute

// PickPoint finds the point of an item that a selector means (control.ParseSelector).
// Times without a zone are in loc.
func PickPoint(ctx context.Context, it *catalog.Item, selector string, loc *time.Location) (catalog.PointName, error) {
	return pickPoint(ctx, it, selector, loc, "")
}

// pickPoint is PickPoint among the points before one, unless that is "".
func pickPoint(ctx context.Context, it *catalog.Item, selector string, loc *time.Location, before catalog.PointName) (catalog.PointName, error) {
	sel, err := control.ParseSelector(selector, loc)
	if err != nil {
		return "", &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("%q names no point", selector), Next: "see what there is: coffer point list " + it.Name()}
	}
	var found []catalog.PointName
	for n, err := range it.PointNames(ctx) {
		if err != nil {
			return "", Fault(err)
		}
		if before != "" && n >= before {
			break
		}
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
	for _, name := range slices.Sorted(maps.Keys(a.settings().Items)) {
		it, err := a.item(ctx, glancing, name)
		if control.CodeOf(err) == control.CodeNotFound {
			continue // a reload has just taken it out
		}
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
	cfg, ok := a.settings().Items[name]
	if !ok {
		return control.Item{}, notFound("item", name, "coffer item list")
	}
	kind, from := sourceOf(cfg)
	out := control.Item{Name: name, Vault: cfg.Vault, Kind: kind, Source: from}
	var due time.Time
	out.Policy, out.Next, due = a.planned(name)
	out.Overdue = !due.IsZero()
	out.Proof = a.proof(name)
	err := a.glanceAt(glancing, name, &out)
	err = overdue(ctx, glancing, err, store.ErrUnavailable)
	if err != nil && !errors.Is(err, catalog.ErrNoItem) && control.CodeOf(err) != control.CodeNotFound {
		out.Error = control.AsError(err)
	}
	return out, ctx.Err()
}

// glanceAt fills in what there is to say of an item's points.
func (a *Agent) glanceAt(ctx context.Context, name string, out *control.Item) error {
	it, synced, err := a.remembering(ctx, name)
	if err != nil {
		return err
	}
	defer it.close()
	points, stored, err := it.index.CountPoints(ctx)
	if err != nil {
		return err
	}
	out.Points, out.StoredBytes = int(points), stored
	if out.Warnings, err = a.strangeIn(ctx, it); err != nil {
		return err
	}
	for s, err := range it.index.Summaries(ctx, catalog.PointQuery{Newest: true}) {
		if err != nil {
			return err
		}
		if s.Unreadable && s.State != catalog.PointGone {
			out.Warnings = append(out.Warnings, control.Problem{Subject: "item " + name, Next: "see what is wrong with it: coffer verify " + name + "; then let it go: coffer point forget " + name + "@" + s.Name.String(),
				Message: fmt.Sprintf("point %s does not open, and is newer than the last good one", s.Name)})
		}
		if s.State == catalog.PointGone || s.Damaged {
			continue
		}
		out.LastPoint, out.LastGood, out.SourceBytes = s.Name.String(), s.Name.Time(), int64(s.Stats.Bytes)
		break
	}
	if synced.Unopened != nil {
		return Fault(synced.Unopened)
	}
	return Fault(synced.Err())
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
