package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
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
func (a *Agent) look(ctx context.Context, v *vault.Vault) (due bool, err error) {
	coverage, err := a.coverage(ctx, v)
	if err != nil {
		return false, err
	}
	findings := a.rules.Of(ctx, v)
	before := v.SetView(vault.View{Coverage: coverage, Findings: findings}).Findings
	for _, f := range findings {
		if !slices.Contains(before, f) {
			e := audit.Event{Kind: audit.RuleAudited, Vault: v.Name, By: audit.ByAgent, Says: f.Says, Fields: map[string]string{"rule": f.Rule, "subject": f.Subject, "effect": string(f.Effect)}}
			if err := a.record(ctx, e); err != nil {
				return false, err
			}
		}
	}
	for _, name := range a.settings().Vaults[v.Name].Keys {
		if e, err := a.keys.Entry(ctx, name); err == nil && e.Next != nil {
			return true, nil
		}
	}
	return slices.ContainsFunc(coverage, func(c control.Coverage) bool { return c.Owed > 0 }), nil
}

// coverage says how many secrets of a vault each key version opens: those in use, in
// the order of the configuration, then all others that some record names.
func (a *Agent) coverage(ctx context.Context, v *vault.Vault) ([]control.Coverage, error) {
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
	for _, name := range a.settings().Vaults[v.Name].Keys {
		if e, err := a.keys.Entry(ctx, name); err == nil && e.InUse != nil {
			ref := e.InUse.Ref()
			add(name, ref.Version, ref.Fingerprint, true)
		}
	}
	names := a.names(ctx)
	for _, r := range records {
		for _, w := range r.Wrappings {
			add(cmp.Or(names[w.Fingerprint], w.URI), w.Version, w.Fingerprint, false)
		}
	}
	return out, nil
}

// names returns the names of the key versions that the agent has open.
func (a *Agent) names(ctx context.Context) map[kek.Fingerprint]string {
	out := make(map[kek.Fingerprint]string)
	for _, name := range slices.Sorted(maps.Keys(a.settings().Keys)) {
		if e, err := a.keys.Entry(ctx, name); err == nil {
			for _, ref := range e.Refs() {
				if out[ref.Fingerprint] == "" {
					out[ref.Fingerprint] = name
				}
			}
		}
	}
	return out
}

// KeyUsage implements control.Keys. Lost is what no other key of the
// configuration opens: linked and restore-only keys count, other versions of the
// same key only if one version was asked about.
func (a *Agent) KeyUsage(ctx context.Context, req control.KeyUsageRequest) (control.KeyUsage, error) {
	cfg, ok := a.settings().Keys[req.Key]
	if !ok {
		return control.KeyUsage{}, fault.NotFound("key", req.Key, "coffer key list")
	}
	out := control.KeyUsage{Key: req.Key, URI: cmp.Or(cfg.URI, cfg.Public)}
	versions := a.versions(ctx, req)
	if len(versions) == 0 {
		return out, &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("key %s has no version %q that is known here", req.Key, req.Version), Next: "see its versions: coffer key show " + req.Key}
	}
	gone := make(map[kek.Fingerprint]bool)
	for _, f := range versions {
		gone[f.print] = true
	}
	ctx = purpose(ctx, "")
	for _, f := range versions {
		u := control.VersionUsage{Version: f.version, Fingerprint: f.print.String(), InUse: f.inUse, Since: f.since, Retirable: !f.inUse, Lost: []control.LostItem{}}
		if f.inUse {
			u.Because = "it is in use"
		}
		out.Versions = append(out.Versions, u)
	}
	for _, vault := range slices.Sorted(maps.Keys(a.settings().Vaults)) {
		if _, err := a.vaults.Pinned(vault); err != nil {
			continue // nothing hangs on a key there
		}
		v, err := a.vaults.Open(ctx, vault)
		if err != nil {
			return out, err
		}
		records, err := secrets(ctx, v)
		if err != nil {
			return out, err
		}
		for i, f := range versions {
			if err := a.usageIn(ctx, v, records, req.Key, f, gone, &out.Versions[i]); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// keyVersion is one version of a key, as the provider or the agent's memory knows it.
type keyVersion struct {
	print   kek.Fingerprint
	version string
	inUse   bool
	since   time.Time // it came into use
	until   time.Time // another took its place
}

// versions returns the versions of a key that a request means, the one in use first.
func (a *Agent) versions(ctx context.Context, req control.KeyUsageRequest) []keyVersion {
	var out []keyVersion
	used := a.state.Used(req.Key)
	add := func(print, version string, inUse bool) {
		f, err := kek.ParseFingerprint(print)
		if err != nil || slices.ContainsFunc(out, func(v keyVersion) bool { return v.print == f }) {
			return
		}
		if req.Version != "" && req.Version != version && !strings.HasPrefix(print, req.Version) {
			return
		}
		v := keyVersion{print: f, version: version, inUse: inUse}
		if i := slices.IndexFunc(used, func(u keyring.Version) bool { return u.Fingerprint == print }); i >= 0 {
			v.since = used[i].Since
			if i+1 < len(used) {
				v.until = used[i+1].Since
			}
		}
		out = append(out, v)
	}
	if e, err := a.keys.Entry(ctx, req.Key); err == nil {
		if e.InUse != nil {
			ref := e.InUse.Ref()
			add(ref.Fingerprint.String(), ref.Version, a.wraps(req.Key))
		}
		for _, ref := range e.Refs() {
			add(ref.Fingerprint.String(), ref.Version, false)
		}
	}
	for _, u := range slices.Backward(used) {
		add(u.Fingerprint, u.Version, false)
	}
	return out
}

// wraps tells whether some vault wraps what is new with a key.
func (a *Agent) wraps(key string) bool {
	for _, cfg := range a.settings().Vaults {
		if slices.Contains(cfg.Keys, key) {
			return true
		}
	}
	return false
}

// usageIn adds to u what hangs on a key version in one vault, whose key records these
// are, if all in gone are gone.
func (a *Agent) usageIn(ctx context.Context, v *vault.Vault, records []catalog.KeyRecord, key string, k keyVersion, gone map[kek.Fingerprint]bool, u *control.VersionUsage) error {
	name := v.Name
	ours := a.openers(ctx, name)
	refers := 0
	for _, r := range records {
		if !opensWith(r, k.print) {
			continue
		}
		refers++
		other := slices.ContainsFunc(r.Wrappings, func(w kek.Wrapped) bool { return ours[w.Fingerprint] && !gone[w.Fingerprint] })
		if !other {
			lost := control.LostItem{Vault: name, Item: r.Item}
			if r.Item != "" {
				if err := a.countPoints(ctx, v, &lost); err != nil {
					return err
				}
			}
			if !slices.ContainsFunc(u.Lost, func(l control.LostItem) bool { return l.Vault == lost.Vault && l.Item == lost.Item }) {
				u.Lost = append(u.Lost, lost)
			}
		}
	}
	if refers > 0 || slices.Contains(a.settings().Vaults[name].Keys, key) {
		u.Total += len(records)
	}
	u.Secrets += refers
	switch {
	case !u.Retirable:
	case refers > 0:
		u.Retirable, u.Because = false, fmt.Sprintf("%d secrets of vault %s are wrapped with it: coffer key rotate %s", refers, name, name)
	case !k.until.IsZero():
		if done, err := a.backedUpSince(ctx, v, k.until); err != nil {
			return err
		} else if !done {
			u.Retirable, u.Because = false, fmt.Sprintf("no backup into vault %s has ended since another version took its place", name)
		}
	}
	return nil
}

// openers are the key versions that a vault can be opened with, escrow included. One
// that did not open its canary the last time is none: nobody shall take a key away
// because of another that is gone.
func (a *Agent) openers(ctx context.Context, vault string) map[kek.Fingerprint]bool {
	out := make(map[kek.Fingerprint]bool)
	u := a.vaults.Uses(vault)
	for _, name := range slices.Concat(u.Keys, u.Open) {
		if e, err := a.keys.Entry(ctx, name); err == nil {
			for _, ref := range e.Refs() {
				if a.watch.Failed(name, ref.Fingerprint) == nil {
					out[ref.Fingerprint] = true
				}
			}
		}
	}
	return out
}

// countPoints fills in the points of an item.
func (a *Agent) countPoints(ctx context.Context, v *vault.Vault, lost *control.LostItem) error {
	it, err := v.Catalog.Item(ctx, lost.Item)
	if err != nil {
		return fault.Of(err)
	}
	defer it.Close()
	names, err := it.Points(ctx)
	if err != nil {
		return fault.Of(err)
	}
	lost.Points = len(names)
	if len(names) > 0 {
		lost.First, lost.Last = names[0].Time(), names[len(names)-1].Time()
	}
	return nil
}

// backedUpSince tells whether a backup into the vault began, and ended, after t: only
// then is it sure that no job still works with what was before.
func (a *Agent) backedUpSince(ctx context.Context, v *vault.Vault, t time.Time) (bool, error) {
	items, damaged := v.Catalog.Items(ctx)
	for _, it := range items {
		names, err := it.Points(ctx)
		it.Close()
		if err != nil {
			return false, fault.Of(err)
		}
		if len(names) > 0 && names[len(names)-1].Time().After(t) {
			return true, nil
		}
	}
	return len(items) == 0 && damaged == nil, damaged
}
