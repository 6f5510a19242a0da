//go:build linux

package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// scrubbed is what scrub --json prints, as far as it is looked at here.
type scrubbed struct {
	Store  string
	Kinds  map[string]struct{ Objects, Bytes int64 }
	Items  int
	Faulty int64
	Faults []struct{ Key, Says string }
}

// TestScrub checks a vault in a folder without any key, whole and damaged.
func TestScrub(t *testing.T) {
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	h.ready()
	h.backup("docs")
	h.stop()
	must(t, os.Remove(h.path("kek.pem")))
	url := "file://" + h.path("vault")
	scrub := func(args ...string) result {
		return h.run(nil, "cofferd", append([]string{"scrub", "--store", url}, args...)...)
	}
	must(t, os.WriteFile(h.path("vault", ".tmp", "put-1"), []byte("half"), 0o600))
	scrub().says(control.ExitDone, "KIND", "packs", "No fault", "coffer verify")
	if _, err := os.Stat(h.path("vault", ".tmp", "put-1")); err != nil {
		t.Errorf("a scrub only reads: %v", err)
	}
	report := fromJSON[scrubbed](scrub("--json", "--at-once", "2").done())
	if report.Store != url || report.Items != 1 || report.Kinds["packs"].Objects == 0 || report.Kinds["points"].Objects != 1 || report.Faulty != 0 {
		t.Errorf("%+v", report)
	}

	found, err := filepath.Glob(h.path("vault", "items", "*", "packs", "*", "*"))
	must(t, err)
	content, err := os.ReadFile(found[0])
	must(t, err)
	content[len(content)/2] ^= 1
	must(t, os.Chmod(found[0], 0o600))
	must(t, os.WriteFile(found[0], content, 0o600))
	scrub().fails(control.ExitFailed, filepath.Base(found[0]), "does not hold", "1 fault in "+url, "coffer verify")
	r := scrub("--json").says(control.ExitFailed)
	if err := json.NewDecoder(bytes.NewReader([]byte(r.out))).Decode(&report); err != nil || report.Faulty != 1 ||
		!strings.HasSuffix(report.Faults[0].Key, filepath.Base(found[0])) {
		t.Errorf("%+v, %v", report, err)
	}

	h.run(nil, "cofferd", "scrub").says(control.ExitUsage, "--store")
	scrub("more").says(control.ExitUsage, `scrub takes no arguments, and there is "more"`)
	scrub("--at-once", "0").says(control.ExitUsage, "--at-once")
	h.run(nil, "cofferd", "scrub", "--store", "file://"+h.path("nowhere")).fails(control.ExitFailed, "nowhere", "correct --store")
	must(t, os.Mkdir(h.path("nothing"), 0o700))
	h.run(nil, "cofferd", "scrub", "--store", "file://"+h.path("nothing")).fails(control.ExitFailed, "no descriptor", "correct --store")
}

// TestScrubReadOnly: credentials that may list and read are enough.
func TestScrubReadOnly(t *testing.T) {
	server := testkit.StartMinIO(t, testkit.MinIOOptions{})
	server.Bucket(t, "backups", testkit.BucketOptions{})
	h := newHost(t, onS3(server.URL("backups"), ""))
	furnish(t, h.path("docs"))
	h.ready()
	h.backup("docs")
	auditor := server.Allow(t, "backups", "s3:ListBucket", "s3:GetObject")
	h.run(nil, "cofferd", "scrub", "--store", server.As(auditor, server.URL("backups"))).says(control.ExitDone, "No fault")
	blind := server.Allow(t, "backups", "s3:ListBucket")
	h.run(nil, "cofferd", "scrub", "--store", server.As(blind, server.URL("backups"))).fails(control.ExitFailed, "denies access")
}
