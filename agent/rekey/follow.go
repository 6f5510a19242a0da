package rekey

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
)

// How often the agent looks for what its keys owe.
const (
	versionsEvery = 15 * time.Minute // for new versions
	versionsWait  = 30 * time.Second // for one key's
	retryMost     = time.Hour        // until a rotation that failed is tried again
)

// follower is what is known of the rotations that the agent began by itself.
type follower struct {
	found map[string]time.Time // when the versions of a key were last looked for
	tries map[string]attempt   // by vault
}

// attempt is a rotation, and how long it is before the next if it fails.
type attempt struct {
	job  int64
	wait time.Duration
}

// Follow looks for new versions of keys, and for secrets that lack a wrapping that they
// should have, and starts the rotation. There is one call at a time.
func (k *Keeper) Follow(ctx context.Context) {
	f := &k.follower
	touched := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(k.cfg.Settings().Keys)) {
		if since := k.cfg.Clock().Sub(f.found[name]); since >= 0 && since < versionsEvery-time.Second || k.cfg.Watch.Answer(name) != nil || ctx.Err() != nil {
			continue
		}
		f.found[name] = k.cfg.Clock()
		looking, cancel := context.WithTimeout(ctx, versionsWait)
		_, err := k.cfg.Keys.Refresh(looking, name)
		cancel()
		if err != nil {
			k.cfg.Log.Warn("versions of a key not found", "key", name, "err", err)
			continue
		}
		for vault, cfg := range k.cfg.Settings().Vaults {
			if slices.Contains(cfg.Keys, name) {
				touched[vault] = true
			}
		}
	}
	for _, vault := range slices.Sorted(maps.Keys(touched)) {
		k.settle(ctx, f, vault)
	}
}

// settle starts a rotation of a vault if it owes one. After one that failed it waits
// longer each time, up to retryMost: what stands in the way may stay there for long.
func (k *Keeper) settle(ctx context.Context, f *follower, name string) {
	if _, err := k.cfg.Vaults.Pinned(name); err != nil || k.cfg.Watch.Refused(name) != nil || k.cfg.Vaults.Drilling(name) || k.rotating(name) {
		return
	}
	v, err := k.cfg.Vaults.Open(ctx, name)
	if err != nil {
		return // its state says why
	}
	due, err := k.look(ctx, v)
	if err != nil {
		k.cfg.Log.Warn("key records not read", "vault", name, "err", err)
	}
	last := f.tries[name]
	if !due {
		delete(f.tries, name)
		return
	}
	next := attempt{wait: versionsEvery}
	if j, err := k.cfg.Jobs.Get(last.job); err == nil && j.Snapshot().State == control.JobFailed {
		if since := k.cfg.Clock().Sub(j.Snapshot().Ended); since >= 0 && since < last.wait-time.Second {
			return
		}
		next.wait = min(2*last.wait, retryMost)
	}
	next.job = k.startRekey(audit.ByAgent, rekey{vault: name}).ID
	f.tries[name] = next
}

// rotating tells whether a rotation of a vault waits or runs.
func (k *Keeper) rotating(vault string) bool {
	return k.cfg.Jobs.Running(func(j control.Job) bool { return j.Kind == control.KindRekey && j.Vault == vault })
}
