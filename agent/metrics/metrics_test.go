package metrics_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/metrics"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// full is a view in which everything is.
func full() metrics.View {
	const secret = "/etc/secret-path"
	return metrics.View{
		Looked: noon, Reload: metrics.Outcome{Good: true, At: noon}, Audit: metrics.Outcome{Good: true},
		Channels: []metrics.Channel{{Name: "mail", Sent: 7, Failures: 2, Failing: true}},
		Gone:     map[string]int{"etc": 3}, Retries: map[string]int64{"site": 4},
		Jobs: []control.Job{{State: control.JobRunning}, {State: control.JobQueued}, {State: control.JobQueued}},
		Status: control.Status{
			Version: control.Version{Version: "1.2.3", Go: "go1.26", Platform: "linux/amd64", Config: secret}, Started: noon.Add(-time.Hour),
			Vaults: []control.Vault{{Name: "site", Store: "s3://" + secret, State: control.StateDegraded, Checked: noon,
				Error: &control.Error{Code: control.CodeStore, Message: secret}, Warnings: []control.Problem{{Message: secret}},
				Keys: []control.Key{{Name: "main", URI: secret, Provider: "pkcs11", Version: "2"}, {Name: "main", Provider: "pkcs11", Version: "1"},
					{Name: "escrow", Provider: "escrow"}, {Name: "old", RestoreOnly: true}},
				Coverage: []control.Coverage{{Key: "main", Version: "2", Percent: 75, InUse: true, Owed: 1}, {Key: "main", Version: "1", Percent: 100, Owed: 2}}}},
			Items: []control.Item{
				{Name: "etc", Vault: "site", Source: secret, LastGood: noon, LastPoint: "p", Next: noon.Add(time.Hour), Points: 42, SourceBytes: 1000, StoredBytes: 300,
					Overdue: true, Proof: control.Proof{Structure: noon, Data: noon.Add(-time.Hour), Faults: 5}},
				{Name: "vm1", Vault: "site", Error: &control.Error{Message: secret}},
			},
			Problems: []control.Problem{{Subject: "vault site", Message: secret}},
		},
	}
}

// counted is metrics in which everything has been counted.
func counted() *metrics.Metrics {
	m := metrics.New(metrics.Config{View: full})
	m.JobEnded(control.Job{Kind: control.KindBackup, Item: "etc", State: control.JobDone, Started: noon.Add(-time.Minute), Ended: noon, Result: &control.JobResult{
		Point: &control.Point{Stats: control.PointStats{SourceBytes: 1000, ReadBytes: 500, NewBytes: 100, StoredBytes: 40, Skipped: 2}}}})
	m.JobEnded(control.Job{Kind: control.KindBackup, Item: "etc", State: control.JobFailed, Ended: noon})
	m.JobEnded(control.Job{Kind: control.KindPrune, Item: "etc", State: control.JobDone, Started: noon, Ended: noon, Result: &control.JobResult{
		Prune: &control.PruneResult{RemovedPoints: 3, RemovedPacks: 9, FreedBytes: 900, Locked: 6}}})
	m.JobEnded(control.Job{Kind: control.KindPrune, Item: "etc", State: control.JobDone, Started: noon, Ended: noon, Result: &control.JobResult{
		Prune: &control.PruneResult{DryRun: true, RemovedPoints: 100}}})
	m.StoreFailed("site", metrics.Denied)
	return m
}

// values are the series of metrics, as they are written.
func values(t *testing.T, m *metrics.Metrics) map[string]float64 {
	t.Helper()
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		for _, s := range f.GetMetric() {
			var labels []string
			for _, l := range s.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			out[name] = valueOf(s)
		}
	}
	return out
}

func valueOf(s *dto.Metric) float64 {
	switch {
	case s.Gauge != nil:
		return s.Gauge.GetValue()
	case s.Counter != nil:
		return s.Counter.GetValue()
	case s.Histogram != nil:
		return float64(s.Histogram.GetSampleCount())
	}
	return -1
}

// TestValues says what each metric is, of an agent of which all is known.
func TestValues(t *testing.T) {
	got := values(t, counted())
	at := float64(noon.Unix())
	for name, want := range map[string]float64{
		`coffer_build_info{go="go1.26",platform="linux/amd64",version="1.2.3"}`: 1,
		`coffer_start_timestamp_seconds`:                                        at - 3600,
		`coffer_look_timestamp_seconds`:                                         at,
		`coffer_problems`:                                                       1,
		`coffer_jobs{state="queued"}`:                                           2,
		`coffer_jobs{state="running"}`:                                          1,
		`coffer_jobs_total{kind="backup",result="done"}`:                        1,
		`coffer_jobs_total{kind="backup",result="failed"}`:                      1,
		`coffer_job_last_end_timestamp_seconds{kind="backup",result="failed"}`:  at,
		`coffer_job_duration_seconds{kind="backup"}`:                            1, // the other never ran
		`coffer_backup_bytes_total{item="etc",what="source"}`:                   1000,
		`coffer_backup_bytes_total{item="etc",what="stored"}`:                   40,
		`coffer_backup_dedup_ratio{item="etc"}`:                                 0.9,
		`coffer_backup_skipped_entries{item="etc"}`:                             2,
		`coffer_prune_removed_total{what="points"}`:                             3, // a dry run removes nothing
		`coffer_prune_removed_total{what="packs"}`:                              9,
		`coffer_prune_freed_bytes_total`:                                        900,
		`coffer_prune_locked_objects{item="etc"}`:                               6,
		`coffer_item_last_point_timestamp_seconds{item="etc",vault="site"}`:     at,
		`coffer_item_next_run_timestamp_seconds{item="etc"}`:                    at + 3600,
		`coffer_item_points{item="etc",vault="site"}`:                           42,
		`coffer_item_source_bytes{item="etc",vault="site"}`:                     1000,
		`coffer_item_stored_bytes{item="etc",vault="site"}`:                     300,
		`coffer_item_overdue{item="etc"}`:                                       1,
		`coffer_item_overdue{item="vm1"}`:                                       0,
		`coffer_item_fault{item="vm1"}`:                                         1,
		`coffer_item_proof_timestamp_seconds{item="etc",proof="data"}`:          at - 3600,
		`coffer_item_proof_timestamp_seconds{item="etc",proof="restore"}`:       0,
		`coffer_item_damage{item="etc"}`:                                        5,
		`coffer_item_gone{item="etc"}`:                                          3,
		`coffer_vault_key_state{state="degraded",vault="site"}`:                 1,
		`coffer_vault_key_state{state="accessible",vault="site"}`:               0,
		`coffer_vault_key_check_timestamp_seconds{vault="site"}`:                at,
		`coffer_vault_key_coverage_ratio{key="main",vault="site"}`:              0.75,
		`coffer_vault_key_owed{key="main",vault="site"}`:                        3,
		`coffer_vault_keys{provider="pkcs11",vault="site"}`:                     1,
		`coffer_vault_keys{provider="unknown",vault="site"}`:                    1,
		`coffer_vault_spare_key{vault="site"}`:                                  1,
		`coffer_vault_warnings{vault="site"}`:                                   1,
		`coffer_store_up{vault="site"}`:                                         0,
		`coffer_store_errors_total{error="denied",vault="site"}`:                1,
		`coffer_store_retries_total{vault="site"}`:                              4,
		`coffer_config_reload_successful`:                                       1,
		`coffer_config_reload_timestamp_seconds`:                                at,
		`coffer_audit_log_healthy`:                                              1,
		`coffer_notify_sent_total{channel="mail"}`:                              7,
		`coffer_notify_failures_total{channel="mail"}`:                          2,
		`coffer_notify_failing{channel="mail"}`:                                 1,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v (%v), want %v", name, value, ok, want)
		}
	}
	for name := range got {
		if strings.Contains(name, "secret") || strings.Contains(name, "/etc") {
			t.Errorf("a path is in %s", name)
		}
	}
	if _, known := got[`coffer_item_points{item="vm1",vault="site"}`]; known {
		t.Error("of an item that cannot be seen, numbers are told")
	}
}

// TestUnknown: what is not known yet is not told as 0.
func TestUnknown(t *testing.T) {
	m := metrics.New(metrics.Config{View: func() metrics.View { return metrics.View{Status: full().Status} }})
	for name := range values(t, m) {
		if strings.HasPrefix(name, "coffer_item") || strings.HasPrefix(name, "coffer_vault") || strings.HasPrefix(name, "coffer_look") {
			t.Errorf("%s is told before anything was looked at", name)
		}
	}
}

// TestForget: an item that is gone from the configuration leaves nothing.
func TestForget(t *testing.T) {
	view := full()
	m := metrics.New(metrics.Config{View: func() metrics.View { return view }})
	m.JobEnded(control.Job{Kind: control.KindBackup, Item: "gone", State: control.JobDone, Ended: noon, Result: &control.JobResult{
		Point: &control.Point{Stats: control.PointStats{SourceBytes: 1}}}})
	m.Forget("gone")
	view.Status.Items = nil
	for name := range values(t, m) {
		if strings.Contains(name, `item="`) {
			t.Errorf("%s is left", name)
		}
	}
}

// TestListen: metrics are for this machine alone.
func TestListen(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:9464", "example.org:9464", "9464", "", "127.0.0.1", "relative/path"} {
		if l, err := metrics.Listen(t.Context(), address); err == nil {
			l.Close()
			t.Errorf("they are served on %q", address)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0", filepath.Join(t.TempDir(), "m.sock")} {
		l, err := metrics.Listen(t.Context(), address)
		if err != nil {
			t.Error(err)
			continue
		}
		l.Close()
	}
}

// TestServe: GET /metrics and nothing else, over TCP and a socket.
func TestServe(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", filepath.Join(t.TempDir(), "m.sock")} {
		l, err := metrics.Listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- counted().Serve(ctx, l, slog.New(slog.DiscardHandler)) }()
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, l.Addr().Network(), l.Addr().String())
		}}}
		for _, test := range []struct {
			method, path string
			status       int
		}{{"GET", "/metrics", 200}, {"POST", "/metrics", 405}, {"DELETE", "/metrics", 405}, {"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"GET", "/metrics/../etc/passwd", 404}} {
			req, err := http.NewRequestWithContext(t.Context(), test.method, "http://coffer"+test.path, strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != test.status {
				t.Errorf("%s %s: %s, %v", test.method, test.path, resp.Status, err)
			}
			if test.status == 200 && !strings.Contains(string(body), `coffer_item_points{item="etc",vault="site"} 42`) {
				t.Errorf("%s", body)
			}
		}
		client.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestManyScrapes: many at once get an answer, or are told to come back.
func TestManyScrapes(t *testing.T) {
	l, err := metrics.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	m := counted()
	all.Go(func() { _ = m.Serve(ctx, l, slog.New(slog.DiscardHandler)) })
	idle, err := net.Dial("tcp", l.Addr().String()) // who says nothing keeps nobody out
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	var mu sync.Mutex
	seen := make(map[int]int)
	var scraping sync.WaitGroup
	for range 100 {
		scraping.Go(func() {
			resp, err := http.Get("http://" + l.Addr().String() + "/metrics")
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			seen[resp.StatusCode]++
		})
	}
	scraping.Wait()
	if seen[200] == 0 || seen[200]+seen[503] != 100 {
		t.Errorf("%v", seen)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	all.Wait()
	if !slices.Contains(slices.Collect(maps.Keys(values(t, m))), "coffer_problems") {
		t.Error("nothing is left to see")
	}
}
