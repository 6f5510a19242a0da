//go:build linux

package main_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// TestErase erases one of two items in a folder. Of the one nothing is left but the
// word that it is gone; of the other nothing is missing.
func TestErase(t *testing.T) {
	t.Parallel()
	h := newHost(t, keeping("keys: [kek]", inFile("kek")))
	h.begin("kek")
	h.backup("docs")
	kept := h.stored("")
	h.backup("more")
	h.rotate("--new-generation")
	h.backup("more")
	before := h.stored("")

	h.coffer("item", "erase", "more").fails(control.ExitUsage, "--confirm more")
	h.coffer("item", "erase", "more", "--confirm", "docs").fails(control.ExitUsage, "nothing was done")
	h.coffer("item", "erase", "nosuch", "--confirm", "nosuch").fails(control.ExitFailed, "nosuch")
	if got := h.stored(""); !slices.Equal(got, before) {
		t.Fatal("an erasure that was not confirmed did something")
	}
	done := fromJSON[control.ItemErased](h.coffer("item", "erase", "more", "--confirm", "more", "--json").done())
	if done.Secrets != 2 || done.Deleted == 0 || done.Locked != 0 || done.LockedKeys != 0 {
		t.Errorf("it says %+v", done)
	}
	if gone := without(kept, h.stored("")); len(gone) > 0 {
		t.Errorf("it touched what is not its own: %q", gone)
	}
	var tombs []string
	for _, dir := range []string{"keys", "items"} {
		entries, err := os.ReadDir(h.path("vault", dir))
		must(t, err)
		for _, e := range entries {
			if left := objects(t, h.path("vault", dir, e.Name()), ""); dir == "keys" && e.Name() != "vault" && len(left) == 1 {
				tombs = append(tombs, filepath.Base(left[0]))
			}
		}
	}
	if !slices.Equal(tombs, []string{"00000003-00000001"}) {
		t.Errorf("tombstones are %q", tombs)
	}
	h.coffer("restore", "more", h.path("back")).says(control.ExitFailed)
	h.coffer("point", "list", "more").says(control.ExitFailed)
	h.restores("docs")
	h.coffer("verify").done()
	h.backup("more") // anew
	h.restores("more")
	h.coffer("item", "erase", "more", "--confirm", "more").done()
	h.coffer("audit", "verify").done()
}

// TestEraseLocked erases an item in a bucket that refuses to delete. The key records are
// under the lock too, or whoever may delete would erase what the lock protects; so it is
// said what stays and until when, and that the key still opens it until then.
func TestEraseLocked(t *testing.T) {
	t.Parallel()
	server := testkit.StartMinIO(t, testkit.MinIOOptions{})
	server.Bucket(t, "backups", testkit.BucketOptions{ObjectLock: true})
	h := newHost(t, strings.Replace(keeping("keys: [kek], lock: {days: 1, mode: compliance}", inFile("kek")), "file://$DIR/vault", server.URL("backups"), 1))
	h.begin("kek")
	h.backup("docs")
	h.backup("more")
	locked, records := bucket(t, server, "items/"), bucket(t, server, "keys/")
	until := time.Now().Add(30 * time.Hour) // a day, and a quarter of it

	done := fromJSON[control.ItemErased](h.coffer("item", "erase", "more", "--confirm", "more", "--json").says(control.ExitSkipped))
	if done.Secrets != 0 || done.LockedKeys != 1 || done.Locked < 2 {
		t.Errorf("it says %+v", done)
	}
	if d := done.LockedUntil.Sub(until).Abs(); d > 5*time.Minute {
		t.Errorf("it says that the last goes at %s, want about %s", done.LockedUntil, until)
	}
	if left := bucket(t, server, "items/"); len(left) != len(locked)-1 { // the session has no lock
		t.Errorf("%d objects are left of %d under lock", len(left), len(locked))
	}
	if left := bucket(t, server, "keys/"); len(left) != len(records)+1 { // and the tombstone
		t.Errorf("key records are %q, were %q", left, records)
	}
	h.coffer("item", "erase", "more", "--confirm", "more").says(control.ExitSkipped, "not wholly erased", "under object lock until", "can still open the item until then")
	h.coffer("restore", "more", h.path("back")).says(control.ExitFailed)
	h.coffer("verify").done()
	h.restores("docs")
	h.backup("more")
	h.restores("more")
}

// bucket lists the objects of a bucket, with those that only a version shows.
func bucket(t testing.TB, server *testkit.MinIO, prefix string) []string {
	t.Helper()
	var names []string
	for o := range server.Client(t).ListObjects(t.Context(), "backups", minio.ListObjectsOptions{Recursive: true, WithVersions: true, Prefix: prefix}) {
		must(t, o.Err)
		names = append(names, o.Key)
	}
	return names
}

// TestAuditTampered alters and removes lines of the log of what was done with keys.
func TestAuditTampered(t *testing.T) {
	t.Parallel()
	h := newHost(t, keeping("keys: [kek]", inFile("kek")))
	h.begin("kek")
	h.backup("docs")
	h.stop()
	h.start() // so that the key is asked
	h.restores("docs")
	whole := fromJSON[control.AuditReport](h.coffer("audit", "verify", "--json").done())
	if whole.Lines < 5 || len(whole.Faults) > 0 {
		t.Fatalf("the log says %+v", whole)
	}
	h.coffer("audit", "verify", "--head", whole.Head).done()
	files := objects(t, h.path("state/audit"), ".jsonl")
	if len(files) == 0 {
		t.Fatalf("no log in %q", objects(t, h.path("state/audit"), ""))
	}
	good, err := os.ReadFile(files[0])
	must(t, err)
	lines := strings.SplitAfter(string(good), "\n")
	changes := map[string]string{
		"removed": strings.Join(slices.Delete(slices.Clone(lines), 2, 3), ""),
		"altered": strings.Replace(string(good), `"key":"kek"`, `"key":"ken"`, 1),
		"swapped": strings.Join(append([]string{lines[0], lines[2], lines[1]}, lines[3:]...), ""),
	}
	for what, text := range changes {
		if text == string(good) {
			t.Fatalf("%s: nothing was", what)
		}
		must(t, os.WriteFile(files[0], []byte(text), 0o600))
		h.coffer("audit", "verify").fails(control.ExitFailed, "FAULT")
	}
	must(t, os.WriteFile(files[0], good, 0o600))
	h.coffer("audit", "verify", "--head", whole.Head).done()
	cut := strings.Join(lines[:len(lines)-2], "") // without its last line, which the chain alone cannot tell
	must(t, os.WriteFile(files[0], []byte(cut), 0o600))
	h.coffer("audit", "verify", "--head", whole.Head).fails(control.ExitFailed, "FAULT")
	must(t, os.WriteFile(files[0], good, 0o600))
}
