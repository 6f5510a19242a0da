// Package state is the agent's folder: what it remembers from one start to the next.
package state

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

// Folder is the state folder of an agent. It is safe for concurrent use.
//
//	lock                          held while the agent runs
//	vaults.json                   ids of the vaults made here; the recovery sheets have them too
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
type Folder struct {
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

// Open takes a folder, or returns durable.ErrLocked if another agent has it.
func Open(dir string, log *slog.Logger) (*Folder, error) {
	lock, err := durable.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &Folder{dir: dir, lock: lock, ids: make(map[string]string)}
	if err := load(s.Path("vaults.json"), &s.ids, log); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%w: mend its disk; or remove it, and write the ids of the vaults into the config", err)
	}
	if err := load(s.Path("custody.json"), &s.kept, log); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%w: mend its disk; or remove it, and check every key then: coffer key check", err)
	}
	return s, nil
}

// Dir returns where the folder is, as it was opened.
func (s *Folder) Dir() string { return s.dir }

// Path returns the path of what is in the folder under a name.
func (s *Folder) Path(name ...string) string {
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

// ID returns the pinned id of a vault.
func (s *Folder) ID(name string) (crypt.VaultID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := crypt.ParseVaultID(s.ids[name])
	return id, err == nil
}

// Pin keeps the id of a vault that was just made.
func (s *Folder) Pin(name string, id crypt.VaultID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[name] = id.String()
	return save(s.Path("vaults.json"), s.ids)
}

// Used implements keyring.Memory.
func (s *Folder) Used(name string) []keyring.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept.Versions[name])
}

// Use implements keyring.Memory.
func (s *Folder) Use(name string, v keyring.Version) error {
	return s.keep(func(k *kept) {
		if k.Versions == nil {
			k.Versions = make(map[string][]keyring.Version)
		}
		k.Versions[name] = append(k.Versions[name], v)
	})
}

// Health returns what was known of a vault's keys.
func (s *Folder) Health(vault string) custody.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Health[vault]
}

// SetHealth remembers what is known of a vault's keys. After an error it is known until
// the agent ends.
func (s *Folder) SetHealth(vault string, h custody.Health) error {
	return s.keep(func(k *kept) {
		if k.Health == nil {
			k.Health = make(map[string]custody.Health)
		}
		k.Health[vault] = h
	})
}

// Links returns the URIs of the keys that were linked to a vault.
func (s *Folder) Links(vault string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept.Links[vault])
}

// SetLinks remembers which keys are linked to a vault, by their URIs, as SetHealth does.
func (s *Folder) SetLinks(vault string, uris []string) error {
	return s.keep(func(k *kept) {
		if k.Links == nil {
			k.Links = make(map[string][]string)
		}
		k.Links[vault] = uris
	})
}

// Openers returns the fingerprints of the keys that opened a vault when it was last
// looked at.
func (s *Folder) Openers(vault string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept.Openers[vault])
}

// SetOpeners remembers which keys opened a vault, as SetHealth does.
func (s *Folder) SetOpeners(vault string, fingerprints []string) error {
	if slices.Equal(s.Openers(vault), fingerprints) {
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
func (s *Folder) keep(change func(*kept)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.kept)
	return s.write()
}

// Settle writes what could not be written before.
func (s *Folder) Settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.behind {
		return nil
	}
	return s.write()
}

// write is called with mu held.
func (s *Folder) write() error {
	err := save(s.Path("custody.json"), s.kept)
	s.behind = err != nil
	return err
}

// IndexPath returns where the local index of an item is kept.
func (s *Folder) IndexPath(vault crypt.VaultID, item crypt.ItemID) string {
	return s.Path("index", vault.String(), item.String())
}

// Close gives the folder to whoever opens it next.
func (s *Folder) Close() { s.lock.Close() }
