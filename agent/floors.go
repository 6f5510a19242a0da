package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cofferbackup/coffer/crypt"
)

// floors is the newest epoch seen of each key record of a vault (catalog.Floors).
// It is written now and then and at the end: what a crash forgets of it makes a
// rollback harder to notice, and nothing else.
type floors struct {
	log *slog.Logger

	mu     sync.Mutex
	path   string            // "": nowhere yet, because the vault is only being made
	epochs map[string]uint32 // by "owner/generation"
	raised int               // since it was written
}

// writeEvery is after how many changes floors are written.
const writeEvery = 64

func newFloors(log *slog.Logger) *floors { return &floors{log: log, epochs: make(map[string]uint32)} }

func (s *state) floorsPath(id crypt.VaultID) string { return s.path("floors", id.String()+".json") }

// keepIn says where the floors are kept from now on.
func (f *floors) keepIn(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.path = path
	return nil
}

// floors reads what was seen of a vault.
func (s *state) floors(id crypt.VaultID, log *slog.Logger) (*floors, error) {
	f := newFloors(log)
	if err := f.keepIn(s.floorsPath(id)); err != nil {
		return nil, err
	}
	if err := load(f.path, &f.epochs, log); err != nil {
		return nil, fmt.Errorf("%w: mend its disk; or remove it: key records that were put back since are then not noticed", err)
	}
	return f, nil
}

func floorOf(owner string, generation uint32) string { return fmt.Sprintf("%s/%d", owner, generation) }

// Floor implements catalog.Floors.
func (f *floors) Floor(owner string, generation uint32) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epochs[floorOf(owner, generation)]
}

// Raise implements catalog.Floors.
func (f *floors) Raise(owner string, generation, epoch uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.epochs[floorOf(owner, generation)] >= epoch {
		return
	}
	f.epochs[floorOf(owner, generation)] = epoch
	if f.raised++; f.raised >= writeEvery && f.path != "" {
		f.write()
	}
}

// flush writes what was raised.
func (f *floors) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.raised > 0 && f.path != "" {
		f.write()
	}
}

// write is called with mu held.
func (f *floors) write() {
	if err := save(f.path, f.epochs); err != nil {
		f.log.Warn("newest key records not remembered", "path", f.path, "err", err)
		return
	}
	f.raised = 0
}
