package rekey

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// secrets are the current key records of a vault.
func secrets(ctx context.Context, v *vault.Vault) ([]catalog.KeyRecord, error) {
	var out []catalog.KeyRecord
	for r, err := range v.Catalog.KeyRecords(ctx) {
		if err != nil {
			return nil, fault.Of(fmt.Errorf("vault %s: %w", v.Name, err))
		}
		if !r.Erased {
			out = append(out, r)
		}
	}
	return out, nil
}

// opensWith tells whether a record has a wrapping of a key version.
func opensWith(r catalog.KeyRecord, f kek.Fingerprint) bool {
	return slices.ContainsFunc(r.Wrappings, func(w kek.Wrapped) bool { return w.Fingerprint == f })
}

// look looks at every key record of a vault, and what the rules say of it, for all to
// see. It tells whether a secret lacks a wrapping that it should have, or a key has a
// newer version than the one in use.
func (k *Keeper) look(ctx context.Context, v *vault.Vault) (due bool, err error) {
	coverage, err := k.coverage(ctx, v)
	if err != nil {
		return false, err
	}
	findings := k.cfg.Rules.Of(ctx, v)
	before := v.SetView(vault.View{Coverage: coverage, Findings: findings}).Findings
	for _, f := range findings {
		if !slices.Contains(before, f) {
			e := audit.Event{Kind: audit.RuleAudited, Vault: v.Name, By: audit.ByAgent, Says: f.Says, Fields: map[string]string{"rule": f.Rule, "subject": f.Subject, "effect": string(f.Effect)}}
			if err := k.cfg.Record(ctx, e); err != nil {
				return false, err
			}
		}
	}
	for _, name := range k.cfg.Settings().Vaults[v.Name].Keys {
		if e, err := k.cfg.Keys.Entry(ctx, name); err == nil && e.Next != nil {
			return true, nil
		}
	}
	return slices.ContainsFunc(coverage, func(c control.Coverage) bool { return c.Owed > 0 }), nil
}

// coverage says how many secrets of a vault each key version opens: those in use, in
// the order of the configuration, then all others that some record names.
func (k *Keeper) coverage(ctx context.Context, v *vault.Vault) ([]control.Coverage, error) {
	records, err := secrets(ctx, v)
	if err != nil {
		return nil, err
	}
	var out []control.Coverage
	seen := make(map[kek.Fingerprint]bool)
	add := func(key, version string, f kek.Fingerprint, inUse bool) {
		if seen[f] {
			return
		}
		seen[f] = true
		c := control.Coverage{Key: key, Version: version, Fingerprint: f.String(), InUse: inUse}
		n := 0
		for _, r := range records {
			if opensWith(r, f) {
				n++
			}
		}
		c.Percent = 100 * float64(n) / float64(max(1, len(records)))
		if inUse {
			c.Owed = len(records) - n
		}
		out = append(out, c)
	}
	for _, name := range k.cfg.Settings().Vaults[v.Name].Keys {
		if e, err := k.cfg.Keys.Entry(ctx, name); err == nil && e.InUse != nil {
			ref := e.InUse.Ref()
			add(name, ref.Version, ref.Fingerprint, true)
		}
	}
	names := k.names(ctx)
	for _, r := range records {
		for _, w := range r.Wrappings {
			add(cmp.Or(names[w.Fingerprint], w.URI), w.Version, w.Fingerprint, false)
		}
	}
	return out, nil
}

// names returns the names of the key versions that the agent has open.
func (k *Keeper) names(ctx context.Context) map[kek.Fingerprint]string {
	out := make(map[kek.Fingerprint]string)
	for _, name := range slices.Sorted(maps.Keys(k.cfg.Settings().Keys)) {
		if e, err := k.cfg.Keys.Entry(ctx, name); err == nil {
			for _, ref := range e.Refs() {
				if out[ref.Fingerprint] == "" {
					out[ref.Fingerprint] = name
				}
			}
		}
	}
	return out
}
