package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/durable"
)

// state is the agent's folder:
//
//	lock                          held while the agent runs
//	vaults.json                   ids of the vaults made here: the only thing not to lose
//	custody.json                  versions of keys that were in use, states of vaults, links, what opens them
//	floors/<vault id>.json        newest key records seen, so that older ones are noticed
//	audit/                        what was done with keys (package audit)
//	index/<vault id>/<item id>    local indexes, rebuilt at need
//	jobs/<number>.json            what ran
//	schedule.json                 when policies ran last
//	proofs.json                   what was proved of backups
//	notify.json                   what was told
//
// A file that is damaged is set aside under its name and .damaged, and what was in it is as
// good as lost (aside.go). One that cannot be read, as its disk does not, is an error.
// Without custody.json and floors the agent cannot tell that keys or records went
// back to older ones while it was not looking; it works all the same.
type state struct {
	dir  string
	lock *os.File

	mu     sync.Mutex
	ids    map[string]string // vault id by name in the config
	kept   kept
	behind bool // custody.json is older than kept: it could not be written
}

// kept is what custody.json holds.
type kept struct {
	Versions map[string][]keyring.Version `json:"versions"` // by key name, the one in use last
	Health   map[string]custody.Health    `json:"health"`   // by vault name
	Links    map[string][]string          `json:"links"`    // URIs of keys that open a vault, by its name
	Openers  map[string][]string          `json:"openers"`  // fingerprints of the keys that open a vault, by its name
}

func openState(dir string, log *slog.Logger) (*state, error) {
	lock, err := durable.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &state{dir: dir, lock: lock, ids: make(map[string]string)}
	if err := load(s.path("vaults.json"), &s.ids, log); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%w: mend its disk; or remove it, and write the ids of the vaults into the config", err)
	}
	if err := load(s.path("custody.json"), &s.kept, log); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%w: mend its disk; or remove it, and check every key then: coffer key check", err)
	}
	return s, nil
}

func (s *state) path(name ...string) string {
	return filepath.Join(append([]string{s.dir}, name...)...)
}

// load reads a file of the state into v, which stays as it is if there is none, or if it
// was damaged and is set aside.
func load(path string, v any, log *slog.Logger) error {
	raw, err := durable.ReadSealed(path)
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, durable.ErrDamaged):
		log.Error("a file of the state is damaged, and goes on without what was in it", "err", err, "next", "coffer status")
		return nil
	}
	return fmt.Errorf("read %s: %w", path, err)
}

func save(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteSealed(path, raw)
}

// id returns the pinned id of a vault.
func (s *state) id(name string) (crypt.VaultID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := crypt.ParseVaultID(s.ids[name])
	return id, err == nil
}

// pin keeps the id of a vault that was just made.
func (s *state) pin(name string, id crypt.VaultID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[name] = id.String()
	return save(s.path("vaults.json"), s.ids)
}

// Used implements keyring.Memory.
func (s *state) Used(name string) []keyring.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept.Versions[name])
}

// Use implements keyring.Memory.
func (s *state) Use(name string, v keyring.Version) error {
	return s.keep(func(k *kept) {
		if k.Versions == nil {
			k.Versions = make(map[string][]keyring.Version)
		}
		k.Versions[name] = append(k.Versions[name], v)
	})
}

// health returns what was known of a vault's keys.
func (s *state) health(vault string) custody.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Health[vault]
}

func (s *state) setHealth(vault string, h custody.Health) error {
	return s.keep(func(k *kept) {
		if k.Health == nil {
			k.Health = make(map[string]custody.Health)
		}
		k.Health[vault] = h
	})
}

// links returns the URIs of the keys that were linked to a vault.
func (s *state) links(vault string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept.Links[vault])
}

func (s *state) setLinks(vault string, uris []string) error {
	return s.keep(func(k *kept) {
		if k.Links == nil {
			k.Links = make(map[string][]string)
		}
		k.Links[vault] = uris
	})
}

// openers returns the fingerprints of the keys that opened a vault when it was last
// looked at.
func (s *state) openers(vault string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept.Openers[vault])
}

func (s *state) setOpeners(vault string, fingerprints []string) error {
	if slices.Equal(s.openers(vault), fingerprints) {
		return nil
	}
	return s.keep(func(k *kept) {
		if k.Openers == nil {
			k.Openers = make(map[string][]string)
		}
		k.Openers[vault] = fingerprints
	})
}

// keep changes custody.json. After an error the change counts until the process ends, and
// is written as soon as that can be done.
func (s *state) keep(change func(*kept)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.kept)
	return s.write()
}

// settle writes what could not be written before.
func (s *state) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.behind {
		return nil
	}
	return s.write()
}

// write is called with mu held.
func (s *state) write() error {
	err := save(s.path("custody.json"), s.kept)
	s.behind = err != nil
	return err
}

// indexPath returns where the local index of an item is kept.
func (s *state) indexPath(vault crypt.VaultID, item crypt.ItemID) string {
	return s.path("index", vault.String(), item.String())
}

func (s *state) close() { s.lock.Close() }
