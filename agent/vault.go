package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// vault is an open vault and what is known of it.
type vault struct {
	name    string
	store   store.Store
	vault   *catalog.Vault
	ring    *kek.Ring
	missing []error // keys of the config that did not open
	checked time.Time

	opening gate // held while items are opened

	mu     sync.Mutex
	items  map[string]*item          // open items, by name
	points map[string]*catalog.Point // read before, by item id and name: points never change
}

// key opens a key of the config, once.
func (a *Agent) key(ctx context.Context, name string) ([]kek.Key, error) {
	if keys, ok := a.keys[name]; ok {
		return keys, nil
	}
	keys, err := a.Parts.Key(ctx, name, a.Settings.Keys[name].URI)
	if err != nil {
		return nil, Fault(fmt.Errorf("key %s: %w", name, err))
	}
	a.keys[name] = keys
	return keys, nil
}

// ring opens the keys of a vault. Those that do not open are reported; one that
// does is enough to read.
func (a *Agent) ring(ctx context.Context, name string) (*kek.Ring, []error) {
	var keys []kek.Key
	var missing []error
	for _, name := range a.Settings.Vaults[name].Keys {
		opened, err := a.key(ctx, name)
		if err != nil {
			missing = append(missing, err)
		}
		keys = append(keys, opened...)
	}
	return kek.NewRing(keys...), missing
}

// pinned returns the id that the vault must have.
func (a *Agent) pinned(name string) (crypt.VaultID, error) {
	if text := a.Settings.Vaults[name].ID; text != "" {
		return crypt.ParseVaultID(text)
	}
	if id, ok := a.state.id(name); ok {
		return id, nil
	}
	return crypt.VaultID{}, &control.Error{Code: control.CodeNotFound,
		Message: fmt.Sprintf("vault %s: neither the config nor the agent's state has its id, so nothing in its store is trusted", name),
		Next:    fmt.Sprintf("make it: coffer vault create %s; or, if it is there, write the id from its recovery sheet into the config: vaults.%s.id", name, name)}
}

// vault opens a vault of the config, or returns the open one.
func (a *Agent) vault(ctx context.Context, name string) (*vault, error) {
	cfg, ok := a.Settings.Vaults[name]
	if !ok {
		return nil, notFound("vault", name, "coffer vault list")
	}
	if v, whole := a.opened(name); whole {
		return v, nil
	}
	if err := a.opening.enter(ctx); err != nil {
		return nil, err
	}
	defer a.opening.leave()
	if v, whole := a.opened(name); whole { // somebody else opened it
		return v, nil
	} else if v != nil { // perhaps the missing keys are back
		ring, missing := a.ring(ctx, name)
		a.mu.Lock()
		defer a.mu.Unlock()
		v.ring, v.missing = ring, missing
		v.vault.UseRing(v.ring)
		return v, nil
	}
	id, err := a.pinned(name)
	if err != nil {
		return nil, err
	}
	st, err := a.Parts.Store(ctx, cfg.Store)
	if err != nil {
		return nil, Fault(fmt.Errorf("vault %s: %w", name, err))
	}
	ring, missing := a.ring(ctx, name)
	opened, err := catalog.Open(ctx, st, id, ring)
	if err != nil {
		return nil, Fault(fmt.Errorf("vault %s: %w", name, errors.Join(append(missing, err)...)))
	}
	v := &vault{name: name, store: st, vault: opened, ring: ring, missing: missing, checked: a.Clock(),
		opening: newGate(), items: make(map[string]*item), points: make(map[string]*catalog.Point)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.vaults[name] = v
	return v, nil
}

// opened returns a vault that is open already, or nil, and whether with all its keys.
func (a *Agent) opened(name string) (v *vault, whole bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v = a.vaults[name]
	return v, v != nil && len(v.missing) == 0
}

// lacks returns what is wrong with the keys of the vault that do not open, or nil.
func (a *Agent) lacks(v *vault) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(v.missing...)
}

// close closes everything that the vault holds open.
func (v *vault) close(log *slog.Logger) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, it := range v.items {
		it.release()
	}
	v.vault.Close()
	if c, ok := v.store.(io.Closer); ok {
		if err := c.Close(); err != nil {
			log.Warn("store not closed", "vault", v.name, "err", err)
		}
	}
}

// CreateVault implements control.Vaults.
func (a *Agent) CreateVault(ctx context.Context, req control.VaultCreate) (control.VaultCreated, error) {
	cfg, ok := a.Settings.Vaults[req.Name]
	if !ok {
		return control.VaultCreated{}, notFound("vault", req.Name, "coffer vault list")
	}
	if _, err := a.pinned(req.Name); err == nil {
		return control.VaultCreated{}, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("vault %s is made already", req.Name),
			Next: "see it: coffer vault show " + req.Name}
	}
	if err := a.opening.enter(ctx); err != nil {
		return control.VaultCreated{}, err
	}
	defer a.opening.leave()
	ring, missing := a.ring(ctx, req.Name)
	if len(missing) > 0 { // every key must be able to open everything from the start
		return control.VaultCreated{}, Fault(fmt.Errorf("create vault %s: %w", req.Name, errors.Join(missing...)))
	}
	st, err := a.Parts.MakeStore(ctx, cfg.Store)
	if err != nil {
		return control.VaultCreated{}, Fault(fmt.Errorf("create vault %s: %w", req.Name, err))
	}
	mode := catalog.CustomerManaged
	for _, k := range ring.Keys() {
		if k.Ref().Provider == kek.Software {
			mode = catalog.SoftwareKeys
		}
	}
	made, err := catalog.Create(ctx, st, catalog.CreateOptions{Mode: mode, Ring: ring, Now: a.Clock()})
	if err != nil {
		return control.VaultCreated{}, Fault(fmt.Errorf("create vault %s: %w", req.Name, err))
	}
	// A crash here leaves a vault whose id nobody knows: empty, so nothing is lost,
	// and its place can be cleared.
	if err := a.state.pin(req.Name, made.ID()); err != nil {
		return control.VaultCreated{}, &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("vault %s is made, but its id could not be kept: %v", req.Name, err),
			Next: fmt.Sprintf("write it into the config: vaults.%s.id: %s", req.Name, made.ID())}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.vaults[req.Name] = &vault{name: req.Name, store: st, vault: made, ring: ring, checked: a.Clock(),
		opening: newGate(), items: make(map[string]*item), points: make(map[string]*catalog.Point)}
	a.Log.Info("vault made", "vault", req.Name, "id", made.ID(), "mode", made.Mode())
	return control.VaultCreated{ID: made.ID().String(), Name: req.Name, Store: cfg.Store, RecoverySheet: a.recoverySheet(req.Name, made, ring)}, nil
}

// recoverySheet is what the owner of a vault prints and puts away. It has no secret.
func (a *Agent) recoverySheet(name string, v *catalog.Vault, ring *kek.Ring) string {
	cfg := a.Settings.Vaults[name]
	var b strings.Builder
	fmt.Fprintf(&b, "Recovery sheet of vault %s\n\n", name)
	fmt.Fprintf(&b, "  made    %s\n", v.Created().Format("2006-01-02 15:04:05 UTC"))
	fmt.Fprintf(&b, "  id      %s\n", v.ID())
	fmt.Fprintf(&b, "  store   %s\n", cfg.Store)
	for i, k := range ring.Wrappers() {
		ref := k.Ref()
		fmt.Fprintf(&b, "  key %d   %s, %s, RSA %d, %s\n", i+1, ref.Name, ref.Provider, ref.Bits, ref.URI)
		fmt.Fprintf(&b, "          fingerprint %s\n", ref.Fingerprint)
	}
	fmt.Fprintf(&b, "\nOne of these keys opens the vault; without all of them it is lost. The id says that\n")
	fmt.Fprintf(&b, "it is this vault and no other. On a bare machine:\n\n")
	fmt.Fprintf(&b, "  cofferd rescue --store '%s' --vault-id %s \\\n    --key '%s' ls\n", cfg.Store, v.ID(), a.Settings.Keys[cfg.Keys[0]].URI)
	return b.String()
}

// Vaults implements control.Vaults.
func (a *Agent) Vaults(ctx context.Context) ([]control.Vault, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var out []control.Vault
	for _, name := range slices.Sorted(maps.Keys(a.Settings.Vaults)) {
		v, err := a.describeVault(ctx, glancing, name)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Vault implements control.Vaults.
func (a *Agent) Vault(ctx context.Context, name string) (control.Vault, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	return a.describeVault(ctx, glancing, name)
}

// describeVault describes a vault, with what can be learned of it while glancing
// lasts.
func (a *Agent) describeVault(ctx, glancing context.Context, name string) (control.Vault, error) {
	cfg, ok := a.Settings.Vaults[name]
	if !ok {
		return control.Vault{}, notFound("vault", name, "coffer vault list")
	}
	out := control.Vault{Name: name, Store: cfg.Store, State: control.StateAccessible}
	if id, err := a.pinned(name); err == nil {
		out.ID = id.String()
	} else if cfg.ID == "" {
		out.State = control.StateAbsent
	}
	for _, key := range cfg.Keys {
		keys, err := a.describeKey(ctx, glancing, key)
		if err != nil {
			return control.Vault{}, err
		}
		out.Keys = append(out.Keys, keys...)
	}
	if out.State == control.StateAbsent {
		return out, nil
	}
	v, err := a.vault(glancing, name)
	err = overdue(ctx, glancing, err, store.ErrUnavailable)
	switch {
	case control.CodeOf(err) == control.CodeKeysInaccessible:
		out.State, out.Error, out.Checked = control.StateInaccessible, control.AsError(err), a.Clock()
		return out, nil
	case err != nil:
		out.State, out.Error = control.StateUnknown, control.AsError(err)
		return out, nil
	}
	out.Mode, out.Created, out.Checked = v.vault.Mode().String(), v.vault.Created(), v.checked
	if err := a.lacks(v); err != nil {
		out.State, out.Error = control.StateDegraded, control.AsError(err)
	}
	return out, nil
}

// Keys implements control.Keys.
func (a *Agent) Keys(ctx context.Context) ([]control.Key, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var out []control.Key
	for _, name := range slices.Sorted(maps.Keys(a.Settings.Keys)) {
		keys, err := a.describeKey(ctx, glancing, name)
		if err != nil {
			return nil, err
		}
		out = append(out, keys...)
	}
	return out, nil
}

// describeKey describes all versions of a key, or why there are none to see.
func (a *Agent) describeKey(ctx, glancing context.Context, name string) ([]control.Key, error) {
	err := a.opening.enter(glancing)
	var keys []kek.Key
	if err == nil {
		keys, err = a.key(glancing, name)
		a.opening.leave()
	}
	if err = overdue(ctx, glancing, err, kek.ErrUnreachable); err != nil {
		return []control.Key{{Name: name, URI: a.Settings.Keys[name].URI, Error: control.AsError(err)}}, ctx.Err()
	}
	var out []control.Key
	for _, k := range keys {
		out = append(out, describe(k.Ref()))
	}
	return out, nil
}

func describe(ref kek.Ref) control.Key {
	return control.Key{Name: ref.Name, URI: ref.URI, Provider: string(ref.Provider), Version: ref.Version, Bits: ref.Bits,
		Algorithm: ref.Algorithm.String(), Fingerprint: ref.Fingerprint.String()}
}

// CreateKey implements control.Keys.
func (a *Agent) CreateKey(ctx context.Context, req control.KeyCreate) (control.Key, error) {
	cfg, ok := a.Settings.Keys[req.Name]
	if !ok {
		return control.Key{}, notFound("key", req.Name, "coffer key list")
	}
	ref, err := a.Parts.MakeKey(ctx, req.Name, cfg.URI, req.Bits)
	if errors.Is(err, fs.ErrExist) {
		return control.Key{}, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("create key %s: %v", req.Name, err),
			Next: "use the key that is there: coffer key list; or give this one another place in the config"}
	}
	if err != nil {
		return control.Key{}, Fault(fmt.Errorf("create key %s: %w", req.Name, err))
	}
	a.Log.Info("key made", "key", ref)
	return describe(ref), nil
}
