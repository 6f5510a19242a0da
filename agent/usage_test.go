//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek"
)

// TestUsageCountsWhatOpens: a key that is gone is no reason to give another up.
func TestUsageCountsWhatOpens(t *testing.T) {
	b := furnished(t)
	u, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	must(t, err)
	if lost(u, "more") || !lost(u, "docs") {
		t.Fatalf("%+v", u)
	}
	b.keys.breaks("spare", fmt.Errorf("%w: destroyed", kek.ErrMissing))
	b.pass(1)
	if u, err = b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"}); err != nil {
		t.Fatal(err)
	}
	if !lost(u, "more") {
		t.Errorf("%+v: more opens with nothing else", u)
	}
}

// TestUsageOfRestoreKey: a key that wraps nothing new is retirable when nothing hangs
// on it, and not before.
func TestUsageOfRestoreKey(t *testing.T) {
	b := furnished(t)
	b.stop()
	text := strings.Replace(twoKeys, `keys: [main]}`, `keys: [spare], restore_keys: [main]}`, 1)
	b.configure(strings.Replace(text, `keys: [main, spare]`, `keys: [spare], restore_keys: [main]`, 1))
	b.keys.breaks("spare/open", fmt.Errorf("%w: not yet", kek.ErrUnreachable))
	b.start()
	b.idle()
	u, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	must(t, err)
	if v := u.Versions[0]; v.InUse || v.Retirable || v.Secrets == 0 {
		t.Errorf("before the rotation: %+v", v)
	}
	b.keys.breaks("spare/open", nil)
	b.pass(1)
	for _, vault := range []string{"one", "both"} {
		b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: vault}))
	}
	u, err = b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	must(t, err)
	if v := u.Versions[0]; v.InUse || !v.Retirable || v.Secrets != 0 || len(v.Lost) != 0 {
		t.Errorf("after it: %+v", v)
	}
}

// TestCreateTriesKeys: no vault is made under a key that does not open what it wraps.
func TestCreateTriesKeys(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.configure(strings.Replace(twoKeys, "items:", "  third: {store: \"file://$DIR/third\", keys: [main]}\nitems:", 1))
	b.keys.breaks("main/open", fmt.Errorf("%w: it may only wrap", kek.ErrDenied))
	b.start()
	_, err := b.CreateVault(t.Context(), control.VaultCreate{Name: "third"})
	b.refused(err, control.CodeKeysInaccessible)
	if _, err := os.Stat(b.path("third")); err == nil {
		t.Error("a store was made for it")
	}
}

// TestRollbackInNewVault puts the key records of an item back to what they were, in a
// vault that the running agent has made.
func TestRollbackInNewVault(t *testing.T) {
	b := furnished(t)
	b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one", NewGeneration: true}))
	newer, err := filepath.Glob(b.path("one", "keys", "*", "00000002-*"))
	must(t, err)
	if len(newer) != 1 {
		t.Fatalf("%d records of second generations", len(newer))
	}
	must(t, os.Remove(newer[0]))
	j := b.wait(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	if j.State != control.JobFailed || j.Error.Code != control.CodeDamaged {
		t.Errorf("%s: %+v", j.State, j.Error)
	}
}

// TestNothingWithoutAudit: when the audit log cannot be written, nothing is done with
// keys.
func TestNothingWithoutAudit(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.configure(strings.Replace(strings.Replace(twoKeys, "items:", "  third: {store: \"file://$DIR/third\", keys: [main]}\nitems:", 1), "vaults:", "  made: {uri: \"file://$DIR/made.pem\"}\nvaults:", 1))
	b.start()
	before := listing(t, b.dir, "one", "both")
	must(t, os.RemoveAll(b.path("state", "audit")))
	ctx := t.Context()
	failed := func(what string, j control.Job, err error) {
		t.Helper()
		if err != nil {
			if !strings.Contains(err.Error(), "audit log") {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		if j = b.follow(j.ID); j.State != control.JobFailed || !strings.Contains(j.Error.Message, "audit log") {
			t.Errorf("%s: %s, %+v", what, j.State, j.Error)
		}
	}
	for _, generation := range []bool{false, true} {
		j, err := b.RotateKeys(ctx, control.KeyRotate{Vault: "one", NewGeneration: generation})
		failed("rotate", j, err)
	}
	j, err := b.DrillKeys(ctx, control.KeyDrill{Vault: "both"})
	failed("drill", j, err)
	j, err = b.Restore(ctx, control.RestoreRequest{Item: "docs", Target: b.path("back")})
	failed("restore", j, err)
	_, err = b.EraseItem(ctx, control.ItemErase{Item: "docs", Confirm: "docs"})
	failed("erase", control.Job{}, err)
	_, err = b.CreateVault(ctx, control.VaultCreate{Name: "third"})
	failed("create a vault", control.Job{}, err)
	_, err = b.CreateKey(ctx, control.KeyCreate{Name: "made", Bits: 2048})
	failed("create a key", control.Job{}, err)
	_, err = b.LinkKey(ctx, control.KeyLink{Vault: "one", URI: "file://" + b.path("spare.pem"), RestoreOnly: true})
	failed("link", control.Job{}, err)
	for _, made := range []string{"back", "third", "made.pem"} {
		if _, err := os.Stat(b.path(made)); err == nil {
			t.Errorf("%s was made", made)
		}
	}
	if after := listing(t, b.dir, "one", "both"); after != before {
		t.Errorf("the vaults were\n%s and are\n%s", before, after)
	}
}

// listing names all files below folders.
func listing(t *testing.T, root string, folders ...string) string {
	t.Helper()
	var out strings.Builder
	for _, folder := range folders {
		must(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				fmt.Fprintln(&out, path)
			}
			return err
		}))
	}
	return out.String()
}
