package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// Open opens a vault of the configuration, or returns the open one. It refuses one whose
// keys were taken away.
func (s *Set) Open(ctx context.Context, name string) (*Vault, error) {
	if _, ok := s.cfg.Settings().Vaults[name]; !ok {
		return nil, fault.NotFound("vault", name, "coffer vault list")
	}
	if err := s.cfg.Refused(name); err != nil {
		return nil, err
	}
	if v := s.Opened(name); v != nil && v.Lacks() == nil {
		return v, nil
	}
	if err := s.Opening(name).Enter(ctx); err != nil {
		return nil, err
	}
	defer s.Opening(name).Leave()
	if v := s.Opened(name); v != nil {
		if v.Lacks() != nil { // perhaps the missing keys are back
			s.Rering(ctx, v)
		}
		return v, nil
	}
	return s.openVault(ctx, name)
}

// openVault opens a vault. The caller holds its opening.
func (s *Set) openVault(ctx context.Context, name string) (_ *Vault, err error) {
	id, err := s.Pinned(name)
	if err != nil {
		return nil, cmp.Or(s.Unpinned(ctx, name), err)
	}
	st, err := s.cfg.Store(ctx, s.cfg.Settings().Vaults[name])
	if err != nil {
		return nil, fault.Names{Vault: name}.Of(fmt.Errorf("vault %s: %w", name, err))
	}
	defer func() {
		if err != nil {
			CloseStore(st, name, s.cfg.Log)
		}
	}()
	floors, err := s.cfg.State.Floors(id, s.cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", name, err)
	}
	ctx = keyring.WithPurpose(ctx, keyring.Purpose{Vault: name})
	ring, missing := s.cfg.Keys.Ring(ctx, s.Uses(name))
	opened, err := catalog.Open(ctx, st, catalog.OpenOptions{ID: id, Ring: ring, Floors: floors})
	var unopened *kek.UnwrapError
	switch {
	case !errors.As(err, &unopened): // the keys that are missing are not why
	case len(missing) > 0 && len(unopened.Tried) == 0: // there was none to try: all has been said
		err = errors.Join(missing...)
	default:
		err = errors.Join(append(missing, err)...)
	}
	s.accuse(ctx, name, "", err)
	if err == nil {
		err = s.modeHolds(name, opened)
	}
	if err != nil {
		return nil, fault.Of(fmt.Errorf("vault %s: %w", name, err))
	}
	v := s.newVault(name, st, opened, floors, missing)
	if err := s.install(v); err != nil {
		opened.Close()
		return nil, err
	}
	return v, nil
}

// Made has a vault that was just made be the one to work with. The caller holds its
// opening.
func (s *Set) Made(name string, st store.Store, made *catalog.Vault, f *state.Floors) {
	v := s.newVault(name, st, made, f, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[name] = v
}

// install makes an open vault the one to work with, unless its keys were taken away
// while it was being opened.
func (s *Set) install(v *Vault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cfg.Refused(v.Name); err != nil {
		return err
	}
	s.open[v.Name] = v
	return nil
}

// accuse has it in the audit log that a key record was refused: forged, put in
// another's place, or older than one seen before.
func (s *Set) accuse(ctx context.Context, vault, item string, err error) {
	if !errors.Is(err, catalog.ErrRolledBack) && !errors.Is(err, catalog.ErrMisplaced) && !errors.Is(err, crypt.ErrDamaged) {
		return
	}
	e := audit.Event{Kind: audit.RecordRefused, Vault: vault, Item: item, Outcome: "refused", Says: err.Error()}
	if err := s.cfg.Record(ctx, e); err != nil {
		s.cfg.Log.Error("a refused key record is not in the audit log", "vault", vault, "err", err)
	}
}

// modeHolds refuses a configuration that would put a customer-managed vault under a
// software key again.
func (s *Set) modeHolds(name string, v *catalog.Vault) error {
	if v.Mode() != catalog.CustomerManaged {
		return nil
	}
	cfg := s.cfg.Settings().Vaults[name]
	if cfg.Mode == catalog.SoftwareKeys.String() {
		v.Close()
		return fmt.Errorf("%w: write vaults.%s.mode: customer-managed", catalog.ErrMode, name)
	}
	if key, ok := s.cfg.Settings().FileKey(cfg); ok {
		v.Close()
		return fmt.Errorf("%w: key %s is a file: take it out of vaults.%s.keys, or name it under restore_keys", catalog.ErrMode, key, name)
	}
	return nil
}

// Rering gives an open vault the keys that it can have now. The caller holds its opening.
func (s *Set) Rering(ctx context.Context, v *Vault) {
	ring, missing := s.cfg.Keys.Ring(ctx, s.Uses(v.Name))
	v.Catalog.UseRing(ring)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.missing = missing
}
