//go:build linux

package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store/dir"
)

// TestRefusingBucket is the life of a vault in a bucket that refuses overwriting and
// deleting to everybody, with credentials that may only list, read and put: backups,
// one that dies in the middle, every kind of reading, a rotation, and the end of the
// host that it was all made on.
func TestRefusingBucket(t *testing.T) {
	server := testkit.StartMinIO(t, testkit.MinIOOptions{})
	server.Bucket(t, "backups", testkit.BucketOptions{Keep: 1})
	least := server.Allow(t, "backups", "s3:ListBucket", "s3:GetObject", "s3:PutObject")
	url := server.As(least, server.URL("backups"))
	h := newHost(t, onS3(url, ""))
	furnish(t, h.path("docs"))
	id := h.ready()
	first := h.backup("docs")
	fill(t, h.path("docs", "second"), 3, 30, 20_000)
	h.backup("docs")

	// Another dies in the middle, and is made again on what it left.
	fill(t, h.path("docs", "third"), 4, 4, 8<<20)
	before := inBucket(t, server, "backups", "/packs/")
	h.detached("backup", "docs")
	until(t, "a pack more is stored", func() bool { return inBucket(t, server, "backups", "/packs/") > before })
	must(t, h.daemon.cmd.Process.Signal(syscall.SIGKILL))
	h.daemon.wait(t)
	h.daemon = nil
	h.start()
	h.backup("docs")

	h.coffer("verify").done()
	h.coffer("key", "rotate", "local", "--new-generation").done()
	fill(t, h.path("docs", "fourth"), 5, 3, 1000)
	last := h.backup("docs")
	h.run([]byte("a stream"), "coffer", "backup", "pipe", "--stdin").done()
	h.coffer("verify").done()
	for point, to := range map[string]string{first.ID: "first", last.ID: "last"} {
		h.coffer("restore", "docs@"+point, h.path(to)).done()
	}
	sameTree(t, h.path("docs"), h.path("last", h.path("docs")))
	h.coffer("point", "diff", "docs@"+first.ID, "docs@"+last.ID).says(control.ExitDone, "fourth")
	h.coffer("item", "erase", "pipe", "--confirm", "pipe").says(control.ExitFailed, "denies")
	h.stop()

	// Nothing was overwritten, and nothing hidden behind a delete marker.
	versions := make(map[string]int)
	opts := minio.ListObjectsOptions{Recursive: true, WithVersions: true}
	for o := range server.Client(t).ListObjects(t.Context(), "backups", opts) {
		must(t, o.Err)
		if versions[o.Key]++; versions[o.Key] > 1 || o.IsDeleteMarker {
			t.Errorf("%s has %d versions, delete marker %v", o.Key, versions[o.Key], o.IsDeleteMarker)
		}
	}
	h.run(nil, "cofferd", "scrub", "--store", url).says(control.ExitDone, "No fault")
	rescue := []string{"rescue", "--store", url, "--vault-id", id, "--key", "file://" + h.path("kek.pem")}
	h.run(nil, "cofferd", append(rescue, "restore", "docs", h.path("saved"))...).done()
	sameTree(t, h.path("docs"), h.path("saved", h.path("docs")))
}

// inBucket counts the objects in a bucket with something in their names.
func inBucket(t testing.TB, server *testkit.MinIO, bucket, part string) (n int) {
	t.Helper()
	for o := range server.Client(t).ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		if strings.Contains(o.Key, part) {
			n++
		}
	}
	return n
}

// TestLockedFolder is a vault in a folder under a lock: root himself removes nothing of
// it by a slip.
func TestLockedFolder(t *testing.T) {
	needRoot(t)
	h := newHost(t, strings.Replace(plain, "keys: [main]}", "keys: [main], lock: {days: 2}}", 1))
	t.Cleanup(func() { thaw(t, h.path("vault")) })
	furnish(t, h.path("docs"))
	h.ready()
	first := h.backup("docs")
	h.backup("docs")
	st, err := dir.Open(h.path("vault"))
	must(t, err)
	for info, err := range st.List(t.Context(), "") {
		must(t, err)
		if strings.Contains(string(info.Key), "/sessions/") {
			continue
		}
		if until, err := st.RetainedUntil(t.Context(), info.Key); err != nil || until.Before(first.Time.AddDate(0, 0, 2)) {
			t.Errorf("%s is retained until %v, %v", info.Key, until, err)
		}
		if err := os.Remove(h.path("vault", string(info.Key))); err == nil {
			t.Errorf("root removes %s", info.Key)
		}
	}
	h.coffer("verify").done()
	h.coffer("restore", "docs", h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
}

// thaw lets a vault go, so that the test can clean up.
func thaw(t testing.TB, root string) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			finish(t, exec.CommandContext(context.WithoutCancel(t.Context()), "chattr", "-i", path)).done()
		}
		return err
	}))
}

// TestLimits: what a vault's limit lets through is no more than it says, and a limit
// that is gone holds nothing back.
func TestLimits(t *testing.T) {
	for what, config := range map[string]string{
		"folder": plain,
		"bucket": func() string {
			server := testkit.StartMinIO(t, testkit.MinIOOptions{})
			server.Bucket(t, "backups", testkit.BucketOptions{})
			return onS3(server.URL("backups"), "")
		}(),
	} {
		t.Run(what, func(t *testing.T) {
			const size, rate = 6 << 20, "2 MiB"
			h := newHost(t, strings.Replace(config, "keys: [main]}", `keys: [main], limits: {upload: `+rate+`, download: `+rate+`}}`, 1))
			fill(t, h.path("docs"), 1, 1, size)
			h.ready()
			for _, verb := range []struct {
				name string
				do   func()
			}{
				{"backup", func() { h.backup("docs") }},
				{"restore", func() { h.coffer("restore", "docs", h.path("back")).done() }},
			} {
				began := time.Now()
				verb.do()
				if took := time.Since(began); took < 2*time.Second {
					t.Errorf("%s of %d bytes at %s a second took %s", verb.name, size, rate, took)
				}
			}
			// The agent was told otherwise: it goes on as fast as it can.
			h.configure(config)
			h.coffer("config", "reload").done()
			fill(t, h.path("docs"), 2, 1, 4*size)
			began := time.Now()
			h.backup("docs")
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("without a limit a backup of %d bytes took %s", 4*size, took)
			}
		})
	}
}
