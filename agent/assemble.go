package agent

import (
	"context"
	"time"

	"github.com/cofferbackup/coffer/agent/alarm"
	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/agent/plan"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/rekey"
	"github.com/cofferbackup/coffer/agent/retention"
	"github.com/cofferbackup/coffer/agent/ruling"
	"github.com/cofferbackup/coffer/agent/schedule"
	"github.com/cofferbackup/coffer/agent/tell"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/agent/watch"
	"github.com/cofferbackup/coffer/agent/work"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// assemble makes the parts of the agent. They know each other by what is given to them
// here; nothing of it is called before all are there.
func (a *Agent) assemble() {
	cfg := a.Config
	counts := metrics.New(metrics.Config{View: func() metrics.View { return a.tell.View() }})
	a.counts, a.openStore, a.makeStore = counts, a.observed(counts, cfg.Parts.Store), a.observed(counts, cfg.Parts.MakeStore)
	a.tell = tell.New(tell.Config{
		Settings: a.settings, State: a.state, Secret: cfg.Parts.Secret, Audit: audit.NewDaily(a.audit, cfg.Clock), Counts: counts, Jobs: a.jobs,
		Status: a.watched(), Wrong: a.wrong, Lost: a.lost, Refused: a.reloadFault, Retries: cfg.Parts.Retries,
		Retried: func(j control.Job) bool { return a.plan.Retried(j) },
		Health:  func(vault string) custody.Health { return a.watch.Health(vault) },
		Asked:   func(keys []string) time.Time { return a.watch.Last(keys) },
		Round:   func(sleep time.Duration) { a.pulse.beat("telling", cfg.Clock(), sleep) },
		Program: cfg.Program, Host: a.host, Started: a.started, Clock: cfg.Clock, After: cfg.After, Log: cfg.Log,
	})
	a.keys = keyring.New(keyring.Config{
		Keys: cfg.Settings.Keys, Open: cfg.Parts.Key, Escrow: cfg.Parts.Escrow,
		Memory: a.state, Record: a.audit.Record, Clock: cfg.Clock, Log: cfg.Log,
	})
	a.vaults = vault.New(vault.Config{
		Settings: a.settings, State: a.state, Keys: a.keys, Store: a.openStore, Index: cfg.Parts.Index,
		Refused: func(vault string) error { return a.watch.Refused(vault) },
		Record:  a.record, Clock: cfg.Clock, Log: cfg.Log,
	})
	a.points = point.New(point.Config{Settings: a.settings, Vaults: a.vaults, Keys: a.keys, Clock: cfg.Clock, Log: cfg.Log})
	a.rules = ruling.New(ruling.Config{Settings: a.settings, Keys: a.keys, Record: a.record, Clock: cfg.Clock})
	a.watch = watch.New(watch.Config{
		Settings: a.settings, State: a.state, Keys: a.keys, Vaults: a.vaults, Store: a.openStore, Jobs: a.jobs, Follow: a.follow(),
		Round: func(sleep time.Duration) { a.pulse.beat("keys", cfg.Clock(), sleep) },
		Tell:  a.tell.Keys, Record: a.record, Clock: cfg.Clock, After: cfg.After, Log: cfg.Log,
	})
	a.plan = plan.Open(plan.Config{
		Settings: a.settings, State: a.state, Vaults: a.vaults, Refused: a.watch.Refused, Jobs: a.jobs,
		Backup: func(by, item, policy string, try schedule.Try) (*queue.Job, error) {
			return a.desk.StartBackup(by, control.BackupRequest{Item: item}, work.Run{Policy: policy, Try: try})
		},
		Prune:  func(by, vault string) *queue.Job { return a.warden.StartPrune(by, vault) },
		Verify: func(by, vault string, depth proof.Depth) *queue.Job { return a.desk.StartVerify(by, vault, depth) },
		Explain: func(ctx context.Context, item string) ([]control.PointFate, error) {
			return a.warden.ExplainItem(ctx, item)
		},
		Round: func(sleep time.Duration) { a.pulse.beat("schedules", cfg.Clock(), sleep) },
		Host:  a.host, Clock: cfg.Clock, After: cfg.After, Log: cfg.Log,
	})
	a.desk = work.New(work.Config{
		Settings: a.settings, State: a.state, Vaults: a.vaults, Points: a.points, Rules: a.rules, Proofs: a.proofs, Jobs: a.jobs, Start: a.start,
		Source: cfg.Parts.Source, Target: cfg.Parts.Target, Limiter: a.plan.Limiter, Good: a.plan.Good, Record: a.record,
		Host: a.host, Version: cfg.Program.Version, Process: a.process, Clock: cfg.Clock, After: cfg.After, Log: cfg.Log,
	})
	a.warden = retention.New(retention.Config{
		Settings: a.settings, Vaults: a.vaults, Points: a.points, Start: a.start, Record: a.record,
		Host: a.host, Clock: cfg.Clock, Log: cfg.Log,
	})
	a.keeper = rekey.New(rekey.Config{
		Settings: a.settings, State: a.state, Keys: a.keys, Vaults: a.vaults, Watch: a.watch, Rules: a.rules, Jobs: a.jobs, Start: a.start,
		MakeVersion: func(ctx context.Context, name string, key config.Key) (kek.Ref, error) {
			return cfg.Parts.MakeKey(ctx, name, key, MakeKeyOptions{})
		},
		Backup: a.desk.TryBackup, ReadBack: a.desk.ReadBack, Record: a.record, Clock: cfg.Clock, Log: cfg.Log,
	})
	a.Work, a.Retention, a.policies, a.custodian = a.desk, a.warden, a.plan, a.keeper
}

// follow returns what is done beside each round of the watch over the keys.
func (a *Agent) follow() func(ctx context.Context) {
	warm := false
	return func(ctx context.Context) {
		if !warm {
			warm = true
			a.warm(ctx)
		}
		a.keeper.Follow(ctx)
	}
}

// lost returns how many points of an item are gone that no prune removed.
func (a *Agent) lost(vault, item string) int {
	v := a.vaults.Opened(vault)
	if v == nil {
		return 0
	}
	return v.Lost(item)
}

// wrong is what is wrong with the vaults and items of a status.
func (a *Agent) wrong(s control.Status) *alarm.Found {
	look := alarm.Look{Vaults: s.Vaults, Items: s.Items, Gone: make(map[string]int), Asked: make(map[string]alarm.Asked), Now: a.Clock()}
	for _, it := range s.Items {
		look.Gone[it.Name] = a.lost(it.Vault, it.Name)
	}
	for name, v := range a.settings().Vaults {
		if v.Verify.Data != "" {
			look.Asked[name] = alarm.Asked{Proof: time.Duration(v.Verify.Every)}
		}
	}
	return alarm.Of(look)
}

// observed has the faults of the stores that open opens counted.
func (a *Agent) observed(counts *metrics.Metrics, open openStore) openStore {
	return func(ctx context.Context, vault config.Vault) (store.Store, error) {
		named := func() (names []string) {
			for name, v := range a.settings().Vaults {
				if v.Store == vault.Store {
					names = append(names, name)
				}
			}
			return names
		}
		st, err := open(ctx, vault)
		if err != nil {
			counts.NotOpened(err, named)
			return nil, err
		}
		return counts.Observe(st, named), nil
	}
}

// serveMetrics serves metrics where the configuration says, if it does, until ctx ends.
// That they cannot be served is told, and ends nothing.
func (a *Agent) serveMetrics(ctx context.Context) {
	address := a.settings().Agent.Metrics
	if address == "" {
		return
	}
	l, err := metrics.Listen(ctx, address)
	if err == nil {
		err = a.counts.Serve(ctx, l, a.Log)
	}
	if err != nil {
		a.Log.Error("metrics are not served", "err", err)
	}
}
