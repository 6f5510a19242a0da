// Package metrics is what Prometheus learns of the agent.
//
// Invariants:
//   - A scrape reads what is known already. It asks no store, no key and no disk, and
//     never waits for them.
//   - Labels are names of the configuration and words of this program, so there are no
//     more series than the configuration has things. No path, no address of a store, no
//     secret and no text of an error is in one.
//   - It is served read-only, on this machine alone.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/cofferbackup/coffer/agent/control"
)

// View is the agent as it is seen now.
type View struct {
	Status control.Status // as it was looked at last
	Looked time.Time      // when that was; zero: not yet
	Jobs   []control.Job  // that wait or run
	// Reload is how the last reload of the configuration went, the first reading
	// included.
	Reload Outcome
	// Audit is whether the audit log is whole and takes what is recorded.
	Audit    Outcome
	Channels []Channel
	// Gone are the items of which something was deleted behind the agent's back.
	Gone map[string]int
	// Retries are operations of a vault's store that were tried again, by vault.
	Retries map[string]int64
}

// Outcome is how something went.
type Outcome struct {
	Good bool
	At   time.Time // zero: not known
}

// Channel is a way of telling.
type Channel struct {
	Name           string
	Sent, Failures int64
	Failing        bool
}

// Config of Metrics.
type Config struct {
	// View returns the agent as it is seen now. It must not wait for anything.
	View func() View
}

// Metrics is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	jobs     *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	last     *prometheus.GaugeVec
	bytes    *prometheus.CounterVec
	dedup    *prometheus.GaugeVec
	skipped  *prometheus.GaugeVec
	faults   *prometheus.CounterVec
	pruned   *prometheus.CounterVec
	freed    prometheus.Counter
	locked   *prometheus.GaugeVec
}

// New returns metrics of which nothing has been counted.
func New(cfg Config) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		jobs:     counter("coffer_jobs_total", "Jobs that have ended.", "kind", "result"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "coffer_job_duration_seconds", Help: "How long jobs ran, without waiting for their turn.",
			Buckets: []float64{1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600}}, []string{"kind"}),
		last:    gauge("coffer_job_last_end_timestamp_seconds", "When the last job of a kind ended so.", "kind", "result"),
		bytes:   counter("coffer_backup_bytes_total", "Bytes of backups: source (size of what was backed up), read, new (not in the vault before), stored (written to the store).", "item", "what"),
		dedup:   gauge("coffer_backup_dedup_ratio", "Share of the source of the last backup that was in the vault already.", "item"),
		skipped: gauge("coffer_backup_skipped_entries", "Entries that the last backup should have kept and did not.", "item"),
		faults:  counter("coffer_store_errors_total", "Operations of a vault's store that failed for good.", "vault", "error"),
		pruned:  counter("coffer_prune_removed_total", "What prunes removed.", "what"),
		freed:   prometheus.NewCounter(prometheus.CounterOpts{Name: "coffer_prune_freed_bytes_total", Help: "Bytes that prunes removed."}),
		locked:  gauge("coffer_prune_locked_objects", "Objects that the store did not let go at the last prune.", "item"),
	}
	m.registry.MustRegister(m.jobs, m.seconds, m.last, m.bytes, m.dedup, m.skipped, m.faults, m.pruned, m.freed, m.locked,
		newCollector(cfg), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// JobEnded counts a job that has ended.
func (m *Metrics) JobEnded(j control.Job) {
	kind, result := j.Kind, string(j.State)
	m.jobs.WithLabelValues(kind, result).Inc()
	m.last.WithLabelValues(kind, result).Set(seconds(j.Ended))
	if !j.Started.IsZero() {
		m.seconds.WithLabelValues(kind).Observe(max(0, j.Ended.Sub(j.Started).Seconds()))
	}
	if j.Result == nil {
		return
	}
	if p := j.Result.Point; p != nil {
		m.backedUp(j.Item, p.Stats)
	}
	if p := j.Result.Prune; p != nil && !p.DryRun {
		m.pruned.WithLabelValues("points").Add(float64(max(0, p.RemovedPoints)))
		m.pruned.WithLabelValues("packs").Add(float64(max(0, p.RemovedPacks)))
		m.freed.Add(float64(max(0, p.FreedBytes)))
		m.locked.WithLabelValues(j.Item).Set(float64(p.Locked))
	}
}

// backedUp counts a backup that is done.
func (m *Metrics) backedUp(item string, s control.PointStats) {
	for what, n := range map[string]int64{"source": s.SourceBytes, "read": s.ReadBytes, "new": s.NewBytes, "stored": s.StoredBytes} {
		m.bytes.WithLabelValues(item, what).Add(float64(max(0, n)))
	}
	if s.SourceBytes > 0 {
		m.dedup.WithLabelValues(item).Set(max(0, 1-float64(s.NewBytes)/float64(s.SourceBytes)))
	}
	m.skipped.WithLabelValues(item).Set(float64(s.Skipped))
}

// Forget drops what was counted of items that are not in the configuration any more.
func (m *Metrics) Forget(item string) {
	labels := prometheus.Labels{"item": item}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.bytes, m.dedup, m.skipped, m.locked} {
		v.DeletePartialMatch(labels)
	}
}

// StoreFault is a way in which an operation of a store fails.
type StoreFault string

// The ways.
const (
	Unavailable StoreFault = "unavailable"
	Denied      StoreFault = "denied"
	Full        StoreFault = "full"
	Missing     StoreFault = "missing" // the store itself
	OtherFault  StoreFault = "other"
)

// StoreFailed counts an operation of a vault's store that failed for good.
func (m *Metrics) StoreFailed(vault string, how StoreFault) {
	m.faults.WithLabelValues(vault, string(how)).Inc()
}

// seconds is a time as Prometheus counts it; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
