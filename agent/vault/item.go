package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/internal/gate"
)

// Item is an open item: its secrets, its local index, and a reader. It is shared
// by those who use it at the same time and closed by the last.
type Item struct {
	*catalog.Item
	Vault  *Vault
	Index  Index
	Reader *catalog.Reader

	users  int  // guarded by Vault.mu
	shared bool // it was open before one of its users came; guarded by Vault.mu

	looking gate.Gate  // held while its points are looked at
	pruning gate.Gate  // held by a prune
	leaving leaving    // points that it is about to remove
	sync    sync.Mutex // held while the index is brought up to the vault
	writing bool       // a backup is putting packs; guarded by sync
	apart   bool       // its index is in memory, and nobody else's
	spare   spare      // in the place of the index, for who reads
}

// openItem opens an item, with open if nobody has it open. The caller closes it.
func (s *Set) openItem(ctx context.Context, name string, open func(*Vault) (*catalog.Item, error)) (*Item, error) {
	cfg, ok := s.cfg.Settings().Items[name]
	if !ok {
		return nil, fault.NotFound("item", name, "coffer item list")
	}
	v, err := s.Open(ctx, cfg.Vault)
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
		s.accuse(ctx, cfg.Vault, name, err)
		return nil, fault.Names{Item: name}.Of(err)
	}
	index, err := s.cfg.Index(ctx, s.cfg.State.IndexPath(v.Catalog.ID(), opened.ID()))
	if err != nil {
		opened.Close()
		return nil, fault.Of(fmt.Errorf("item %s: %w", name, err))
	}
	it := newItem(v, opened, index)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.items[name] = it
	return it, nil
}

func newItem(v *Vault, opened *catalog.Item, index Index) *Item {
	it := &Item{Item: opened, Vault: v, Index: index, users: 1, looking: gate.New(), pruning: gate.New()}
	it.Reader = opened.NewReader(lookup{it})
	return it
}

// Item opens an item that has been backed up before. The caller closes it.
func (s *Set) Item(ctx context.Context, name string) (*Item, error) {
	return s.openItem(ctx, name, func(v *Vault) (*catalog.Item, error) { return v.Catalog.Item(ctx, name) })
}

// Existing is Item for who reads packs: the index is brought up to the vault.
func (s *Set) Existing(ctx context.Context, name string) (*Item, error) {
	it, err := s.Item(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := it.BringUp(ctx); err != nil {
		it.Close()
		return nil, err
	}
	return it, nil
}

// Protected is Item for who backs it up: it is made if this is its first backup.
func (s *Set) Protected(ctx context.Context, name string) (*Item, error) {
	return s.openItem(ctx, name, func(v *Vault) (*catalog.Item, error) {
		it, err := v.Catalog.Item(ctx, name)
		if !errors.Is(err, catalog.ErrNoItem) {
			return it, err
		}
		return v.Catalog.CreateItem(ctx, name, s.cfg.Clock())
	})
}

// Close gives up one use of the item.
func (it *Item) Close() {
	it.Vault.mu.Lock()
	defer it.Vault.mu.Unlock()
	if it.users--; it.users == 0 {
		if it.Vault.items[it.Name()] == it {
			delete(it.Vault.items, it.Name())
		}
		it.release()
	}
}

func (it *Item) release() {
	it.spare.close()
	it.Index.Close()
	it.Item.Close()
}

// Read reads a point, or returns it as read before. Nobody changes what it returns.
func (it *Item) Read(ctx context.Context, name catalog.PointName) (*catalog.Point, error) {
	id := it.ID().String() + "/" + string(name)
	if p := it.Vault.points.get(id); p != nil {
		return p, nil
	}
	p, err := it.Point(ctx, name)
	if err != nil {
		return nil, fault.Of(err)
	}
	it.Vault.points.put(id, p)
	return p, nil
}
