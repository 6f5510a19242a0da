package agent

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

// follower is what the agent knows of the rotations that it began by itself. One
// goroutine at a time has it.
type follower struct {
	warm  bool                 // the vaults were opened for the first time
	found map[string]time.Time // when the versions of a key were last looked for
	tries map[string]attempt   // by vault
}

// attempt is a rotation, and how long it is before the next if it fails.
type attempt struct {
	job  int64
	wait time.Duration
}

// follow is what is done beside each round of the watch over the keys.
func (a *Agent) follow(ctx context.Context, f *follower) {
	if !f.warm {
		f.warm = true
		a.warm(ctx)
	}
	a.followVersions(ctx, f)
}

// followVersions looks for new versions of keys, and for secrets that lack a
// wrapping that they should have, and starts the rotation.
func (a *Agent) followVersions(ctx context.Context, f *follower) {
	touched := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(a.settings().Keys)) {
		if since := a.Clock().Sub(f.found[name]); since >= 0 && since < versionsEvery-time.Second || a.watch.Answer(name) != nil || ctx.Err() != nil {
			continue
		}
		f.found[name] = a.Clock()
		looking, cancel := context.WithTimeout(ctx, versionsWait)
		_, err := a.keys.Refresh(looking, name)
		cancel()
		if err != nil {
			a.Log.Warn("versions of a key not found", "key", name, "err", err)
			continue
		}
		for vault, cfg := range a.settings().Vaults {
			if slices.Contains(cfg.Keys, name) {
				touched[vault] = true
			}
		}
	}
	for _, vault := range slices.Sorted(maps.Keys(touched)) {
		a.settle(ctx, f, vault)
	}
}

// settle starts a rotation of a vault if it owes one. After one that failed it waits
// longer each time, up to retryMost: what stands in the way may stay there for long.
func (a *Agent) settle(ctx context.Context, f *follower, name string) {
	if _, err := a.vaults.Pinned(name); err != nil || a.watch.Refused(name) != nil || a.vaults.Drilling(name) || a.rotating(name) {
		return
	}
	v, err := a.vaults.Open(ctx, name)
	if err != nil {
		return // its state says why
	}
	due, err := a.look(ctx, v)
	if err != nil {
		a.Log.Warn("key records not read", "vault", name, "err", err)
	}
	last := f.tries[name]
	if !due {
		delete(f.tries, name)
		return
	}
	next := attempt{wait: versionsEvery}
	if j, err := a.jobs.Get(last.job); err == nil && j.Snapshot().State == control.JobFailed {
		if since := a.Clock().Sub(j.Snapshot().Ended); since >= 0 && since < last.wait-time.Second {
			return
		}
		next.wait = min(2*last.wait, retryMost)
	}
	next.job = a.startRekey(audit.ByAgent, rekey{vault: name}).ID
	f.tries[name] = next
}

// rotating tells whether a rotation of a vault waits or runs.
func (a *Agent) rotating(vault string) bool {
	return a.jobs.Running(func(j control.Job) bool { return j.Kind == control.KindRekey && j.Vault == vault })
}
