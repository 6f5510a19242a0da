package rekey

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// KeyUsage implements control.Keys. Lost is what no other key of the
// configuration opens: linked and restore-only keys count, other versions of the
// same key only if one version was asked about.
func (k *Keeper) KeyUsage(ctx context.Context, req control.KeyUsageRequest) (control.KeyUsage, error) {
	cfg, ok := k.cfg.Settings().Keys[req.Key]
	if !ok {
		return control.KeyUsage{}, fault.NotFound("key", req.Key, "coffer key list")
	}
	out := control.KeyUsage{Key: req.Key, URI: cmp.Or(cfg.URI, cfg.Public)}
	versions := k.versions(ctx, req)
	if len(versions) == 0 {
		return out, &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("key %s has no version %q that is known here", req.Key, req.Version), Next: "see its versions: coffer key show " + req.Key}
	}
	gone := make(map[kek.Fingerprint]bool)
	for _, f := range versions {
		gone[f.print] = true
	}
	ctx = keyring.WithPurpose(ctx, keyring.Purpose{By: control.PeerFrom(ctx).String()})
	for _, f := range versions {
		u := control.VersionUsage{Version: f.version, Fingerprint: f.print.String(), InUse: f.inUse, Since: f.since, Retirable: !f.inUse, Lost: []control.LostItem{}}
		if f.inUse {
			u.Because = "it is in use"
		}
		out.Versions = append(out.Versions, u)
	}
	for _, vault := range slices.Sorted(maps.Keys(k.cfg.Settings().Vaults)) {
		if _, err := k.cfg.Vaults.Pinned(vault); err != nil {
			continue // nothing hangs on a key there
		}
		v, err := k.cfg.Vaults.Open(ctx, vault)
		if err != nil {
			return out, err
		}
		records, err := secrets(ctx, v)
		if err != nil {
			return out, err
		}
		for i, f := range versions {
			if err := k.usageIn(ctx, v, records, req.Key, f, gone, &out.Versions[i]); err != nil {
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
func (k *Keeper) versions(ctx context.Context, req control.KeyUsageRequest) []keyVersion {
	var out []keyVersion
	used := k.cfg.State.Used(req.Key)
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
	if e, err := k.cfg.Keys.Entry(ctx, req.Key); err == nil {
		if e.InUse != nil {
			ref := e.InUse.Ref()
			add(ref.Fingerprint.String(), ref.Version, k.wraps(req.Key))
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
func (k *Keeper) wraps(key string) bool {
	for _, cfg := range k.cfg.Settings().Vaults {
		if slices.Contains(cfg.Keys, key) {
			return true
		}
	}
	return false
}

// usageIn adds to u what hangs on a key version in one vault, whose key records these
// are, if all in gone are gone.
func (k *Keeper) usageIn(ctx context.Context, v *vault.Vault, records []catalog.KeyRecord, key string, version keyVersion, gone map[kek.Fingerprint]bool, u *control.VersionUsage) error {
	name := v.Name
	ours := k.openers(ctx, name)
	refers := 0
	for _, r := range records {
		if !opensWith(r, version.print) {
			continue
		}
		refers++
		other := slices.ContainsFunc(r.Wrappings, func(w kek.Wrapped) bool { return ours[w.Fingerprint] && !gone[w.Fingerprint] })
		if !other {
			lost := control.LostItem{Vault: name, Item: r.Item}
			if r.Item != "" {
				if err := k.countPoints(ctx, v, &lost); err != nil {
					return err
				}
			}
			if !slices.ContainsFunc(u.Lost, func(l control.LostItem) bool { return l.Vault == lost.Vault && l.Item == lost.Item }) {
				u.Lost = append(u.Lost, lost)
			}
		}
	}
	if refers > 0 || slices.Contains(k.cfg.Settings().Vaults[name].Keys, key) {
		u.Total += len(records)
	}
	u.Secrets += refers
	switch {
	case !u.Retirable:
	case refers > 0:
		u.Retirable, u.Because = false, fmt.Sprintf("it wraps %s of vault %s: coffer key rotate %s", control.Counted(refers, "secret"), name, name)
	case !version.until.IsZero():
		if done, err := k.backedUpSince(ctx, v, version.until); err != nil {
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
func (k *Keeper) openers(ctx context.Context, vault string) map[kek.Fingerprint]bool {
	out := make(map[kek.Fingerprint]bool)
	u := k.cfg.Vaults.Uses(vault)
	for _, name := range slices.Concat(u.Keys, u.Open) {
		if e, err := k.cfg.Keys.Entry(ctx, name); err == nil {
			for _, ref := range e.Refs() {
				if k.cfg.Watch.Failed(name, ref.Fingerprint) == nil {
					out[ref.Fingerprint] = true
				}
			}
		}
	}
	return out
}

// countPoints fills in the points of an item.
func (k *Keeper) countPoints(ctx context.Context, v *vault.Vault, lost *control.LostItem) error {
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
func (k *Keeper) backedUpSince(ctx context.Context, v *vault.Vault, t time.Time) (bool, error) {
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
