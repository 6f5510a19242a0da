package vault

import (
	"errors"
	"sync"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/internal/gate"
	"github.com/cofferbackup/coffer/store"
)

// Vault is an open vault and what is known of it.
type Vault struct {
	Name    string // in the configuration
	Store   store.Store
	Catalog *catalog.Vault
	Floors  *state.Floors

	set     *Set
	opening gate.Gate // held while items are opened

	points pointCache // read before, by item id and name: points never change

	mu      sync.Mutex
	missing []error            // keys of the config that do not open, or may not wrap
	view    View               // as of the last look
	items   map[string]*Item   // open items, by name
	seen    map[string]seen    // points of items, as of the last look
	glances map[string]Glance  // what a status says of items, as of the last look
	changes int                // that made what is known of items old
	strange map[string]strange // records of items, as of the last look
}

// View is what is shown of a vault's keys besides their state. It takes a look at every
// key record, so it is looked at now and then, and not for every status.
type View struct {
	Coverage []control.Coverage
	Findings []custody.Finding
}

func (s *Set) newVault(name string, st store.Store, v *catalog.Vault, f *state.Floors, missing []error) *Vault {
	return &Vault{Name: name, Store: st, Catalog: v, Floors: f, set: s, missing: missing,
		opening: gate.New(), items: make(map[string]*Item), seen: make(map[string]seen), glances: make(map[string]Glance), strange: make(map[string]strange)}
}

// Opened returns a vault that is open already, or nil.
func (s *Set) Opened(name string) *Vault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[name]
}

// Lacks returns what is wrong with the keys of the vault that do not open, or nil.
func (v *Vault) Lacks() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(v.missing...)
}

// SetMissing says what is wrong with the keys of the vault that do not open.
func (v *Vault) SetMissing(missing []error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.missing = missing
}

// View returns what the last look at the vault's keys found.
func (v *Vault) View() View {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.view
}

// SetView keeps what a look at the vault's keys has found, and returns what was kept.
func (v *Vault) SetView(now View) (before View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, v.view = v.view, now
	return before
}

// Lost returns how many points of an item are gone that no prune removed.
func (v *Vault) Lost(item string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen[item].synced.Lost
}

// use returns an item that is open already, or nil. The caller closes it.
func (v *Vault) use(name string) *Item {
	v.mu.Lock()
	defer v.mu.Unlock()
	it := v.items[name]
	if it != nil {
		it.users++
		it.shared = true
	}
	return it
}

// Detach has the next who opens an item read it anew. Who has it open keeps it.
func (v *Vault) Detach(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.items, name)
	v.forget(name)
}
