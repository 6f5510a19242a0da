package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/ruling"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
)

// CreateVault implements control.Vaults. Keys are tried and judged before anything
// is written: a vault with a key that may not stay is worse than none.
func (a *Agent) CreateVault(ctx context.Context, req control.VaultCreate) (control.VaultCreated, error) {
	none := control.VaultCreated{}
	cfg, ok := a.settings().Vaults[req.Name]
	if !ok {
		return none, fault.NotFound("vault", req.Name, "coffer vault list")
	}
	if _, err := a.vaults.Pinned(req.Name); err == nil {
		return none, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("vault %s is made already", req.Name),
			Next: "see it: coffer vault show " + req.Name + "; a new one in another place has a name of its own in the config"}
	}
	if err := a.vaults.Opening(req.Name).Enter(ctx); err != nil {
		return none, err
	}
	defer a.vaults.Opening(req.Name).Leave()
	by := control.PeerFrom(ctx).String()
	ctx = keyring.WithPurpose(ctx, keyring.Purpose{Vault: req.Name, By: by})
	ring, missing := a.keys.Ring(ctx, a.vaults.Uses(req.Name))
	if len(missing) > 0 { // every key must be able to open everything from the start
		return none, a.keyFault(a.missingKey(ctx, cfg.Keys), fmt.Errorf("create vault %s: %w", req.Name, errors.Join(missing...)))
	}
	if err := tryKeys(ctx, ring); err != nil {
		return none, fault.Of(fmt.Errorf("create vault %s: %w", req.Name, err))
	}
	mode := ruling.Mode(a.settings(), cfg)
	warnings, err := a.rules.Vault(ctx, req.Name, mode)
	if err != nil {
		return none, err
	}
	e := audit.Event{Kind: audit.VaultCreated, Vault: req.Name, By: by, Outcome: "begun"}
	if err := a.record(ctx, e); err != nil {
		return none, err
	}
	st, err := a.makeStore(ctx, cfg)
	if err != nil {
		return none, fault.Of(fmt.Errorf("create vault %s: %w", req.Name, err))
	}
	floors := state.NewFloors(a.Log)
	made, err := catalog.Create(ctx, st, catalog.CreateOptions{Mode: mode, Ring: ring, Now: a.Clock(), Floors: floors})
	if err != nil {
		vault.CloseStore(st, req.Name, a.Log)
		return none, fault.Of(fmt.Errorf("create vault %s: %w", req.Name, err))
	}
	if err := a.pin(req.Name, made.ID(), floors); err != nil {
		return none, err
	}
	a.vaults.Made(req.Name, st, made, floors)
	e.Outcome, e.Fields = "made", map[string]string{"id": made.ID().String(), "mode": made.Mode().String()}
	if err := a.record(ctx, e); err != nil {
		return none, err
	}
	a.watch.Ask(ctx, cfg.Keys) // what they answered before may be from before they were made
	a.Log.Info("vault made", "vault", req.Name, "id", made.ID(), "mode", made.Mode())
	return control.VaultCreated{ID: made.ID().String(), Name: req.Name, Store: cfg.Store, Warnings: warnings,
		RecoverySheet: a.recoverySheet(req.Name, made, ring)}, nil
}

// missingKey returns the first of some keys that is not found, or "".
func (a *Agent) missingKey(ctx context.Context, names []string) string {
	for _, name := range names {
		if _, err := a.keys.Entry(ctx, name); errors.Is(err, kek.ErrMissing) {
			return name
		}
	}
	return ""
}

// pin keeps the id of a vault that has just been made, and its key records, in the state. A
// crash before it leaves a vault whose id nobody knows: empty, so nothing is lost, and its
// place can be cleared.
func (a *Agent) pin(name string, id crypt.VaultID, floors *state.Floors) error {
	if err := a.state.Pin(name, id); err != nil {
		return &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("vault %s is made, but its id could not be kept: %v", name, err),
			Next: fmt.Sprintf("write it into the config: vaults.%s.id: %s", name, id)}
	}
	if err := a.state.KeepFloors(id, floors); err != nil {
		return fmt.Errorf("create vault %s: %w", name, err)
	}
	return nil
}

// tryKeys has every key that will wrap open its canary.
func tryKeys(ctx context.Context, ring *kek.Ring) error {
	for _, w := range ring.Wrappers() {
		k, ok := w.(kek.Key)
		if !ok {
			continue // of an escrow key there is only the public half
		}
		if err := k.Check(ctx); err != nil {
			return fmt.Errorf("try key %s: %w", k.Ref().Name, err)
		}
	}
	return nil
}

// recoverySheet is what the owner of a vault prints and puts away. It has no secret.
func (a *Agent) recoverySheet(name string, v *catalog.Vault, ring *kek.Ring) string {
	cfg := a.settings().Vaults[name]
	var b strings.Builder
	fmt.Fprintf(&b, "Recovery sheet of vault %s\n\n", name)
	fmt.Fprintf(&b, "  made    %s\n", v.Created().Format("2006-01-02 15:04:05 UTC"))
	fmt.Fprintf(&b, "  id      %s\n", v.ID())
	fmt.Fprintf(&b, "  store   %s\n", cfg.Store)
	fmt.Fprintf(&b, "  mode    %s\n", v.Mode())
	for i, w := range ring.Wrappers() {
		ref := w.Ref()
		fmt.Fprintf(&b, "  key %d   %s, %s, RSA %d, %s\n", i+1, ref.Name, ref.Provider, ref.Bits, ref.URI)
		fmt.Fprintf(&b, "          fingerprint %s\n", ref.Fingerprint)
	}
	fmt.Fprintf(&b, "\nOne of these keys opens the vault; without all of them it is lost. The id says that\n")
	fmt.Fprintf(&b, "it is this vault and no other. On a bare machine:\n\n")
	fmt.Fprintf(&b, "  cofferd rescue --store '%s' --vault-id %s \\\n    --key '%s' ls\n", cfg.Store, v.ID(), a.settings().Keys[cfg.Keys[0]].URI)
	if a.settings().Keys[cfg.Keys[0]].Host() != "" {
		fmt.Fprintf(&b, "\nwith what Key Vault asks for: --tenant, --client and the rest of cofferd rescue --help\n")
	}
	return b.String()
}

// record writes a line of the audit log. What cannot be recorded must not happen.
func (a *Agent) record(ctx context.Context, e audit.Event) error {
	if err := a.audit.Record(context.WithoutCancel(ctx), e); err != nil {
		return &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("the audit log cannot be written, so nothing is done: %v", err),
			Next: fault.RecordNext}
	}
	return nil
}
