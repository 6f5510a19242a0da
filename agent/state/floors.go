package state

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cofferbackup/coffer/crypt"
)

// Floors is the newest epoch seen of each key record of a vault (catalog.Floors).
// It is written now and then and at the end: what a crash forgets of it makes a
// rollback harder to notice, and nothing else.
type Floors struct {
	log *slog.Logger

	mu     sync.Mutex
	path   string            // "": nowhere yet, because the vault is only being made
	epochs map[string]uint32 // by "owner/generation"
	raised int               // since it was written
}

// writeEvery is after how many changes floors are written.
const writeEvery = 64

// NewFloors returns those of a vault that is only being made (KeepFloors).
func NewFloors(log *slog.Logger) *Floors { return &Floors{log: log, epochs: make(map[string]uint32)} }

// KeepFloors has the floors of a vault in the folder from now on.
func (s *Folder) KeepFloors(id crypt.VaultID, f *Floors) error {
	path := s.Path("floors", id.String()+".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.path = path
	return nil
}

// Floors reads what was seen of a vault.
func (s *Folder) Floors(id crypt.VaultID, log *slog.Logger) (*Floors, error) {
	f := NewFloors(log)
	if err := s.KeepFloors(id, f); err != nil {
		return nil, err
	}
	if err := load(f.path, &f.epochs, log); err != nil {
		return nil, fmt.Errorf("%w: mend its disk; or remove it: key records that were put back since are then not noticed", err)
	}
	return f, nil
}

func floorOf(owner string, generation uint32) string { return fmt.Sprintf("%s/%d", owner, generation) }

// Floor implements catalog.Floors.
func (f *Floors) Floor(owner string, generation uint32) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epochs[floorOf(owner, generation)]
}

// Raise implements catalog.Floors.
func (f *Floors) Raise(owner string, generation, epoch uint32) {
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

// Flush writes what was raised.
func (f *Floors) Flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.raised > 0 && f.path != "" {
		f.write()
	}
}

// write is called with mu held.
func (f *Floors) write() {
	if err := save(f.path, f.epochs); err != nil {
		f.log.Warn("newest key records not remembered", "path", f.path, "err", err)
		return
	}
	f.raised = 0
}
