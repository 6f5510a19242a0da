//go:build linux

package main_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// onS3 is plain with its vault in a bucket, and what else the vault says.
func onS3(store, more string) string {
	return strings.Replace(plain, `store: "file://$DIR/vault"`, `store: "`+store+`"`+more, 1)
}

// TestLockedBucket is a day with the key in an HSM and the vault in a bucket that
// refuses to delete.
func TestLockedBucket(t *testing.T) {
	server := testkit.StartMinIO(t, testkit.MinIOOptions{TLS: true})
	server.Bucket(t, "backups", testkit.BucketOptions{ObjectLock: true})
	tok := testkit.SoftHSM(t)
	config := onS3(server.URL("backups"), ", lock: {days: 2, mode: compliance}")
	h := newHost(t, strings.Replace(config, "file://$DIR/kek.pem", tok.URI("coffer-kek"), 1))
	furnish(t, h.path("docs"))
	h.start()
	h.coffer("key", "create", "main").done()
	id := fromJSON[control.VaultCreated](h.coffer("vault", "create", "local", "--json").done()).ID
	first := h.backup("docs")
	h.coffer("verify").done()
	h.coffer("restore", "docs@"+first.ID, h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
	h.coffer("status").says(control.ExitDone, "accessible")
	h.stop()

	points := 0
	for o := range server.Client(t).ListObjects(t.Context(), "backups", minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		mode, until, err := server.Client(t).GetObjectRetention(t.Context(), "backups", o.Key, "")
		if strings.Contains(o.Key, "/points/") {
			points++
		}
		session := strings.Contains(o.Key, "/sessions/") // no point needs it
		if !session && (err != nil || *mode != minio.Compliance || until.Before(first.Time.AddDate(0, 0, 2))) {
			t.Errorf("%s is not under retention: %v", o.Key, err)
		}
	}
	if points != 1 {
		t.Errorf("%d points are in the bucket, want 1", points)
	}
	rescue := []string{"rescue", "--store", server.URL("backups"), "--vault-id", id, "--key", tok.URI("coffer-kek")}
	h.run(nil, "cofferd", append(rescue, "ls")...).says(control.ExitDone, first.ID, "docs")
	h.run(nil, "cofferd", append(rescue, "restore", "docs", h.path("saved"))...).done()
	sameTree(t, h.path("docs"), h.path("saved", h.path("docs")))
}

// TestNoBucket has a bucket that is not there, and wrong credentials.
func TestNoBucket(t *testing.T) {
	server := testkit.StartMinIO(t, testkit.MinIOOptions{})
	h := newHost(t, onS3(server.URL("nowhere"), ""))
	fill(t, h.path("docs"), 1, 1, 10)
	h.start()
	h.coffer("key", "create", "main").done()
	h.coffer("vault", "create", "local").fails(control.ExitFailed, "there is no bucket nowhere", "make it, or correct the store URL")
	server.Bucket(t, "nowhere", testkit.BucketOptions{})
	h.coffer("vault", "create", "local").done() // without a restart
	h.backup("docs")
	h.stop()

	h.write("wrong", server.AccessKey+"\nnot-the-secret\n")
	h.configure(strings.Replace(onS3(server.URL("nowhere"), ""), url.QueryEscape(server.CredsFile), "$DIR/wrong", 1))
	h.start()
	h.coffer("backup", "docs").fails(control.ExitFailed, "check the store's credentials")
}

// TestUnreachableStore has nobody at the store's address: an alarm, and a fault
// that comes soon.
func TestUnreachableStore(t *testing.T) {
	closed := httptest.NewServer(nil)
	address := closed.Listener.Addr().String()
	closed.Close()
	h := newHost(t, onS3("s3://"+address+"/backups?tls=off&credentials=file:$DIR/creds", ", id: um67exii4hwaseiem3i4q4dw57sqvw7h"))
	h.write("creds", "somebody\nsomething\n")
	h.start()
	h.coffer("key", "create", "main").done()
	h.coffer("status").says(control.ExitDone, "store does not answer", address)
	h.coffer("backup", "docs").fails(control.ExitFailed, "store does not answer", "see that the store is up")
	h.coffer("point", "list", "docs").fails(control.ExitFailed, "store does not answer")
}

// outage is a store that answers 503 when it is down.
type outage struct {
	*httptest.Server
	down    atomic.Bool
	refused atomic.Int64
}

func newOutage(t testing.TB, server *testkit.MinIO) *outage {
	t.Helper()
	to := &url.URL{Scheme: "http", Host: server.Endpoint}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}}
	o := &outage{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.down.Load() {
			o.refused.Add(1)
			http.Error(w, "come back later", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

// TestOutage has a store that is down for a while in the middle of a day: jobs wait
// for it and end well, the agent says what it waits for, and can be asked for its
// status, cancel and stop meanwhile.
func TestOutage(t *testing.T) {
	server := testkit.StartMinIO(t, testkit.MinIOOptions{})
	server.Bucket(t, "backups", testkit.BucketOptions{})
	o := newOutage(t, server)
	h := newHost(t, onS3(strings.Replace(server.URL("backups"), server.Endpoint, o.Listener.Addr().String(), 1), ""))
	furnish(t, h.path("docs"))
	h.ready()

	o.down.Store(true)
	job := h.detached("backup", "docs")
	until(t, "the backup was told to come back", func() bool { return o.refused.Load() >= 3 })
	if j := h.job(job); j.State != control.JobRunning {
		t.Fatalf("the job is %s", j.State)
	}
	if !strings.Contains(h.read(h.daemon.log), "store does not answer, trying again") {
		t.Error("the log does not say what it waits for")
	}
	h.coffer("status").says(control.ExitDone, "store does not answer")
	h.coffer("vault", "list").done()
	o.down.Store(false)
	h.coffer("job", "watch", itoa(int(job))).done()
	h.coffer("verify", "docs").done()
	h.coffer("restore", "docs", h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))

	o.down.Store(true)
	job = h.detached("backup", "docs")
	seen := o.refused.Load()
	until(t, "the backup was told to come back", func() bool { return o.refused.Load() > seen })
	h.coffer("job", "cancel", itoa(int(job))).done()
	until(t, "the job ends", func() bool { return h.job(job).State == control.JobCancelled })
	job = h.detached("backup", "docs")
	seen = o.refused.Load()
	until(t, "the backup was told to come back", func() bool { return o.refused.Load() > seen })
	must(t, h.daemon.cmd.Process.Signal(syscall.SIGTERM))
	if code := h.daemon.wait(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	o.down.Store(false)
	h.start()
	if j := h.job(job); j.State != control.JobCancelled {
		t.Errorf("the job is %s", j.State)
	}
	h.backup("docs")
}
