//go:build linux

package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/notify/message"
	"github.com/cofferbackup/coffer/kek"
)

// listener hears what an agent tells.
type listener struct {
	*bench
	notices chan message.Notice
	pings   chan string
	heard   []string
}

// told is an agent that tells a webhook everything, and pings for docs.
func told(t *testing.T) *listener {
	t.Helper()
	l := &listener{bench: furnished(t), notices: make(chan message.Notice, 1000), pings: make(chan string, 1000)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			l.pings <- r.URL.Path
			return
		}
		var m message.Notice
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		l.notices <- m
	}))
	t.Cleanup(server.Close)
	l.stop()
	l.configure(twoKeys + fmt.Sprintf(`
notify:
  hook: {on: [failure, alarm, recovery, success], webhook: {url: "%[1]s"}}
  ping: {items: [docs], ping: {url: "%[1]s/docs"}}
`, server.URL))
	l.settings.Agent.Metrics = l.path("m.sock")
	l.start()
	return l
}

// hear lets time pass until a notice comes whose kind and subject are so.
func (l *listener) hear(kind message.Kind, subject string) message.Notice {
	l.Helper()
	for range 200 {
		for pending := true; pending; {
			select {
			case m := <-l.notices:
				l.heard = append(l.heard, string(m.Kind)+" "+m.Subject)
				if m.Kind == kind && m.Subject == subject {
					return m
				}
			case <-time.After(20 * time.Millisecond):
				pending = false
			}
		}
		l.pass(1)
	}
	l.Fatalf("never heard %s %s, but %q", kind, subject, l.heard)
	return message.Notice{}
}

// quiet wants nothing to be told for some minutes.
func (l *listener) quiet(minutes int) {
	l.Helper()
	l.pass(minutes)
	select {
	case m := <-l.notices:
		l.Errorf("told %+v", m)
	case <-time.After(100 * time.Millisecond):
	}
}

// pinged wants these pings of docs to come next.
func (l *listener) pinged(want ...string) {
	l.Helper()
	for i, one := range want {
		select {
		case p := <-l.pings:
			if p != "/docs"+one {
				l.Fatalf("pinged %s, want /docs%s", p, one)
			}
		case <-time.After(20 * time.Second):
			l.Fatalf("only %d pings of %q came", i, want)
		}
	}
}

// TestTellJobs: a job that is done, one that fails, and one that is well again.
func TestTellJobs(t *testing.T) {
	l := told(t)
	l.done(l.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	m := l.hear(message.Success, "backup of docs")
	if m.Item != "docs" || m.Job == 0 || !strings.HasPrefix(m.Message, "point ") {
		t.Errorf("%+v", m)
	}
	must(t, os.Rename(l.path("docs"), l.path("away")))
	l.pinged("/start", "")
	for range 3 {
		l.wait(l.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
		l.pinged("/start", "/fail")
	}
	m = l.hear(message.Failure, "backup of docs")
	if m.Next == "" || m.Message == "" || m.Host == "" {
		t.Errorf("%+v", m)
	}
	l.quiet(10)
	must(t, os.Rename(l.path("away"), l.path("docs")))
	l.done(l.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	if m = l.hear(message.Recovery, "backup of docs"); m.Count != 3 {
		t.Errorf("%+v", m)
	}
	l.hear(message.Success, "backup of docs")
	l.quiet(10)
	l.pinged("/start", "")
}

// TestTellKeys: that a key was taken away is told at once, after 5, 10 and 25 minutes,
// over a restart too, and that it is back, once.
func TestTellKeys(t *testing.T) {
	l := told(t)
	l.quiet(2)
	l.keys.breaks("main", fmt.Errorf("%w: the permission was taken away", kek.ErrDenied))
	begun := l.clock.Now()
	var at []int
	for minute := 1; minute <= 28; minute++ {
		if minute == 7 {
			l.stop()
			l.start()
		}
		l.pass(1)
		for pending := true; pending; {
			select {
			case m := <-l.notices:
				if m.Subject == "keys of vault one" {
					if m.Kind != message.Alarm || m.Next == "" {
						t.Errorf("%+v", m)
					}
					at = append(at, int(m.Time.Sub(begun).Minutes()))
				}
			case <-time.After(20 * time.Millisecond):
				pending = false
			}
		}
	}
	if len(at) < 4 || len(at) > 6 || at[0] > 2 || at[len(at)-1] < 22 {
		t.Errorf("told after minutes %v", at)
	}
	l.keys.breaks("main", nil)
	if m := l.hear(message.Recovery, "keys of vault one"); m.Message == "" {
		t.Errorf("%+v", m)
	}
}

// TestTellStore: a store that is away is told after a while, and when it is back.
func TestTellStore(t *testing.T) {
	l := told(t)
	must(t, os.Rename(l.path("one"), l.path("one.away")))
	begun := l.clock.Now()
	m := l.hear(message.Alarm, "store of vault one")
	if after := m.Time.Sub(begun); after < 15*time.Minute || after > 40*time.Minute || m.Next == "" {
		t.Errorf("after %s: %+v", after, m)
	}
	l.quiet(60)
	l.stop() // nor does a restart say it again
	l.start()
	l.quiet(30)
	must(t, os.Rename(l.path("one.away"), l.path("one")))
	l.hear(message.Recovery, "store of vault one")
	l.quiet(10)
}

// TestTellRollback: a point that somebody deletes is told, by notice and by metrics.
func TestTellRollback(t *testing.T) {
	l := told(t)
	p := l.done(l.Backup(t.Context(), control.BackupRequest{Item: "docs"})).Result.Point
	l.hear(message.Success, "backup of docs")
	l.pass(6) // it was seen
	stealPoint(t, l.bench, p.ID)
	if m := l.hear(message.Alarm, "item docs"); !strings.Contains(m.Message, "gone") || m.Item != "docs" {
		t.Errorf("%+v", m)
	}
	if text := l.scrape(); !strings.Contains(text, "coffer_item_gone{item=\"docs\"} 1\n") {
		t.Errorf("%s", lines(text, "coffer_item_gone"))
	}
}

// TestTellReload: a configuration that is refused, and one that is taken over.
func TestTellReload(t *testing.T) {
	l := told(t)
	good := l.settings
	bad := *good
	bad.Agent.State = l.path("elsewhere")
	l.settings = &bad
	if report, err := l.ReloadConfig(t.Context()); err != nil || len(report.Problems) == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if m := l.hear(message.Alarm, "configuration"); !strings.Contains(m.Message, "agent.state") {
		t.Errorf("%+v", m)
	}
	if text := l.scrape(); !strings.Contains(text, "coffer_config_reload_successful 0\n") {
		t.Errorf("%s", lines(text, "coffer_config"))
	}
	l.settings = good
	if report, err := l.ReloadConfig(t.Context()); err != nil || len(report.Problems) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	l.hear(message.Recovery, "configuration")
}

// scrape asks for the metrics.
func (b *bench) scrape() string {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.path("m.sock"))
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://agent/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s, %v", resp.Status, err)
	}
	return string(text)
}

// lines are those of a text that have something in them.
func lines(text, with string) string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, with) && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// TestMetrics: what a scrape says of a running agent, also while a store is silent and a
// key hangs; and no path is in it.
func TestMetrics(t *testing.T) {
	l := told(t)
	p := l.done(l.Backup(t.Context(), control.BackupRequest{Item: "docs"})).Result.Point
	l.hear(message.Success, "backup of docs")
	text := ""
	for range 20 { // it looks again soon after a job
		if text = l.scrape(); strings.Contains(text, `coffer_item_points{item="docs",vault="one"} 2`) {
			break
		}
		l.pass(1)
	}
	for _, want := range []string{
		`coffer_build_info{go="",platform="",version="test"} 1`,
		`coffer_vault_key_state{state="accessible",vault="one"} 1`,
		`coffer_vault_key_coverage_ratio{key="main",vault="one"} 1`,
		`coffer_vault_spare_key{vault="one"} 0`,
		`coffer_vault_spare_key{vault="both"} 1`,
		`coffer_jobs_total{kind="backup",result="done"} 1`,
		`coffer_item_points{item="docs",vault="one"} 2`,
		fmt.Sprintf(`coffer_backup_bytes_total{item="docs",what="source"} %d`, p.Stats.SourceBytes),
		`coffer_audit_log_healthy 1`, `coffer_config_reload_successful 1`, `coffer_store_up{vault="one"} 1`,
		`coffer_notify_failing{channel="hook"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			name, _, _ := strings.Cut(want, "{")
			t.Errorf("no %s in\n%s", want, lines(text, name))
		}
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, l.dir) || strings.Contains(line, ".pem") {
			t.Errorf("a path is in %s", line)
		}
	}
	release := l.keys.hold("main")
	defer release()
	l.keys.breaks("spare", kek.ErrDenied)
	begun := time.Now()
	l.scrape()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("a scrape took %s while a key hangs", took)
	}
}

// TestDoctor: of an agent that is well nothing is bad, and what is wrong is found.
func TestDoctor(t *testing.T) {
	l := told(t)
	look := func() map[string]control.Check {
		t.Helper()
		d, err := l.Diagnose(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]control.Check)
		for _, c := range d.Checks {
			out[c.Subject+": "+c.What] = c
			if (c.Outcome == control.CheckBad || c.Outcome == control.CheckWarning) != (c.Next != "") || c.Says == "" {
				t.Errorf("%+v", c)
			}
		}
		return out
	}
	good := look()
	for _, want := range []string{"state folder: write", "state folder: owner and mode", "audit log: chain", "socket: socket", "metrics: reach", "store of one: reach and list",
		"store of one: written once", "vault one: open", "item docs: " + l.path("docs"), "item docs: points and index", "notify hook: reach"} {
		if good[want].Outcome != control.CheckGood {
			t.Errorf("%s: %+v", want, good[want])
		}
	}
	if c := good["key main: check"]; c.Outcome == control.CheckBad || c.Outcome == "" {
		t.Errorf("%+v", c)
	}
	must(t, os.Chmod(l.path("state"), 0o755))
	must(t, os.Rename(l.path("one"), l.path("one.away")))
	must(t, os.Rename(l.path("docs"), l.path("docs.away")))
	must(t, os.Chmod(l.path("main.pem"), 0o644))
	next := *l.settings
	next.Notify = map[string]config.Notify{"hook": {Webhook: &config.Webhook{URL: "http://127.0.0.1:1", TokenSource: "file:" + l.path("no-token")}}}
	l.settings = &next
	if _, err := l.ReloadConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	wrong := look()
	for _, want := range []string{"state folder: owner and mode", "store of one: reach and list", "item docs: " + l.path("docs"), "key main: check",
		"notify hook: reach", "secret: file:" + l.path("no-token")} {
		if wrong[want].Outcome != control.CheckBad {
			t.Errorf("%s: %+v", want, wrong[want])
		}
	}
	if wrong["store of both: reach and list"].Outcome != control.CheckGood {
		t.Errorf("the other store: %+v", wrong["store of both: reach and list"])
	}
}

// TestTellDeaf: a channel that takes nothing is a problem in the status.
func TestTellDeaf(t *testing.T) {
	l := told(t)
	next := *l.settings
	next.Notify = map[string]config.Notify{"deaf": {On: []string{"success"}, Webhook: &config.Webhook{URL: "http://127.0.0.1:1"}}}
	l.settings = &next
	if _, err := l.ReloadConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.done(l.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	deaf := func(p control.Problem) bool { return p.Subject == "notify deaf" && p.Next != "" }
	for range 60 {
		s, err := l.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(s.Problems, deaf) {
			if text := l.scrape(); !strings.Contains(text, "coffer_notify_failing{channel=\"deaf\"} 1\n") {
				t.Errorf("%s", lines(text, "coffer_notify"))
			}
			return
		}
		l.pass(1)
	}
	t.Error("nobody says that the channel is deaf")
}
