package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/durable"
)

// state is the agent's folder:
//
//	lock                          held while the agent runs
//	vaults.json                   ids of the vaults made here: the only thing not to lose
//	index/<vault id>/<item id>    local indexes, rebuilt at need
//	jobs/<number>.json            what ran
type state struct {
	dir  string
	lock *os.File

	mu  sync.Mutex
	ids map[string]string // vault id by name in the config
}

func openState(dir string) (*state, error) {
	lock, err := durable.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &state{dir: dir, lock: lock, ids: make(map[string]string)}
	raw, err := os.ReadFile(s.idsPath())
	if err == nil {
		err = json.Unmarshal(raw, &s.ids)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		lock.Close()
		return nil, fmt.Errorf("read %s: %w: remove it and write the ids of the vaults into the config", s.idsPath(), err)
	}
	return s, nil
}

func (s *state) idsPath() string { return filepath.Join(s.dir, "vaults.json") }

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
	raw, err := json.MarshalIndent(s.ids, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(s.idsPath(), raw)
}

// indexPath returns where the local index of an item is kept.
func (s *state) indexPath(vault crypt.VaultID, item crypt.ItemID) string {
	return filepath.Join(s.dir, "index", vault.String(), item.String())
}

func (s *state) close() { s.lock.Close() }
