// Package vault opens the vaults and items of the configuration, shares them among those
// who use them at the same time, and remembers what was seen in them.
//
// Invariants:
//   - There is one open vault of a name, and one open item. One whose configuration has
//     changed is retired: whoever works with it goes on to his end.
//   - What a vault or an item opened with is zeroed when it is closed, suspended or the
//     last user of an item has gone.
//   - The index of an item changes by one hand at a time: a backup's, or that of who
//     brings it up to the vault.
//   - What was there and is gone, and no prune removed it, is told once and remembered.
package vault

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/gate"
	"github.com/cofferbackup/coffer/store"
)

// Config of a set of vaults: exactly what it uses. Functions that are given may be called
// at any time and by many at once.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	State    *state.Folder
	Keys     *keyring.Keyring
	Store    func(ctx context.Context, vault config.Vault) (store.Store, error)
	Index    func(ctx context.Context, path string) (Index, error)
	// Refused returns an error if the keys of a vault were taken away.
	Refused func(vault string) error
	// Record has an event in the audit log.
	Record func(ctx context.Context, e audit.Event) error
	Clock  func() time.Time
	Log    *slog.Logger
}

// Set is the vaults of a configuration. It is safe for concurrent use.
type Set struct {
	cfg Config

	mu      sync.Mutex
	gates   map[string]gate.Gate // by vault; held while it is opened
	open    map[string]*Vault    // open vaults, by name
	retired []*Vault             // of a configuration before; closed when nobody uses them any more
	without map[string]string    // key that a vault does without, by vault
}

// New returns a set of which no vault is open yet.
func New(cfg Config) *Set {
	return &Set{cfg: cfg, gates: make(map[string]gate.Gate), open: make(map[string]*Vault), without: make(map[string]string)}
}

// Opening is held by who opens a vault of that name, makes it, or changes its keys.
func (s *Set) Opening(vault string) gate.Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.gates[vault]
	if !ok {
		g = gate.New()
		s.gates[vault] = g
	}
	return g
}

// Uses says which keys a vault is used with.
func (s *Set) Uses(name string) keyring.Use {
	cfg := s.cfg.Settings().Vaults[name]
	u := keyring.Use{Keys: cfg.Keys, Open: slices.Clone(cfg.RestoreKeys)}
	for _, uri := range s.cfg.State.Links(name) {
		u.Open = append(u.Open, s.cfg.Keys.Link(s.cfg.Settings().Linked(uri)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.Without = s.without[name]
	return u
}

// Pinned returns the id that the vault must have.
func (s *Set) Pinned(name string) (crypt.VaultID, error) {
	if text := s.cfg.Settings().Vaults[name].ID; text != "" {
		return crypt.ParseVaultID(text)
	}
	if id, ok := s.cfg.State.ID(name); ok {
		return id, nil
	}
	return crypt.VaultID{}, &control.Error{Code: control.CodeNotFound,
		Message: fmt.Sprintf("vault %s: neither the config nor the agent's state has its id, so nothing in its store is trusted", name),
		Next:    fmt.Sprintf("make it: coffer vault create %s; or, if it is there, write the id from its recovery sheet into the config: vaults.%s.id", name, name)}
}

// Unpinned returns an error if there is a vault in a store where this agent knows of
// none: its state was lost, or the vault is another host's.
func (s *Set) Unpinned(ctx context.Context, name string) error {
	st, err := s.cfg.Store(ctx, s.cfg.Settings().Vaults[name])
	if err != nil {
		return nil // there is no place for one, or nobody can say
	}
	defer CloseStore(st, name, s.cfg.Log)
	if _, err := st.Stat(ctx, catalog.Descriptor); err != nil {
		return nil
	}
	return &control.Error{Code: control.CodeConflict,
		Message: fmt.Sprintf("vault %s: there is a vault in its store, and neither the config nor the agent's state has its id, so it is not trusted", name),
		Next:    fmt.Sprintf("write the id from its recovery sheet into the config, vaults.%s.id, then: coffer config reload; a new vault needs another place", name)}
}
