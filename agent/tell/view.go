package tell

import (
	"maps"
	"slices"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/agent/queue"
)

// View is the agent as metrics show it. It asks nobody, and waits for nothing.
func (t *Teller) View() metrics.View {
	t.mu.Lock()
	v := metrics.View{Status: t.status, Looked: t.looked, Gone: maps.Clone(t.gone), Reload: t.reloaded}
	t.mu.Unlock()
	v.Status.Version, v.Status.Started = t.cfg.Program, t.cfg.Started
	v.Audit = metrics.Outcome{Good: t.cfg.Audit.Fault() == nil}
	for _, j := range t.cfg.Jobs.List(control.JobFilter{Limit: queue.Remembered}) {
		if !j.State.Ended() {
			v.Jobs = append(v.Jobs, j)
		}
	}
	for _, c := range t.notifier.Channels() {
		v.Channels = append(v.Channels, metrics.Channel{Name: c.Name, Sent: c.Sent, Failures: c.Failures, Failing: !c.Failing.IsZero()})
	}
	v.Status.Vaults = slices.Clone(v.Status.Vaults)
	v.Retries = make(map[string]int64)
	cfg := t.cfg.Settings()
	for i := range v.Status.Vaults {
		vault := &v.Status.Vaults[i]
		vault.State = t.stateNow(*vault)
		vault.Checked = t.cfg.Asked(cfg.Vaults[vault.Name].Keys)
		if t.cfg.Retries != nil {
			v.Retries[vault.Name] = t.cfg.Retries(cfg.Vaults[vault.Name])
		}
	}
	return v
}

// stateNow is the state of a vault's keys, which may have changed since it was looked at.
func (t *Teller) stateNow(seen control.Vault) control.KeyState {
	switch now := control.KeyState(t.cfg.Health(seen.Name).State()); {
	case seen.State == control.StateAbsent, now == control.StateUnknown:
	case seen.Error == nil, now == control.StateInaccessible, now == control.StateRevalidation:
		return now
	}
	return seen.State
}
