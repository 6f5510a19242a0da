package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/retry"
	"github.com/cofferbackup/coffer/store/s3"
)

// through starts a proxy in front of the server. Hook sees each request and
// either answers it or passes it on. The config leads to the proxy.
func through(t *testing.T, m *testkit.MinIO, prefix string, hook func(w http.ResponseWriter, r *http.Request, next http.Handler)) s3.Config {
	t.Helper()
	next := &httputil.ReverseProxy{
		ErrorLog: log.New(io.Discard, "", 0), // it complains of the faults below
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(&url.URL{Scheme: "http", Host: m.Endpoint})
			pr.Out.Host = pr.In.Host // which is signed
		},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hook(w, r, next) }))
	t.Cleanup(srv.Close)
	cfg := parse(t, m.URL("plain/"+prefix))
	cfg.Endpoint = srv.Listener.Addr().String()
	return cfg
}

func answer(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>because</Message></Error>`, code)
}

// cut ends the connection without an answer.
func cut(t *testing.T, w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.Close()
}

// impatient is a retry that waits for nothing.
func impatient(s store.Store, notify func(int, error, time.Duration)) *retry.Store {
	return retry.New(s, retry.Config{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }, Notify: notify})
}

// outage: the server answers 503 for a while.
func outage(t *testing.T, m *testkit.MinIO) {
	var left atomic.Int32
	s := open(t, through(t, m, "outage", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if left.Add(-1) >= 0 {
			answer(w, http.StatusServiceUnavailable, "SlowDown")
			return
		}
		next.ServeHTTP(w, r)
	}))
	left.Store(1)
	if err := s.Put(t.Context(), "a", nil, store.PutOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put that is answered 503: %v, want %v at once", err, store.ErrUnavailable)
	}
	if left.Load() != 0 {
		t.Errorf("the client tried %d times by itself", 1-left.Load())
	}
	var notes atomic.Int32
	patient := impatient(s, func(int, error, time.Duration) { notes.Add(1) })
	for _, op := range []func() error{
		func() error { return patient.Put(t.Context(), "a", store.Body{[]byte("x")}, store.PutOptions{}) },
		func() error { return patient.Get(t.Context(), "a", make([]byte, 1), 0) },
		func() error { _, err := patient.Stat(t.Context(), "a"); return err },
		func() error {
			for _, err := range patient.List(t.Context(), "") {
				return err
			}
			return errors.New("list yields nothing")
		},
		func() error { return patient.Delete(t.Context(), "a") },
	} {
		notes.Store(0)
		left.Store(4)
		if err := op(); err != nil || notes.Load() != 4 {
			t.Errorf("through an outage of four requests: %v, told %d times", err, notes.Load())
		}
	}
}

// cutAfterApply: the server puts the object, and the connection is cut before
// its answer comes through.
func cutAfterApply(t *testing.T, m *testkit.MinIO) {
	var armed atomic.Bool
	cfg := through(t, m, "cut", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		last := r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") || r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
		if !last || !armed.CompareAndSwap(true, false) {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			t.Errorf("the server answers %d", rec.Code)
		}
		cut(t, w)
	})
	cfg.PartSize = s3.MinPartSize
	s := open(t, cfg)
	for key, size := range map[store.Key]int{"small": 100, "parts": s3.MinPartSize + 1} {
		data := []byte(strings.Repeat("0123456789", size/10+1))
		armed.Store(true)
		if err := s.Put(t.Context(), key+"-bare", store.Body{data}, store.PutOptions{}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: put that is cut: %v", key, err)
		}
		armed.Store(true)
		if err := impatient(s, nil).Put(t.Context(), key, store.Body{data}, store.PutOptions{}); err != nil {
			t.Errorf("%s: put that is cut and tried again: %v", key, err)
		}
		for _, key := range []store.Key{key, key + "-bare"} {
			if got, err := store.ReadAll(t.Context(), s, key, 1<<30); err != nil || string(got) != string(data) {
				t.Errorf("%s: there are %d bytes, %v", key, len(got), err)
			}
		}
	}
	wantNoUploads(t, m, "plain")
}

// damage: a byte is changed on the way to the server, which must notice.
func damage(t *testing.T, m *testkit.MinIO) {
	var left atomic.Int32
	cfg := through(t, m, "damage", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && left.Add(-1) >= 0 {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			body[len(body)/2] ^= 0x10
			r.Body = io.NopCloser(strings.NewReader(string(body)))
		}
		next.ServeHTTP(w, r)
	})
	cfg.PartSize = s3.MinPartSize
	s := open(t, cfg)
	for key, size := range map[store.Key]int{"small": 100, "parts": s3.MinPartSize + 1} {
		left.Store(1)
		err := s.Put(t.Context(), key, store.Body{make([]byte, size)}, store.PutOptions{})
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: put with a changed byte: %v, want %v", key, err, store.ErrUnavailable)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s: after it: %v", key, err)
		}
		if err := impatient(s, nil).Put(t.Context(), key, store.Body{make([]byte, size)}, store.PutOptions{}); err != nil {
			t.Errorf("%s: put without: %v", key, err)
		}
	}
	wantNoUploads(t, m, "plain")
}

// answerCut: the connection ends in the middle of an object that is being read.
func answerCut(t *testing.T, m *testkit.MinIO) {
	var left atomic.Int32
	s := open(t, through(t, m, "answer", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodGet || left.Add(-1) < 0 {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		cut(t, w)
	}))
	data := strings.Repeat("0123456789", 10_000)
	put(t, s, "a", []byte(data), store.PutOptions{})
	left.Store(1)
	got := make([]byte, len(data))
	if err := s.Get(t.Context(), "a", got, 0); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("get that is cut: %v, want %v", err, store.ErrUnavailable)
	}
	left.Store(2)
	if err := impatient(s, nil).Get(t.Context(), "a", got, 0); err != nil || string(got) != data {
		t.Errorf("get that is cut twice and tried again: %v", err)
	}
}

// fake starts a server that lists nothing and answers everything else by hook.
func fake(t *testing.T, hook http.HandlerFunc) s3.Config {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Query().Has("list-type") {
			_, _ = io.WriteString(w, `<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>`)
			return
		}
		hook(w, r)
	}))
	t.Cleanup(srv.Close)
	return parse(t, "s3://"+srv.Listener.Addr().String()+"/bucket?tls=off&credentials=file:"+credsFile(t, "a-key-id\na-secret-of-some-length\n", 0o600))
}

// TestAnswers has the answers of servers of several makes.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{404, "NoSuchBucket", store.ErrMissing},
		{412, "PreconditionFailed", store.ErrExist},
		{409, "ConditionalRequestConflict", store.ErrUnavailable},
		{409, "OperationAborted", store.ErrUnavailable},
		{403, "AccessDenied", store.ErrDenied},
		{403, "InvalidAccessKeyId", store.ErrDenied},
		{403, "SignatureDoesNotMatch", store.ErrDenied},
		{403, "RequestTimeTooSkewed", store.ErrDenied},
		{400, "ExpiredToken", store.ErrDenied},
		{401, "Unheard-of", store.ErrDenied},
		{403, "Unheard-of", store.ErrDenied},
		{503, "SlowDown", store.ErrUnavailable},
		{503, "ServiceUnavailable", store.ErrUnavailable},
		{500, "InternalError", store.ErrUnavailable},
		{502, "Unheard-of", store.ErrUnavailable},
		{429, "Unheard-of", store.ErrUnavailable},
		{408, "Unheard-of", store.ErrUnavailable},
		{400, "RequestTimeout", store.ErrUnavailable},
		{400, "BadDigest", store.ErrUnavailable},
		{507, "XMinioStorageFull", store.ErrFull},
		{507, "Unheard-of", store.ErrFull},
		{400, "XMinioAdminBucketQuotaExceeded", store.ErrFull},
		{403, "QuotaExceeded", store.ErrFull},
		{501, "NotImplemented", errors.ErrUnsupported},
	} {
		s := open(t, fake(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			answer(w, c.status, c.code)
		}))
		err := s.Put(t.Context(), "items/a", store.Body{[]byte("x")}, store.PutOptions{})
		if !errors.Is(err, c.want) {
			t.Errorf("%d %s: %v, want %v", c.status, c.code, err, c.want)
		}
		if !strings.Contains(err.Error(), "put items/a in s3://127.0.0.1:") || strings.Contains(err.Error(), "a-secret-of-some-length") {
			t.Errorf("%d %s: error %q names not key and bucket, or a secret", c.status, c.code, err)
		}
	}
}

// TestLockedAtAWS: AWS answers AccessDenied to the delete of a locked version.
func TestLockedAtAWS(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for until, want := range map[time.Time]error{now.Add(time.Hour): store.ErrLocked, now.Add(-time.Hour): store.ErrDenied} {
		cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				if got := r.URL.Query().Get("versionId"); got != "v1" {
					t.Errorf("delete of version %q", got)
				}
				answer(w, http.StatusForbidden, "AccessDenied")
				return
			}
			w.Header().Set("Last-Modified", now.Format(http.TimeFormat))
			w.Header().Set("X-Amz-Version-Id", "v1")
			w.Header().Set("X-Amz-Object-Lock-Mode", "COMPLIANCE")
			w.Header().Set("X-Amz-Object-Lock-Retain-Until-Date", until.Format(time.RFC3339))
		})
		cfg.Now = func() time.Time { return now }
		if err := open(t, cfg).Delete(t.Context(), "a"); !errors.Is(err, want) {
			t.Errorf("retained until %v, now %v: %v, want %v", until, now, err, want)
		}
	}
}

// TestServerWithoutRanges must not be taken at its word.
func TestServerWithoutRanges(t *testing.T) {
	s := open(t, fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		_, _ = io.WriteString(w, "0123456789")
	}))
	if err := s.Get(t.Context(), "a", make([]byte, 3), 5); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("get at 5 of a server that answers from 0: %v", err)
	}
	got := make([]byte, 3)
	if err := s.Get(t.Context(), "a", got, 0); err != nil || string(got) != "012" {
		t.Errorf("get at 0: %q, %v", got, err)
	}
}

// TestUnsortedListing must not be relied on: a retry would pass over objects.
func TestUnsortedListing(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<ListBucketResult><IsTruncated>false</IsTruncated>`)
		for _, key := range []string{"a", "c", "b"} {
			_, _ = fmt.Fprintf(w, `<Contents><Key>%s</Key><Size>1</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>`, key)
		}
		_, _ = io.WriteString(w, `</ListBucketResult>`)
	}))
	t.Cleanup(srv.Close)
	s := open(t, parse(t, "s3://"+srv.Listener.Addr().String()+"/bucket?tls=off&credentials=file:"+credsFile(t, "a-key-id\na-secret-of-some-length\n", 0o600)))
	var last error
	for _, last = range s.List(t.Context(), "") {
	}
	if !errors.Is(last, errors.ErrUnsupported) {
		t.Errorf("the listing a, c, b ends in %v", last)
	}
}

// TestDeadPeer: a server that takes the request and then says nothing.
func TestDeadPeer(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	cfg := fake(t, func(_ http.ResponseWriter, r *http.Request) { <-release })
	t.Cleanup(func() { once.Do(func() { close(release) }) }) // before the server is closed
	s := open(t, s3.WithStall(cfg, 50*time.Millisecond))
	if err := s.Get(t.Context(), "a", make([]byte, 1), 0); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	if err := s.Put(t.Context(), "a", store.Body{make([]byte, 32<<20)}, store.PutOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put, which nobody reads: %v", err)
	}
	// And with all the patience there is, a caller can leave.
	s = open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Get(ctx, "a", make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("get that the caller gives up: %v", err)
	}
}

// TestSlowPeer: a server that is slow and alive is waited for.
func TestSlowPeer(t *testing.T) {
	const stall = 200 * time.Millisecond
	s := open(t, s3.WithStall(fake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", "8")
		tick := time.NewTicker(stall / 4)
		defer tick.Stop()
		for range 8 { // twice as long as the stall in all
			<-tick.C
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		}
	}), stall))
	if err := s.Get(t.Context(), "a", make([]byte, 8), 0); err != nil {
		t.Error(err)
	}
}

func TestUnreachableHost(t *testing.T) {
	// A port that accepts and never speaks, as a firewall in the way does with TLS.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	cfg := parse(t, "s3://"+l.Addr().String()+"/bucket?credentials=file:"+credsFile(t, "a-key-id\na-secret-of-some-length\n", 0o600))
	if _, err := s3.Open(t.Context(), s3.WithStall(cfg, 50*time.Millisecond)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
}
