package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cofferbackup/coffer/agent/control"
)

// collector turns a View into metrics at each scrape, so that nothing is left of what
// is not in the configuration any more.
type collector struct {
	cfg   Config
	descs map[string]*prometheus.Desc
}

// described are the names, helps and labels of what a view says.
func described() [][]string {
	return [][]string{
		{"coffer_build_info", "The program that answers.", "version", "go", "platform"},
		{"coffer_start_timestamp_seconds", "When the agent began."},
		{"coffer_look_timestamp_seconds", "When the agent last looked at its items and vaults."},
		{"coffer_problems", "Problems that coffer status shows."},
		{"coffer_jobs", "Jobs that have not ended.", "state"},
		{"coffer_item_last_point_timestamp_seconds", "When the last good point of an item was begun.", "item", "vault"},
		{"coffer_item_next_run_timestamp_seconds", "When the next backup of an item is due.", "item"},
		{"coffer_item_points", "Points of an item.", "item", "vault"},
		{"coffer_item_source_bytes", "Size of what is in the last point of an item.", "item", "vault"},
		{"coffer_item_stored_bytes", "What all points of an item have put into the store.", "item", "vault"},
		{"coffer_item_overdue", "1 if a run of an item was due and no good point came of it.", "item"},
		{"coffer_item_fault", "1 if an item could not be looked at.", "item"},
		{"coffer_item_proof_timestamp_seconds", "When an item was last proved: structure, data, restore.", "item", "proof"},
		{"coffer_item_damage", "Faults that verifies found and nothing has mended.", "item"},
		{"coffer_item_gone", "Points, packs and indexes of an item that were deleted behind the agent's back.", "item"},
		{"coffer_vault_key_state", "1 for the state of a vault's keys.", "vault", "state"},
		{"coffer_vault_key_check_timestamp_seconds", "When one of a vault's keys was last asked.", "vault"},
		{"coffer_vault_key_coverage_ratio", "Share of a vault's secrets that the version in use of a key opens.", "vault", "key"},
		{"coffer_vault_key_owed", "Secrets of a vault that lack a wrapping of a key and should have one.", "vault", "key"},
		{"coffer_vault_keys", "Keys of a vault by provider.", "vault", "provider"},
		{"coffer_vault_spare_key", "1 if an escrow key, or a second one, opens a vault.", "vault"},
		{"coffer_vault_warnings", "What custody rules say of a vault.", "vault"},
		{"coffer_store_up", "1 if a vault's store answered at the last look.", "vault"},
		{"coffer_store_retries_total", "Operations of a vault's store that were tried again.", "vault"},
		{"coffer_config_reload_successful", "1 if the last reload of the configuration was taken over."},
		{"coffer_config_reload_timestamp_seconds", "When the configuration was last taken over."},
		{"coffer_audit_log_healthy", "1 if the audit log is whole and takes what is recorded."},
		{"coffer_notify_sent_total", "Notices that a channel took.", "channel"},
		{"coffer_notify_failures_total", "Tries of a channel that failed.", "channel"},
		{"coffer_notify_failing", "1 if a channel takes no notices now.", "channel"},
	}
}

func newCollector(cfg Config) *collector {
	c := &collector{cfg: cfg, descs: make(map[string]*prometheus.Desc)}
	for _, d := range described() {
		c.descs[d[0]] = prometheus.NewDesc(d[0], d[1], d[2:], nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	v := c.cfg.View()
	s := sample{c, out}
	version := v.Status.Version
	s.gauge("coffer_build_info", 1, version.Version, version.Go, version.Platform)
	s.gauge("coffer_start_timestamp_seconds", seconds(v.Status.Started))
	waiting, running := 0.0, 0.0
	for _, j := range v.Jobs {
		if j.State == control.JobRunning {
			running++
		} else {
			waiting++
		}
	}
	s.gauge("coffer_jobs", waiting, string(control.JobQueued))
	s.gauge("coffer_jobs", running, string(control.JobRunning))
	s.flag("coffer_config_reload_successful", v.Reload.Good)
	s.gauge("coffer_config_reload_timestamp_seconds", seconds(v.Reload.At))
	s.flag("coffer_audit_log_healthy", v.Audit.Good)
	for _, ch := range v.Channels {
		s.counter("coffer_notify_sent_total", float64(ch.Sent), ch.Name)
		s.counter("coffer_notify_failures_total", float64(ch.Failures), ch.Name)
		s.flag("coffer_notify_failing", ch.Failing, ch.Name)
	}
	if v.Looked.IsZero() {
		return // nothing is known of vaults and items, and that is not 0
	}
	s.gauge("coffer_look_timestamp_seconds", seconds(v.Looked))
	s.gauge("coffer_problems", float64(len(v.Status.Problems)))
	for _, vault := range v.Status.Vaults {
		s.vault(vault, v)
	}
	for _, it := range v.Status.Items {
		s.item(it, v)
	}
}

// sample is one scrape.
type sample struct {
	*collector
	out chan<- prometheus.Metric
}

func (s sample) gauge(name string, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(s.descs[name], prometheus.GaugeValue, value, labels...)
}

func (s sample) counter(name string, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(s.descs[name], prometheus.CounterValue, value, labels...)
}

func (s sample) flag(name string, is bool, labels ...string) {
	value := 0.0
	if is {
		value = 1
	}
	s.gauge(name, value, labels...)
}

// item says what is known of an item. Of one whose points could not be looked at there
// are no numbers: 0 points would be another matter.
func (s sample) item(it control.Item, v View) {
	s.flag("coffer_item_fault", it.Error != nil, it.Name)
	s.flag("coffer_item_overdue", it.Overdue, it.Name)
	s.gauge("coffer_item_gone", float64(v.Gone[it.Name]), it.Name)
	if !it.Next.IsZero() {
		s.gauge("coffer_item_next_run_timestamp_seconds", seconds(it.Next), it.Name)
	}
	s.gauge("coffer_item_proof_timestamp_seconds", seconds(it.Proof.Structure), it.Name, "structure")
	s.gauge("coffer_item_proof_timestamp_seconds", seconds(it.Proof.Data), it.Name, "data")
	s.gauge("coffer_item_proof_timestamp_seconds", seconds(it.Proof.Restore), it.Name, "restore")
	s.gauge("coffer_item_damage", float64(it.Proof.Faults), it.Name)
	if it.Error != nil && it.LastPoint == "" {
		return
	}
	s.gauge("coffer_item_last_point_timestamp_seconds", seconds(it.LastGood), it.Name, it.Vault)
	s.gauge("coffer_item_points", float64(it.Points), it.Name, it.Vault)
	s.gauge("coffer_item_source_bytes", float64(it.SourceBytes), it.Name, it.Vault)
	s.gauge("coffer_item_stored_bytes", float64(it.StoredBytes), it.Name, it.Vault)
}

func states() []control.KeyState {
	return []control.KeyState{control.StateAbsent, control.StateUnknown, control.StateAccessible, control.StateDegraded,
		control.StateInaccessible, control.StateRevalidation}
}

// storeUp tells whether a vault's store answered at the last look.
func storeUp(vault control.Vault, items []control.Item) bool {
	faulty := func(err *control.Error) bool { return err != nil && err.Code == control.CodeStore }
	return !faulty(vault.Error) && !slices.ContainsFunc(items, func(it control.Item) bool { return it.Vault == vault.Name && faulty(it.Error) })
}

// vault says what is known of a vault.
func (s sample) vault(vault control.Vault, v View) {
	for _, state := range states() {
		s.flag("coffer_vault_key_state", vault.State == state, vault.Name, string(state))
	}
	s.gauge("coffer_vault_key_check_timestamp_seconds", seconds(vault.Checked), vault.Name)
	s.gauge("coffer_vault_warnings", float64(len(vault.Warnings)), vault.Name)
	s.flag("coffer_store_up", storeUp(vault, v.Status.Items), vault.Name)
	s.counter("coffer_store_retries_total", float64(v.Retries[vault.Name]), vault.Name)

	providers := make(map[string][]string) // names of keys, each once however many versions it has
	var wrapping []string
	for _, k := range vault.Keys {
		if !slices.Contains(providers[k.Provider], k.Name) {
			providers[k.Provider] = append(providers[k.Provider], k.Name)
		}
		if !k.RestoreOnly && !slices.Contains(wrapping, k.Name) {
			wrapping = append(wrapping, k.Name)
		}
	}
	for provider, names := range providers {
		if provider == "" {
			provider = "unknown" // it does not answer
		}
		s.gauge("coffer_vault_keys", float64(len(names)), vault.Name, provider)
	}
	s.flag("coffer_vault_spare_key", len(wrapping) > 1, vault.Name)

	type lag struct{ covered, owed float64 }
	lags := make(map[string]lag) // by name of the key
	for _, c := range vault.Coverage {
		l := lags[c.Key]
		if c.InUse {
			l.covered = max(l.covered, c.Percent/100)
		}
		l.owed += float64(c.Owed)
		lags[c.Key] = l
	}
	for key, l := range lags {
		s.gauge("coffer_vault_key_coverage_ratio", l.covered, vault.Name, key)
		s.gauge("coffer_vault_key_owed", l.owed, vault.Name, key)
	}
}
