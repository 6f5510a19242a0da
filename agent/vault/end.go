package vault

import (
	"io"
	"log/slog"
	"runtime/debug"
	"slices"

	"github.com/cofferbackup/coffer/store"
)

// Suspend zeroes all secrets of a vault. Whoever still works with it fails closed.
func (s *Set) Suspend(name string) {
	s.mu.Lock()
	var ending []*Vault
	if v := s.open[name]; v != nil {
		ending = append(ending, v)
	}
	delete(s.open, name)
	s.retired = slices.DeleteFunc(s.retired, func(v *Vault) bool {
		if v.Name == name {
			ending = append(ending, v)
		}
		return v.Name == name
	})
	s.mu.Unlock()
	if len(ending) == 0 {
		return
	}
	for _, v := range ending {
		v.close(s.cfg.Log)
	}
	debug.FreeOSMemory() // what the collector has not yet given back may hold copies
}

// Retire takes a vault out of use whose configuration has changed. Who works with it
// goes on to his end; the next one opens it as it is configured now.
func (s *Set) Retire(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.open[name]; v != nil {
		delete(s.open, name)
		s.retired = append(s.retired, v)
	}
}

// HasRetired tells whether a retired vault of that name is still in use.
func (s *Set) HasRetired(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.retired, func(v *Vault) bool { return v.Name == name })
}

// CloseRetired closes the retired vaults that nobody uses any more: no item of one is open,
// and nobody is busy with it.
func (s *Set) CloseRetired(busy func(vault string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = slices.DeleteFunc(s.retired, func(v *Vault) bool {
		if busy(v.Name) || v.used() {
			return false
		}
		v.close(s.cfg.Log)
		return true
	})
}

// Close closes all vaults. Nobody works with one any more.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.open {
		v.close(s.cfg.Log)
	}
	for _, v := range s.retired {
		v.close(s.cfg.Log)
	}
}

// used tells whether somebody has an item of the vault open.
func (v *Vault) used() bool {
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
func (v *Vault) close(log *slog.Logger) {
	v.Catalog.Close()
	v.Floors.Flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, it := range v.items {
		if it.users == 0 {
			delete(v.items, name)
			it.release()
		}
	}
	CloseStore(v.Store, v.Name, log)
}

// CloseStore closes a store of that vault, if it can be closed.
func CloseStore(st store.Store, vault string, log *slog.Logger) {
	if c, ok := st.(io.Closer); ok {
		if err := c.Close(); err != nil {
			log.Warn("store not closed", "vault", vault, "err", err)
		}
	}
}
