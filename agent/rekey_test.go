//go:build linux

package agent_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store/dir"
)

// packs returns the digest of every object that holds data.
func packs(t *testing.T, vault string) map[string][32]byte {
	t.Helper()
	sums := make(map[string][32]byte)
	err := filepath.WalkDir(filepath.Join(vault, "items"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sums[path] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// populate makes many items in a vault, as another host would.
func populate(t *testing.T, b *bench, vault, key string, items int) {
	t.Helper()
	v, err := b.Vault(t.Context(), vault)
	if err != nil {
		t.Fatal(err)
	}
	id, err := crypt.ParseVaultID(v.ID)
	if err != nil {
		t.Fatal(err)
	}
	st, err := dir.Open(b.path(vault))
	if err != nil {
		t.Fatal(err)
	}
	k, err := software.Open(t.Context(), key, "file://"+b.path(key+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: kek.NewRing(k)})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	for i := range items {
		it, err := opened.CreateItem(t.Context(), fmt.Sprintf("item%04d", i), b.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		it.Close()
	}
}

// TestRotateToAnotherKey moves a vault with a thousand items to another key. No pack
// is touched, each secret is asked for once, and the old key is then of no use.
func TestRotateToAnotherKey(t *testing.T) {
	const items = 1000
	b := furnished(t)
	populate(t, b, "one", "main", items)
	before := packs(t, b.path("one"))
	b.stop()
	b.configure(strings.Replace(twoKeys, `keys: [main]}`, `keys: [spare], restore_keys: [main]}`, 1))
	b.start()
	b.idle() // the agent may have begun by itself
	asked := b.keys.calls()
	started := time.Now()
	r := b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one"})).Result.Rekey
	if r.Secrets != items+2 {
		t.Errorf("%d secrets, want the vault's, those of %d items and of docs", r.Secrets, items)
	}
	t.Logf("%d secrets: %d wrapped anew, %d unwraps, %d bytes written, %s", r.Secrets, r.Rewrapped, b.keys.calls()-asked, r.Bytes, time.Since(started))
	u, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "spare"})
	if err != nil || len(u.Versions) != 1 || u.Versions[0].Secrets < items+2 {
		t.Errorf("usage of the new key: %+v, %v", u, err)
	}
	if got := packs(t, b.path("one")); len(got) != len(before) {
		t.Errorf("there are %d objects of items, %d before", len(got), len(before))
	} else {
		for path, sum := range before {
			if got[path] != sum {
				t.Errorf("%s was touched", path)
			}
		}
	}
	if old, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"}); err != nil {
		t.Error(err)
	} else {
		for _, l := range old.Versions[0].Lost {
			if l.Vault == "one" {
				t.Errorf("%+v still hangs on the old key", l)
			}
		}
	}
	must(t, os.Rename(b.path("main.pem"), b.path("gone.pem")))
	b.stop()
	b.start()
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")}))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFollowVersions gives a key a new version: within the hour everything is wrapped
// with it, the old one may be retired after a backup, and it never comes back.
func TestFollowVersions(t *testing.T) {
	b := furnished(t)
	v2 := "file://" + b.path("main2.pem")
	must(t, software.Create(t.Context(), v2, software.CreateOptions{Bits: 2048}))
	v1 := "file://" + b.path("main.pem")
	b.keys.publish("main", v2, v1)
	b.pass(16)
	b.idle()
	u, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	must(t, err)
	if len(u.Versions) != 2 || !u.Versions[0].InUse || u.Versions[0].Secrets != 4 || u.Versions[1].Secrets != 0 {
		t.Fatalf("%+v", u)
	}
	if old := u.Versions[1]; old.Retirable || !strings.Contains(old.Because, "no backup") {
		t.Errorf("before a backup the old version is %+v", old)
	}
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "more"}))
	u, err = b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	must(t, err)
	if !u.Versions[1].Retirable {
		t.Errorf("after a backup the old version is not retirable: %s", u.Versions[1].Because)
	}
	b.keys.publish("main", v1) // the provider falls back to the old one
	b.pass(16)
	b.idle()
	u, err = b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	must(t, err)
	for _, v := range u.Versions {
		if v.InUse && v.Secrets == 0 {
			t.Errorf("the old version is in use again: %+v", u)
		}
	}
}

// TestMirror: a new version is not taken into use while a key that mirrors it lacks
// it.
func TestMirror(t *testing.T) {
	b := furnished(t)
	b.stop()
	mirror := strings.Replace(twoKeys, "file://$DIR/spare.pem", "file://$DIR/mirror.pem", 1)
	raw, err := os.ReadFile(b.path("main.pem"))
	must(t, err)
	must(t, os.WriteFile(b.path("mirror.pem"), raw, 0o600))
	must(t, os.RemoveAll(b.path("state", "custody.json")))
	b.configure(mirror)
	b.start()
	b.idle()
	v2 := "file://" + b.path("main2.pem")
	must(t, software.Create(t.Context(), v2, software.CreateOptions{Bits: 2048}))
	b.keys.publish("main", v2, "file://"+b.path("main.pem"))
	if j := b.wait(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "both"})); j.State != control.JobFailed || !strings.Contains(j.Error.Message, "mirrors") {
		t.Errorf("%s, %+v", j.State, j.Error)
	}
	b.keys.publish("spare", v2, "file://"+b.path("mirror.pem"))
	b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "both"}))
}

// TestNewGeneration gives every item a new secret. Old points restore, dedup goes
// on, and what is new does not open with the old generation.
func TestNewGeneration(t *testing.T) {
	b := furnished(t)
	points, err := b.Points(t.Context(), "docs")
	must(t, err)
	r := b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one", NewGeneration: true})).Result.Rekey
	if r.Made != 1 || len(r.Opens) == 0 {
		t.Errorf("%+v", r)
	}
	j := b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs", FullRead: true}))
	if s := j.Result.Point.Stats; s.NewBytes >= s.SourceBytes/2 { // folders above may have changed
		t.Errorf("%d bytes are new of %d, though no file changed", s.NewBytes, s.SourceBytes)
	}
	b.stop()
	b.start()
	for i, p := range []string{points[0].ID, j.Result.Point.ID} {
		b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Point: p, Target: b.path(fmt.Sprint("back", i))}))
	}
}

// TestErase destroys an item, and nothing else.
func TestErase(t *testing.T) {
	b := furnished(t)
	_, err := b.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "more"})
	b.refused(err, control.CodeBadRequest)
	done, err := b.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "docs"})
	must(t, err)
	if done.Secrets != 1 || done.Deleted == 0 || done.Locked != 0 {
		t.Errorf("%+v", done)
	}
	_, err = b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")})
	b.refused(err, control.CodeNotFound)
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "more", Target: b.path("back")}))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"})) // it may be made anew
	b.done(b.Verify(t.Context(), control.VerifyRequest{}))
}
