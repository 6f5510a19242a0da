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
	retryMost     = time.Hour        // until a rotation that failed is tried again
	followWait    = 5 * time.Second  // before the agent goes on while stores are slow
)

// follower is what the agent knows of the rotations that it began by itself. One
// goroutine at a time has it.
type follower struct {
	tries map[string]attempt // by vault
}

// attempt is a rotation, and how long it is before the next if it fails.
type attempt struct {
	job  int64
	wait time.Duration
}

// followVersions looks for new versions of keys, and for secrets that lack a
// wrapping that they should have, and starts the rotation.
func (a *Agent) followVersions(ctx context.Context, f *follower) {
	touched := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(a.settings().Keys)) {
		p := a.watch.probe(name)
		if since := a.Clock().Sub(p.found); since >= 0 && since < versionsEvery-time.Second || p.err != nil || ctx.Err() != nil {
			continue
		}
		a.watch.looked(name, a.Clock())
		looking, cancel := context.WithTimeout(ctx, probeWait)
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

// looked notes when the versions of a key were last looked for.
func (w *watch) looked(key string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.probes[key]
	p.found = at
	w.probes[key] = p
}

// settle starts a rotation of a vault if it owes one. After one that failed it waits
// longer each time, up to retryMost: what stands in the way may stay there for long.
func (a *Agent) settle(ctx context.Context, f *follower, name string) {
	if _, err := a.vaults.Pinned(name); err != nil || a.refused(name) != nil || a.vaults.Drilling(name) || a.rotating(name) {
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
