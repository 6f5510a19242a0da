//go:build linux

package agent_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	b.pass(1) // a backup counts that begins after the switch, not at the same moment
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
	points, err := b.listed("docs")
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

// opened opens a vault of the bench as another host would, with a key that wraps under
// others.
func opened(t *testing.T, b *bench, vault, key string, wraps ...string) *catalog.Vault {
	t.Helper()
	ids, err := os.ReadFile(b.path("state", "vaults.json"))
	must(t, err)
	_, after, _ := strings.Cut(string(ids), `"`+vault+`": "`)
	text, _, _ := strings.Cut(after, `"`)
	id, err := crypt.ParseVaultID(text)
	must(t, err)
	st, err := dir.Open(b.path(vault))
	must(t, err)
	open := func(name string) *software.Key {
		k, err := software.Open(t.Context(), name, "file://"+b.path(name+".pem"))
		must(t, err)
		return k
	}
	var wrappers []kek.Wrapper
	for _, name := range wraps {
		wrappers = append(wrappers, open(name))
	}
	v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: kek.NewRing(open(key)).WrapWith(wrappers...)})
	must(t, err)
	t.Cleanup(v.Close)
	return v
}

// rewrapElsewhere rotates a vault to another key, as another host would.
func rewrapElsewhere(t *testing.T, b *bench, vault, from, to string) {
	t.Helper()
	k, err := software.Open(t.Context(), to, "file://"+b.path(to+".pem"))
	must(t, err)
	_, err = opened(t, b, vault, from).Rewrap(t.Context(), catalog.RewrapOptions{Wrappers: []kek.Wrapper{k}})
	must(t, err)
}

// TestNewVersionMayNotBeUsed: a version that is not valid yet is not taken into use,
// because there would be no way back, and the old one goes on.
func TestNewVersionMayNotBeUsed(t *testing.T) {
	b := furnished(t)
	v2 := "file://" + b.path("main2.pem")
	must(t, software.Create(t.Context(), v2, software.CreateOptions{Bits: 2048}))
	b.keys.says(v2, kek.Facts{NotBefore: b.clock.Now().Add(72 * time.Hour)})
	b.keys.publish("main", v2, "file://"+b.path("main.pem"))
	j := b.wait(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one"}))
	if j.State != control.JobFailed || !strings.Contains(j.Error.Message, "not valid before") {
		t.Errorf("%s: %+v", j.State, j.Error)
	}
	b.pass(16)
	b.idle()
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	b.clock.advance(72 * time.Hour)
	b.pass(2)
	b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one"}))
	u, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	must(t, err)
	if !u.Versions[0].InUse || u.Versions[0].Secrets == 0 || len(u.Versions) != 2 {
		t.Errorf("%+v", u)
	}
}

// TestNewGenerationUnderDeadKey: no secret is made under a key that does not open what
// it wraps.
func TestNewGenerationUnderDeadKey(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.configure(strings.Replace(twoKeys, `keys: [main]}`, `keys: [spare], restore_keys: [main]}`, 1))
	b.keys.breaks("spare/open", fmt.Errorf("%w: it may only wrap", kek.ErrDenied))
	b.start()
	b.idle()
	if j := b.wait(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one", NewGeneration: true})); j.State != control.JobFailed {
		t.Errorf("a rotation to a key that opens nothing: %s", j.State)
	}
	b.stop()
	b.configure(twoKeys)
	b.start()
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")}))
}

// blocked is a reader's end that takes nothing until it is let go.
type blocked struct{ began, free chan struct{} }

func (w blocked) Write(p []byte) (int, error) {
	select {
	case <-w.began:
	default:
		close(w.began)
	}
	<-w.free
	return len(p), nil
}

// TestNewGenerationWhileOpen: what is backed up after a new generation was made is
// under it, also when somebody had the item open before.
func TestNewGenerationWhileOpen(t *testing.T) {
	b := furnished(t)
	large := make([]byte, 24<<20)
	for i := range large {
		large[i] = byte(i * i >> 7)
	}
	must(t, os.WriteFile(b.path("docs", "large"), large, 0o600))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	w := blocked{make(chan struct{}), make(chan struct{})}
	read := make(chan error, 1)
	go func() {
		read <- b.Content(t.Context(), control.ContentRequest{Item: "docs", Point: "latest", Path: b.path("docs", "large")}, w)
	}()
	<-w.began
	b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one", NewGeneration: true}))
	b.clock.advance(time.Second) // the last point is the last by its name
	must(t, os.WriteFile(b.path("docs", "new.txt"), []byte("what the old key must not open"), 0o600))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	close(w.free)
	must(t, <-read)
	it, err := opened(t, b, "one", "main").Item(t.Context(), "docs")
	must(t, err)
	points, err := it.Points(t.Context())
	must(t, err)
	needs, err := it.Generations(t.Context(), points[len(points)-1], func(uint32) bool { return false })
	must(t, err)
	if got := needs[len(needs)-1]; got != 2 {
		t.Errorf("the point is of generation %d, want 2", got)
	}
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")}))
}

// TestRotationThatFails is tried again, ever more seldom, and at last once an hour. How
// long the agent takes to look for what it owes is not up to the clock: it counts how often
// it has looked.
func TestRotationThatFails(t *testing.T) {
	b := furnished(t)
	v2 := "file://" + b.path("main2.pem")
	must(t, software.Create(t.Context(), v2, software.CreateOptions{Bits: 2048}))
	b.keys.breaks(v2, fmt.Errorf("%w: it may only wrap", kek.ErrDenied))
	b.keys.publish("main", v2, "file://"+b.path("main.pem"))
	if n := len(rotations(b, "one")) + len(rotations(b, "both")); n > 0 {
		t.Fatalf("there were %d rotations before", n)
	}
	waits := []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, time.Hour, time.Hour, time.Hour}
	const most = 6 // two keys at the look that begins it, and what rotations of the other vault ask
	for _, vault := range []string{"one", "both"} {
		b.until("rotations of "+vault+" were tried again", func() bool { return len(rotations(b, vault)) > len(waits) })
		tried := rotations(b, vault)
		for i, wait := range waits {
			due, next := tried[i].Ended.Add(wait), tried[i+1].Queued
			looks := b.keys.looked(due, next)
			if tried[i].State != control.JobFailed || next.Before(due.Add(-time.Second)) || looks > most {
				t.Errorf("%s: rotation %d %s at %s, the next began at %s, want %s later; keys were looked at %d times in between", vault, i, tried[i].State, tried[i].Ended, next, wait, looks)
			}
		}
	}
	b.keys.breaks(v2, nil)
	b.until("the new version is in effect", func() bool {
		u, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main", Version: ""})
		must(t, err)
		return u.Versions[0].Secrets == 4
	})
}

// rotations are those of a vault, the oldest first.
func rotations(b *bench, vault string) (out []control.Job) {
	b.Helper()
	jobs, err := b.Jobs(context.Background(), control.JobFilter{Limit: 1000})
	if err != nil {
		b.Fatal(err)
	}
	for _, j := range slices.Backward(jobs) {
		if j.Kind == control.KindRekey && j.Vault == vault {
			out = append(out, j)
		}
	}
	return out
}
