package control_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/controltest"
)

var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// world is a backend with something of everything.
func world() *controltest.Backend {
	return &controltest.Backend{
		Now:  start,
		Host: "web1",
		VaultList: []control.Vault{
			{Name: "site", ID: "abc", Store: "s3://host/bucket", State: control.StateAccessible, Checked: start},
			{Name: "new", Store: "file:///srv/new", State: control.StateAbsent},
		},
		KeyList:   []control.Key{{Name: "main", URI: "pkcs11:token=backup", Provider: "pkcs11", Bits: 3072}},
		ItemList:  []control.Item{{Name: "etc", Vault: "site", Kind: "files", LastGood: start}},
		PointList: []control.Point{{ID: "p1", Item: "etc", Time: start}, {ID: "p2", Item: "etc", Time: start.Add(time.Hour)}, {ID: "p3", Item: "etc", Time: start, Holds: []control.Hold{{ID: "h1", Owner: "legal"}}}},
		Files: []control.Entry{
			{Path: "/etc", Type: "dir", Mode: 0o755, MTime: start},
			{Path: "/etc/\xff\xfe", Type: "symlink", MTime: start, Target: "to\xff"},
		},
		Differ: []control.DiffEntry{{Path: "/etc/\xff", Change: control.Changed, Type: "file", What: []string{"mode"}}},
		Bytes:  map[string][]byte{"/etc/\xff": []byte("content"), "/etc/broken": []byte("half")},
		Breaks: map[string]error{"/etc/broken": &control.Error{Code: control.CodeDamaged, Message: "pack x is damaged"}},
		Usages: map[string]control.KeyUsage{"main": {Key: "main", Versions: []control.VersionUsage{
			{Version: "v2", InUse: true, Secrets: 3, Total: 3, Lost: []control.LostItem{{Vault: "site", Item: "etc", Points: 2, First: start}}},
			{Version: "v/1", Fingerprint: "ab", Total: 3, Lost: []control.LostItem{}, Retirable: true},
		}}},
		Erasures: map[string]control.ItemErased{"etc": {Item: "etc", Secrets: 2, Locked: 7, LockedKeys: 1, LockedUntil: start}},
		PolicyList: []control.Policy{{
			Name: "nightly", Items: []control.PolicyItem{{Item: "etc", Failures: 2, Error: &control.Error{Code: control.CodeStore, Message: "x"}}},
			Next: []time.Time{start}, Retention: "last 3",
		}},
		Explained: map[string]control.Explanation{"nightly": {Points: []control.PointFate{{Item: "etc", Point: "p1", Time: start, Keep: true, Reasons: []string{"last 1"}}}}},
		Diagnosis: control.Diagnosis{Checks: []control.Check{{Subject: "key main", What: "unwrap", Outcome: control.CheckBad, Next: "mend it"}}},
		Reload:    control.ConfigReport{Problems: []control.ConfigProblem{{Field: "agent.state", Message: "it is fixed"}}},
		Audit:     control.AuditReport{Path: "/var/lib/coffer/audit", Files: 1, Lines: 9, First: start, Head: "ab", Faults: []string{"line 3"}},
	}
}

type running struct {
	*control.Client
	socket string
	logs   *bytes.Buffer // read it after stop
	stop   func()
}

// serve starts a server for b on a real socket.
func serve(t *testing.T, b control.Backend, role func(control.Peer) control.Role) *running {
	t.Helper()
	return serveWith(t, control.ServerConfig{Backend: b, Role: role})
}

// serveWith starts a server on a real socket, for the test's own user unless the
// config has a Role.
func serveWith(t *testing.T, cfg control.ServerConfig) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "coffer") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "run", "coffer.sock")
	l, err := control.Listen(t.Context(), socket, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Role == nil {
		cfg.Role = control.Access{UID: uint32(os.Geteuid())}.Role
	}
	r := &running{socket: socket, logs: &bytes.Buffer{}, Client: control.NewClient(control.ClientConfig{Socket: socket})}
	cfg.Logger, cfg.Version = slog.New(slog.NewTextHandler(r.logs, nil)), "0.1.0"
	srv := control.NewServer(cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, l) }()
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(func() { r.Close(); r.stop() })
	return r
}

func collect[T any](seq func(func(T, error) bool)) ([]T, error) {
	var out []T
	for v, err := range seq {
		if err != nil {
			return out, err
		}
		out = append(out, v)
	}
	return out, nil
}

func same[T any](t *testing.T, what string) func(got T, err error) func(want T, wantErr error) {
	return func(got T, err error) func(T, error) {
		return func(want T, wantErr error) {
			t.Helper()
			if err != nil || wantErr != nil {
				t.Errorf("%s: errors %v, %v", what, err, wantErr)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
			}
		}
	}
}

// TestClientIsBackend asks every method through the socket and directly: the
// answers are the same.
func TestClientIsBackend(t *testing.T) {
	b, ctx := world(), t.Context()
	c := serve(t, b, nil)
	same[control.Status](t, "status")(c.Status(ctx))(b.Status(ctx))
	same[control.Version](t, "version")(c.Version(ctx))(b.Version(ctx))
	check := control.ConfigCheck{Name: "x", Text: "agent: {}"}
	same[control.ConfigReport](t, "config")(c.CheckConfig(ctx, check))(b.CheckConfig(ctx, check))
	same[[]control.Vault](t, "vaults")(c.Vaults(ctx))(b.Vaults(ctx))
	same[control.Vault](t, "vault")(c.Vault(ctx, "site"))(b.Vault(ctx, "site"))
	create := control.VaultCreate{Name: "new"}
	same[control.VaultCreated](t, "create vault")(c.CreateVault(ctx, create))(b.CreateVault(ctx, create))
	same[[]control.Key](t, "keys")(c.Keys(ctx))(b.Keys(ctx))
	key := control.KeyCreate{Name: "main", Bits: 4096}
	same[control.Key](t, "create key")(c.CreateKey(ctx, key))(b.CreateKey(ctx, key))
	preflight := control.KeyCheckRequest{Key: "main"}
	same[control.KeyReport](t, "check key")(c.CheckKey(ctx, preflight))(b.CheckKey(ctx, preflight))
	for _, version := range []string{"", "v/1"} {
		usage := control.KeyUsageRequest{Key: "main", Version: version}
		same[control.KeyUsage](t, "key usage")(c.KeyUsage(ctx, usage))(b.KeyUsage(ctx, usage))
	}
	link := control.KeyLink{Vault: "site", URI: "file:///old.pem", RestoreOnly: true}
	same[control.Vault](t, "link key")(c.LinkKey(ctx, link))(b.LinkKey(ctx, link))
	again := control.KeyRevalidate{Vault: "site"}
	same[control.Vault](t, "revalidate")(c.Revalidate(ctx, again))(b.Revalidate(ctx, again))
	erase := control.ItemErase{Item: "etc", Confirm: "etc"}
	same[control.ItemErased](t, "erase item")(c.EraseItem(ctx, erase))(b.EraseItem(ctx, erase))
	audit := control.AuditVerify{Head: "cd"}
	same[control.AuditReport](t, "verify audit")(c.VerifyAudit(ctx, audit))(b.VerifyAudit(ctx, audit))
	same[[]control.Item](t, "items")(c.Items(ctx))(b.Items(ctx))
	same[control.Item](t, "item")(c.Item(ctx, "etc"))(b.Item(ctx, "etc"))
	for _, points := range []control.PointsRequest{{Item: "etc"}, {Item: "etc", Last: 1}, {}} {
		same[[]control.Point](t, "points")(collect(c.Points(ctx, points)))(collect(b.Points(ctx, points)))
	}
	same[control.Point](t, "point")(c.Point(ctx, "etc", "p1"))(b.Point(ctx, "etc", "p1"))
	entries := control.EntriesRequest{Item: "etc", Point: "p1", Path: "/etc", Recursive: true}
	same[[]control.Entry](t, "entries")(collect(c.Entries(ctx, entries)))(collect(b.Entries(ctx, entries)))
	diff := control.DiffRequest{Item: "etc", From: "p1", To: "p2"}
	same[[]control.DiffEntry](t, "diff")(collect(c.Diff(ctx, diff)))(collect(b.Diff(ctx, diff)))
	same[control.Diagnosis](t, "doctor")(c.Diagnose(ctx))(b.Diagnose(ctx))
	same[control.ConfigReport](t, "reload")(c.ReloadConfig(ctx))(b.ReloadConfig(ctx))
	same[[]control.Policy](t, "policies")(c.Policies(ctx))(b.Policies(ctx))
	same[control.Explanation](t, "explain")(c.Explain(ctx, "nightly"))(b.Explain(ctx, "nightly"))
	hold := control.PointHold{Item: "etc", Point: "p1", Owner: "legal", Reason: "case 4711"}
	same[control.Hold](t, "hold")(c.HoldPoint(ctx, hold))(b.HoldPoint(ctx, hold))
	release := control.PointRelease{Item: "etc", Point: "p3", Hold: "h1"}
	same[control.Point](t, "release")(c.ReleasePoint(ctx, release))(b.ReleasePoint(ctx, release))
	forget := control.PointForget{Item: "etc", Points: []string{"p1", "p2"}}
	same[[]control.Point](t, "forget")(c.ForgetPoints(ctx, forget))(b.ForgetPoints(ctx, forget))
	if c.AgentVersion() != "0.1.0" {
		t.Errorf("agent version is %q", c.AgentVersion())
	}
}

func TestJobs(t *testing.T) {
	b, ctx := world(), t.Context()
	b.Script = func(kind, _ string) controltest.Play {
		p := controltest.Play{Events: []control.Event{
			{Progress: &control.Progress{Phase: "reading", Bytes: 10, BytesTotal: 20}},
			{Note: &control.Note{Level: "warn", Message: "hm"}},
		}, End: control.Job{State: control.JobDone, Skips: []control.Skip{{Path: "/x", Reason: "denied"}}}}
		p.Waits = kind == control.KindVerify
		return p
	}
	c := serve(t, b, nil)
	want := control.RestoreRequest{Item: "etc", Target: "/srv/\xff", Paths: []string{"/a", "/b\xfe"}, Patterns: []string{"*.go"}, Delete: true}
	j, err := c.Restore(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Asked(); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("the agent was asked %+v", got)
	}
	if j.By != fmt.Sprintf("uid %d", os.Geteuid()) {
		t.Errorf("the job was started by %q", j.By)
	}
	events, err := collect(c.Events(ctx, j.ID, 0))
	if err != nil || len(events) != 4 || events[0].Job.State != control.JobRunning || events[3].Job.State != control.JobDone {
		t.Errorf("events %+v, %v", events, err)
	}
	again, err := collect(c.Events(ctx, j.ID, events[3].Seq))
	if err != nil || len(again) != 1 || !again[0].Job.State.Ended() {
		t.Errorf("events after the end: %+v, %v", again, err)
	}
	if got, err := c.Job(ctx, j.ID); err != nil || len(got.Skips) != 1 {
		t.Errorf("job %+v, %v", got, err)
	}

	v, err := c.Verify(ctx, control.VerifyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range c.Events(ctx, v.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Note != nil {
			if err := c.Cancel(ctx, v.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := c.Jobs(ctx, control.JobFilter{State: control.JobCancelled})
	if err != nil || len(list) != 1 || list[0].ID != v.ID {
		t.Errorf("cancelled jobs: %+v, %v", list, err)
	}
}

// TestWatcherLeaves: a caller that goes away while it follows a job is noticed.
func TestWatcherLeaves(t *testing.T) {
	b := world()
	b.Script = func(string, string) controltest.Play { return controltest.Play{Waits: true} }
	c := serve(t, b, nil)
	j, err := c.Backup(t.Context(), control.BackupRequest{Item: "etc"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range c.Events(ctx, j.ID, 0) {
		last = err
		cancel()
	}
	if control.CodeOf(last) != control.CodeCancelled {
		t.Errorf("the stream ended with %v", last)
	}
	c.stop() // would wait for the handler
}

// TestForeignAnswer: what is not an agent is called so.
func TestForeignAnswer(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 301 Moved\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	} {
		if _, err := agentThat(t, answer).Status(t.Context()); control.CodeOf(err) != control.CodeProtocol {
			t.Errorf("%q: %v", answer, err)
		}
	}
	if _, err := agentThat(t, "SSH-2.0-x\r\n").Status(t.Context()); control.CodeOf(err) != control.CodeTorn {
		t.Errorf("an answer that is not HTTP: %v", err)
	}
}

// TestRequestsRefused sends what no Client sends.
func TestRequestsRefused(t *testing.T) {
	c := serve(t, world(), nil)
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	}}}
	tests := []struct {
		name, method, url, body string
		header                  [2]string
		status                  int
	}{
		{name: "curl", method: "GET", url: "http://localhost/v1/status", status: 200},
		{name: "foreign host", method: "GET", url: "http://evil.example/v1/status", status: 403},
		{name: "port", method: "GET", url: "http://localhost:80/v1/status", status: 403},
		{name: "origin", method: "GET", url: "http://coffer/v1/status", header: [2]string{"Origin", "http://x"}, status: 403},
		{name: "referer", method: "GET", url: "http://coffer/v1/status", header: [2]string{"Referer", "http://x"}, status: 403},
		{name: "no such path", method: "GET", url: "http://coffer/v2/status", status: 404},
		{name: "wrong method", method: "DELETE", url: "http://coffer/v1/status", status: 404},
		{name: "unknown field", method: "POST", url: "http://coffer/v1/backup", body: `{"item":"etc","itme":1}`, status: 400},
		{name: "unknown field, own decoder", method: "POST", url: "http://coffer/v1/restore", body: `{"item":"etc","target":"/x","x":1}`, status: 400},
		{name: "two objects", method: "POST", url: "http://coffer/v1/backup", body: `{"item":"etc"}{}`, status: 400},
		{name: "no object", method: "POST", url: "http://coffer/v1/backup", body: ``, status: 400},
		{name: "wrong type", method: "POST", url: "http://coffer/v1/backup", body: `{"item":7}`, status: 400},
		{name: "relative target", method: "POST", url: "http://coffer/v1/restore", body: `{"item":"etc","target":"x"}`, status: 400},
		{name: "overwrite", method: "POST", url: "http://coffer/v1/restore", body: `{"item":"etc","target":"/x","overwrite":"maybe"}`, status: 400},
		{name: "paths_raw", method: "POST", url: "http://coffer/v1/restore", body: `{"item":"etc","target":"/x","paths_raw":["aa"]}`, status: 400},
		{name: "level", method: "POST", url: "http://coffer/v1/verify", body: `{"level":"deep"}`, status: 400},
		{name: "link to wrap", method: "POST", url: "http://coffer/v1/keys/link", body: `{"vault":"site","uri":"file:///x"}`, status: 400},
		{name: "link nothing", method: "POST", url: "http://coffer/v1/keys/link", body: `{"vault":"site","restore_only":true}`, status: 400},
		{name: "lower mode", method: "POST", url: "http://coffer/v1/vaults/mode", body: `{"vault":"site","mode":"software"}`, status: 400},
		{name: "no mode", method: "POST", url: "http://coffer/v1/vaults/mode", body: `{"vault":"site"}`, status: 400},
		{name: "erase unconfirmed", method: "POST", url: "http://coffer/v1/items/erase", body: `{"item":"etc"}`, status: 400},
		{name: "erase another", method: "POST", url: "http://coffer/v1/items/erase", body: `{"item":"etc","confirm":"Etc"}`, status: 400},
		{name: "erase nothing", method: "POST", url: "http://coffer/v1/items/erase", body: `{"item":"","confirm":""}`, status: 400},
		{name: "rotate with more", method: "POST", url: "http://coffer/v1/keys/rotate", body: `{"vault":"site","force":true}`, status: 400},
		{name: "hold of nobody", method: "POST", url: "http://coffer/v1/points/hold", body: `{"item":"etc","point":"p1","owner":" ","reason":"x"}`, status: 400},
		{name: "hold without a reason", method: "POST", url: "http://coffer/v1/points/hold", body: `{"item":"etc","point":"p1","owner":"legal"}`, status: 400},
		{name: "forget no points", method: "POST", url: "http://coffer/v1/points/forget", body: `{"item":"etc"}`, status: 400},
		{name: "forget whichever", method: "POST", url: "http://coffer/v1/points/forget", body: `{"item":"etc","points":["p1",""]}`, status: 400},
		{name: "forget a held one", method: "POST", url: "http://coffer/v1/points/forget", body: `{"item":"etc","points":["p3"]}`, status: 409},
		{name: "forget all", method: "POST", url: "http://coffer/v1/points/forget", body: `{"item":"db","points":[]}`, status: 400},
		{name: "explain no policy", method: "GET", url: "http://coffer/v1/policies/none/explain", status: 404},
		{name: "part too large", method: "POST", url: "http://coffer/v1/verify", body: `{"part":101}`, status: 400},
		{name: "part of the structure", method: "POST", url: "http://coffer/v1/verify", body: `{"part":5,"level":"structure"}`, status: 400},
		{name: "proof restore of a part", method: "POST", url: "http://coffer/v1/verify", body: `{"item":"etc","part":5,"restore":true}`, status: 400},
		{name: "a body where none belongs", method: "POST", url: "http://coffer/v1/doctor", body: `{}`, status: 400},
		{name: "a body to look", method: "GET", url: "http://coffer/v1/status", body: `{}`, status: 400},
		{name: "deep arrays", method: "POST", url: "http://coffer/v1/restore", body: strings.Repeat("[", 1<<15), status: 400},
		{name: "deep objects", method: "POST", url: "http://coffer/v1/backup", body: strings.Repeat(`{"item":`, 1<<14), status: 400},
		{name: "deep in a field", method: "POST", url: "http://coffer/v1/backup", body: `{"tags":` + strings.Repeat("[", 1<<15) + `}`, status: 400},
		{name: "no end of numbers", method: "POST", url: "http://coffer/v1/verify", body: `{"part":1e` + strings.Repeat("9", 1<<10) + `}`, status: 400},
		{name: "usage of no key", method: "GET", url: "http://coffer/v1/keys/none/usage", status: 404},
		{name: "job number", method: "GET", url: "http://coffer/v1/jobs/x", status: 400},
		{name: "limit", method: "GET", url: "http://coffer/v1/jobs?limit=x", status: 400},
		{name: "after", method: "GET", url: "http://coffer/v1/jobs/1/events?after=x", status: 400},
		{name: "huge body", method: "POST", url: "http://coffer/v1/backup", body: `{"item":"` + strings.Repeat("x", 8<<20) + `"}`, status: 400},
		{name: "huge header", method: "GET", url: "http://coffer/v1/status?x=" + strings.Repeat("x", 1<<20), status: 431},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, tt.url, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.header[0] != "" {
				req.Header.Set(tt.header[0], tt.header[1])
			}
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, tt.status, b)
			}
			if tt.status >= 400 && tt.status != 431 && !bytes.HasPrefix(b, []byte(`{"error":{"code":"`)) {
				t.Errorf("the error is %s", b)
			}
		})
	}
}

// panicky is an agent with a bug.
type panicky struct{ *controltest.Backend }

func (panicky) Status(context.Context) (control.Status, error) { panic("oh") }

func TestPanicIsAnError(t *testing.T) {
	c := serve(t, panicky{world()}, nil)
	if _, err := c.Status(t.Context()); control.CodeOf(err) != control.CodeInternal {
		t.Errorf("status: %v", err)
	}
	if _, err := c.Version(t.Context()); err != nil {
		t.Errorf("the agent does not go on: %v", err)
	}
	c.stop()
	if !strings.Contains(c.logs.String(), "panic=oh") {
		t.Errorf("the log says %s", c.logs)
	}
}
