package notify_test

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// request is what a server got.
type request struct {
	method, path, token, kind, body, extra string
}

// serve is a server of TLS that answers with status, and the file of its authority.
func serve(t *testing.T, answer http.HandlerFunc) (server *httptest.Server, ca string, got chan request) {
	t.Helper()
	got = make(chan request, 100)
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- request{r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body), r.Header.Get("X-Extra")}
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return server, ca, got
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWebhook: a template, headers, and a token that is read anew each time.
func TestWebhook(t *testing.T) {
	server, ca, got := serve(t, nil)
	token := secretFile(t, "first")
	b := newBench(t)
	b.use(map[string]config.Notify{"hook": {Body: `{"text": {{json .Message}}}`, Webhook: &config.Webhook{
		URLSource: "file:" + secretFile(t, server.URL+"/secret-path"), TokenSource: "file:" + token, CA: ca, Headers: map[string]string{"X-Extra": "yes"}}}})
	b.start()
	b.fail("etc", notify.Again)
	want := request{"POST", "/secret-path", "Bearer first", "application/json", `{"text": "it failed"}`, "yes"}
	if r := <-got; r != want {
		t.Errorf("%+v", r)
	}
	if err := os.WriteFile(token, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.fail("vm1", notify.Again)
	if r := <-got; r.token != "Bearer second" {
		t.Errorf("%+v", r)
	}
}

// TestWebhookRefuses: no token and no notice goes where it was not meant to go, and no
// secret is in what is said of it.
func TestWebhookRefuses(t *testing.T) {
	other, _, stolen := serve(t, nil)
	away, ca, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/stolen", http.StatusTemporaryRedirect)
	})
	found, foundCA, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) })
	long, longCA, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, strings.Repeat("no ", 100000))
	})
	token, gone := "file:"+secretFile(t, "hunter2"), filepath.Join(t.TempDir(), "gone")
	secretURL := func(u string) string { return "file:" + secretFile(t, u+"/s3cret") }
	for name, test := range map[string]struct {
		hook  config.Webhook
		fault string
	}{
		"redirect away": {config.Webhook{URLSource: secretURL(away.URL), TokenSource: token, CA: ca}, "307"},
		"login page":    {config.Webhook{URLSource: secretURL(found.URL), TokenSource: token, CA: foundCA}, "302"},
		"untrusted":     {config.Webhook{URLSource: secretURL(away.URL), TokenSource: token}, "certificate"},
		"long answer":   {config.Webhook{URLSource: secretURL(long.URL), TokenSource: token, CA: longCA}, "403"},
		"nobody there":  {config.Webhook{URLSource: secretURL("https://127.0.0.1:1"), TokenSource: token}, "refused"},
		"plain token":   {config.Webhook{URLSource: secretURL("http://192.0.2.1"), TokenSource: token}, "https alone"},
		"no url":        {config.Webhook{URLSource: "file:" + secretFile(t, "s3cret hunter2")}, "https://host/path"},
		"no secret":     {config.Webhook{URL: away.URL, TokenSource: "file:" + gone}, "no such file"},
		"no authority":  {config.Webhook{URL: away.URL, CA: gone}, "read authorities"},
		"bad authority": {config.Webhook{URL: away.URL, CA: secretFile(t, "not PEM")}, "no certificate in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.use(map[string]config.Notify{"hook": {Webhook: &test.hook}})
			b.start()
			b.fail("etc", notify.Again)
			b.until(func() bool { return b.channel("hook").Error != "" })
			said := b.channel("hook").Error
			if !strings.Contains(said, test.fault) || len(said) > 1000 {
				t.Errorf("%q, want %q", said, test.fault)
			}
			b.stop()
			for _, secret := range []string{"hunter2", "s3cret"} {
				if strings.Contains(said+b.log.String(), secret) {
					t.Errorf("%q is in %q or in the log %s", secret, said, b.log)
				}
			}
		})
	}
	select {
	case r := <-stolen:
		t.Errorf("the other server got %+v", r)
	default:
	}
}

// TestRedirectOnTheSpot: the same server may have the notice at another path.
func TestRedirectOnTheSpot(t *testing.T) {
	server, ca, got := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/new" {
			http.Redirect(w, r, "/new", http.StatusPermanentRedirect)
		}
	})
	b := newBench(t)
	b.use(map[string]config.Notify{"hook": {Body: "{{.Subject}}", Webhook: &config.Webhook{URL: server.URL + "/old", CA: ca}}})
	b.start()
	b.fail("etc", notify.Again)
	<-got
	if r := <-got; r.path != "/new" || r.body != "etc" || r.method != "POST" || !strings.HasPrefix(r.kind, "text/plain") {
		t.Errorf("%+v", r)
	}
}

// TestPing: the signals come in order, of the items that are watched, also when the
// service was away for a while; and not when nobody needs them any more.
func TestPing(t *testing.T) {
	status := make(chan int, 100)
	server, ca, got := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-status) })
	b := newBench(t)
	b.use(map[string]config.Notify{"dead": {Items: []string{"etc"}, Ping: &config.Ping{URL: server.URL + "/uuid/", CA: ca}}})
	b.start()
	var paths []string
	next := func(answer int) {
		t.Helper()
		status <- answer
		select {
		case r := <-got:
			paths = append(paths, r.method+" "+r.path)
		case <-time.After(20 * time.Second):
			t.Fatal("no ping")
		}
	}
	b.Ping("vm1", notify.Started)
	b.Ping("etc", notify.Started)
	b.Ping("etc", notify.Finished)
	next(http.StatusOK)
	next(http.StatusInternalServerError)
	b.until(func() bool { return b.channel("dead").Failures == 1 })
	b.clock.advance(time.Minute)
	b.Ping("etc", notify.Failed)
	next(http.StatusOK)
	next(http.StatusOK)
	if want := []string{"GET /uuid/start", "GET /uuid", "GET /uuid", "GET /uuid/fail"}; !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
	b.until(func() bool { return b.channel("dead").Sent == 3 })
	b.Ping("etc", notify.Started)
	next(http.StatusInternalServerError)
	b.until(func() bool { return b.channel("dead").Failures == 2 })
	b.clock.advance(2 * time.Hour)
	b.Ping("etc", notify.Finished)
	paths = nil
	next(http.StatusOK)
	if !slices.Equal(paths, []string{"GET /uuid"}) {
		t.Errorf("%q", paths)
	}
}

// TestBadTemplate: what a template cannot say is told without it.
func TestBadTemplate(t *testing.T) {
	server, ca, got := serve(t, nil)
	b := newBench(t)
	b.use(map[string]config.Notify{"hook": {Body: "{{index .Message 1000}}", Webhook: &config.Webhook{URL: server.URL, CA: ca}}})
	b.start()
	b.fail("etc", notify.Again)
	if r := <-got; !strings.HasPrefix(r.body, "etc: it failed") {
		t.Errorf("%+v", r)
	}
	b.stop()
	if !strings.Contains(b.log.String(), "the standard text is used") {
		t.Error(b.log)
	}
}

// TestCheck: the doctor's look at a channel tells nobody anything.
func TestCheck(t *testing.T) {
	server, ca, got := serve(t, nil)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	b := newBench(t)
	b.start()
	for name, test := range map[string]struct {
		cfg   config.Notify
		fault string
	}{
		"webhook":   {config.Notify{Webhook: &config.Webhook{URL: server.URL, CA: ca}}, ""},
		"ping":      {config.Notify{Ping: &config.Ping{URL: server.URL, CA: ca}}, ""},
		"command":   {config.Notify{Command: []string{script}}, ""},
		"untrusted": {config.Notify{Webhook: &config.Webhook{URL: server.URL}}, "certificate"},
		"refused":   {config.Notify{Ping: &config.Ping{URL: "http://127.0.0.1:1/x"}}, "refused"},
		"no token":  {config.Notify{Webhook: &config.Webhook{URL: server.URL, CA: ca, TokenSource: "file:" + gone}}, "no such file"},
		"template":  {config.Notify{Body: "{{.X}}", Command: []string{script}}, "can't evaluate field X"},
		"no script": {config.Notify{Command: []string{gone}}, "no such file"},
		"not run":   {config.Notify{Command: []string{ca}}, "cannot be run"},
		"by others": {config.Notify{Command: []string{open}}, "can be changed by others"},
		"nothing":   {config.Notify{}, "neither"},
	} {
		err := b.Check(t.Context(), test.cfg)
		if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("%s: %v, want %q", name, err, test.fault)
		}
	}
	if len(got) > 0 {
		t.Errorf("the server was told %+v", <-got)
	}
}

// TestNoticeFilled: host and time are the agent's, and no text is without bounds.
func TestNoticeFilled(t *testing.T) {
	b := newBench(t)
	b.start()
	b.Report(notify.Report{About: "a", Notice: message.Notice{Kind: message.Alarm, Subject: "a", Message: strings.Repeat("x", 1<<20)}})
	if m := <-b.got; m.Host != "web1" || !m.Time.Equal(b.clock.Now()) || len(m.Message) > 5000 {
		t.Errorf("host %q, time %s, %d bytes", m.Host, m.Time, len(m.Message))
	}
}
