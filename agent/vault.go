package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/gate"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// vault is an open vault and what is known of it.
type vault struct {
	name   string
	store  store.Store
	vault  *catalog.Vault
	floors *floors

	opening gate.Gate // held while items are opened

	points pointCache // read before, by item id and name: points never change

	mu      sync.Mutex
	missing []error            // keys of the config that do not open, or may not wrap
	view    custodyView        // as of the last look
	items   map[string]*item   // open items, by name
	seen    map[string]seen    // points of items, as of the last look
	glances map[string]glanced // what a status says of items, as of the last look
	changes int                // that made what is known of items old
	strange map[string]strange // records of items, as of the last look
}

// custodyView is what is shown of a vault's keys besides their state. It takes a look
// at every key record, so it is looked at now and then, and not for every status.
type custodyView struct {
	coverage []control.Coverage
	findings []custody.Finding
}

func newVault(name string, st store.Store, v *catalog.Vault, f *floors, missing []error) *vault {
	return &vault{name: name, store: st, vault: v, floors: f, missing: missing,
		opening: gate.New(), items: make(map[string]*item), seen: make(map[string]seen), glances: make(map[string]glanced), strange: make(map[string]strange)}
}

// uses says which keys a vault is used with.
func (a *Agent) uses(name string) keyring.Use {
	cfg := a.settings().Vaults[name]
	u := keyring.Use{Keys: cfg.Keys, Open: slices.Clone(cfg.RestoreKeys)}
	for _, uri := range a.state.links(name) {
		u.Open = append(u.Open, a.keys.Link(linked(a.settings(), uri)))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	u.Without = a.away[name]
	return u
}

// pinned returns the id that the vault must have.
func (a *Agent) pinned(name string) (crypt.VaultID, error) {
	if text := a.settings().Vaults[name].ID; text != "" {
		return crypt.ParseVaultID(text)
	}
	if id, ok := a.state.id(name); ok {
		return id, nil
	}
	return crypt.VaultID{}, &control.Error{Code: control.CodeNotFound,
		Message: fmt.Sprintf("vault %s: neither the config nor the agent's state has its id, so nothing in its store is trusted", name),
		Next:    fmt.Sprintf("make it: coffer vault create %s; or, if it is there, write the id from its recovery sheet into the config: vaults.%s.id", name, name)}
}

// unpinned returns an error if there is a vault in a store where this agent knows of
// none: its state was lost, or the vault is another host's.
func (a *Agent) unpinned(ctx context.Context, name string) error {
	st, err := a.Parts.Store(ctx, a.settings().Vaults[name])
	if err != nil {
		return nil // there is no place for one, or nobody can say
	}
	defer closeStore(st, name, a.Log)
	if _, err := st.Stat(ctx, descriptor); err != nil {
		return nil
	}
	return &control.Error{Code: control.CodeConflict,
		Message: fmt.Sprintf("vault %s: there is a vault in its store, and neither the config nor the agent's state has its id, so it is not trusted", name),
		Next:    fmt.Sprintf("write the id from its recovery sheet into the config, vaults.%s.id, then: coffer config reload; a new vault needs another place", name)}
}

// vault opens a vault of the config, or returns the open one. It refuses one whose
// keys were taken away.
func (a *Agent) vault(ctx context.Context, name string) (*vault, error) {
	if _, ok := a.settings().Vaults[name]; !ok {
		return nil, notFound("vault", name, "coffer vault list")
	}
	if err := a.refused(name); err != nil {
		return nil, err
	}
	if v := a.opened(name); v != nil && v.lacks() == nil {
		return v, nil
	}
	if err := a.opening(name).Enter(ctx); err != nil {
		return nil, err
	}
	defer a.opening(name).Leave()
	if v := a.opened(name); v != nil {
		if v.lacks() != nil { // perhaps the missing keys are back
			a.rering(ctx, v)
		}
		return v, nil
	}
	return a.openVault(ctx, name)
}

// openVault opens a vault. The caller holds its opening.
func (a *Agent) openVault(ctx context.Context, name string) (_ *vault, err error) {
	id, err := a.pinned(name)
	if err != nil {
		return nil, cmp.Or(a.unpinned(ctx, name), err)
	}
	st, err := a.Parts.Store(ctx, a.settings().Vaults[name])
	if err != nil {
		return nil, Fault(fmt.Errorf("vault %s: %w", name, err))
	}
	defer func() {
		if err != nil {
			closeStore(st, name, a.Log)
		}
	}()
	floors, err := a.state.floors(id, a.Log)
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", name, err)
	}
	ctx = keyring.WithPurpose(ctx, keyring.Purpose{Vault: name})
	ring, missing := a.keys.Ring(ctx, a.uses(name))
	opened, err := catalog.Open(ctx, st, catalog.OpenOptions{ID: id, Ring: ring, Floors: floors})
	var unopened *kek.UnwrapError
	switch {
	case !errors.As(err, &unopened): // the keys that are missing are not why
	case len(missing) > 0 && len(unopened.Tried) == 0: // there was none to try: all has been said
		err = errors.Join(missing...)
	default:
		err = errors.Join(append(missing, err)...)
	}
	a.accuse(ctx, name, "", err)
	if err == nil {
		err = a.modeHolds(name, opened)
	}
	if err != nil {
		return nil, Fault(fmt.Errorf("vault %s: %w", name, err))
	}
	v := newVault(name, st, opened, floors, missing)
	if err := a.install(v); err != nil {
		opened.Close()
		return nil, err
	}
	return v, nil
}

// install makes an open vault the one to work with, unless its keys were taken away
// while it was being opened.
func (a *Agent) install(v *vault) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.refused(v.name); err != nil {
		return err
	}
	a.vaults[v.name] = v
	return nil
}

// accuse has it in the audit log that a key record was refused: forged, put in
// another's place, or older than one seen before.
func (a *Agent) accuse(ctx context.Context, vault, item string, err error) {
	if !errors.Is(err, catalog.ErrRolledBack) && !errors.Is(err, catalog.ErrMisplaced) && !errors.Is(err, crypt.ErrDamaged) {
		return
	}
	e := audit.Event{Kind: audit.RecordRefused, Vault: vault, Item: item, Outcome: "refused", Says: err.Error()}
	if err := a.record(ctx, e); err != nil {
		a.Log.Error("a refused key record is not in the audit log", "vault", vault, "err", err)
	}
}

// ErrMode: the configuration asks for less than the vault is.
var ErrMode = errors.New("the vault is customer-managed, for ever")

// modeHolds refuses a configuration that would put a customer-managed vault under a
// software key again.
func (a *Agent) modeHolds(name string, v *catalog.Vault) error {
	if v.Mode() != catalog.CustomerManaged {
		return nil
	}
	cfg := a.settings().Vaults[name]
	if cfg.Mode == catalog.SoftwareKeys.String() {
		v.Close()
		return fmt.Errorf("%w: write vaults.%s.mode: customer-managed", ErrMode, name)
	}
	if key, ok := a.fileKey(cfg); ok {
		v.Close()
		return fmt.Errorf("%w: key %s is a file: take it out of vaults.%s.keys, or name it under restore_keys", ErrMode, key, name)
	}
	return nil
}

// rering gives an open vault the keys that it can have now. The caller holds its opening.
func (a *Agent) rering(ctx context.Context, v *vault) {
	ring, missing := a.keys.Ring(ctx, a.uses(v.name))
	v.vault.UseRing(ring)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.missing = missing
}

// opened returns a vault that is open already, or nil.
func (a *Agent) opened(name string) *vault {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.vaults[name]
}

// lacks returns what is wrong with the keys of the vault that do not open, or nil.
func (v *vault) lacks() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(v.missing...)
}

// suspend zeroes all secrets of a vault. Whoever still works with it fails closed.
func (a *Agent) suspend(name string) {
	a.mu.Lock()
	var ending []*vault
	if v := a.vaults[name]; v != nil {
		ending = append(ending, v)
	}
	delete(a.vaults, name)
	a.retired = slices.DeleteFunc(a.retired, func(v *vault) bool {
		if v.name == name {
			ending = append(ending, v)
		}
		return v.name == name
	})
	a.mu.Unlock()
	if len(ending) == 0 {
		return
	}
	for _, v := range ending {
		v.close(a.Log)
	}
	debug.FreeOSMemory() // what the collector has not yet given back may hold copies
}

// retire takes a vault out of use whose configuration has changed. Who works with it
// goes on to his end; the next one opens it as it is configured now.
func (a *Agent) retire(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if v := a.vaults[name]; v != nil {
		delete(a.vaults, name)
		a.retired = append(a.retired, v)
	}
}

// hasRetired tells whether a retired vault of that name is still in use.
func (a *Agent) hasRetired(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.retired, func(v *vault) bool { return v.name == name })
}

// closeRetired closes the retired vaults that nobody uses any more.
func (a *Agent) closeRetired() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retired = slices.DeleteFunc(a.retired, func(v *vault) bool {
		if a.jobs.Running(a.worksOn(v.name)) || v.used() {
			return false
		}
		v.close(a.Log)
		return true
	})
}

// used tells whether somebody has an item of the vault open.
func (v *vault) used() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, it := range v.items {
		if it.users > 0 {
			return true
		}
	}
	return false
}

// close zeroes all secrets, and closes everything that the vault holds open and
// nobody uses.
func (v *vault) close(log *slog.Logger) {
	v.vault.Close()
	v.floors.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, it := range v.items {
		if it.users == 0 {
			delete(v.items, name)
			it.release()
		}
	}
	closeStore(v.store, v.name, log)
}

func closeStore(st store.Store, vault string, log *slog.Logger) {
	if c, ok := st.(io.Closer); ok {
		if err := c.Close(); err != nil {
			log.Warn("store not closed", "vault", vault, "err", err)
		}
	}
}
