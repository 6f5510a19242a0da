//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
)

const twoKeys = `
agent: {state: $DIR/state, socket: $DIR/s}
keys:
  main: {uri: "file://$DIR/main.pem"}
  spare: {uri: "file://$DIR/spare.pem"}
vaults:
  one: {store: "file://$DIR/one", keys: [main]}
  both: {store: "file://$DIR/both", keys: [main, spare]}
items:
  docs: {vault: one, files: {paths: [$DIR/docs]}}
  more: {vault: both, files: {paths: [$DIR/docs]}}
`

// furnished is an agent with vaults that have a point each.
func furnished(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, twoKeys)
	for _, key := range []string{"main", "spare"} {
		if err := software.Create(t.Context(), "file://"+b.path(key+".pem"), software.CreateOptions{Bits: 2048}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(b.path("docs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := os.WriteFile(b.path("docs", fmt.Sprintf("letter%d.txt", i)), []byte(strings.Repeat("Dear all, ", 100+i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	for _, vault := range []string{"one", "both"} {
		if _, err := b.CreateVault(t.Context(), control.VaultCreate{Name: vault}); err != nil {
			t.Fatal(err)
		}
	}
	for _, item := range []string{"docs", "more"} {
		b.done(b.Backup(t.Context(), control.BackupRequest{Item: item}))
	}
	b.pass(1) // a good answer of every key is known
	return b
}

// TestDenial takes a key away for some minutes and gives it back: what the vault's
// state is, and what works, follows the clock.
func TestDenial(t *testing.T) {
	for _, tt := range []struct {
		minutes int
		during  control.KeyState
		after   control.KeyState
	}{
		{9, control.StateDegraded, control.StateAccessible},
		{11, control.StateInaccessible, control.StateAccessible},
		{29, control.StateInaccessible, control.StateAccessible},
		{31, control.StateInaccessible, control.StateRevalidation},
	} {
		t.Run(fmt.Sprintf("%d minutes", tt.minutes), func(t *testing.T) {
			b := furnished(t)
			b.keys.breaks("main", fmt.Errorf("%w: the permission was taken away", kek.ErrDenied))
			b.pass(tt.minutes - 1)
			if got := b.state("one"); got != tt.during {
				t.Errorf("after %d minutes without the key the vault is %s, want %s", tt.minutes-1, got, tt.during)
			}
			if tt.during == control.StateInaccessible {
				_, err := b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")})
				b.refused(err, control.CodeKeysInaccessible)
				j := b.wait(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
				if j.State != control.JobFailed || j.Error.Code != control.CodeKeysInaccessible {
					t.Errorf("a backup under a key that was taken away: %s, %+v", j.State, j.Error)
				}
				if _, err := os.Stat(b.path("back")); err == nil {
					t.Error("a refused restore touched its target")
				}
			}
			if got := b.state("both"); got != control.StateDegraded { // the spare key opens it
				t.Errorf("the vault with two keys is %s", got)
			}
			b.done(b.Backup(t.Context(), control.BackupRequest{Item: "more"}))
			b.keys.breaks("main", nil)
			b.pass(1)
			if got := b.state("one"); got != tt.after {
				t.Errorf("with the key back after %d minutes the vault is %s, want %s", tt.minutes, got, tt.after)
			}
			if tt.after == control.StateRevalidation {
				j := b.wait(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
				if j.State != control.JobFailed || j.Error.Code != control.CodeKeysInaccessible {
					t.Errorf("a backup before revalidation: %s, %+v", j.State, j.Error)
				}
				b.stop()
				b.start() // a restart heals nothing
				if got := b.state("one"); got != control.StateRevalidation {
					t.Errorf("after a restart the vault is %s", got)
				}
				if _, err := b.Revalidate(t.Context(), control.KeyRevalidate{Vault: "one"}); err != nil {
					t.Fatal(err)
				}
			}
			b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
			report, err := b.VerifyAudit(t.Context(), control.AuditVerify{})
			if err != nil || len(report.Faults) > 0 {
				t.Errorf("audit log: %+v, %v", report, err)
			}
		})
	}
}

// TestUnreachable has the only key of a vault unreachable: backups of what is known
// go on with cached secrets until the grace time ends, and a key that comes back
// heals the vault however long it was away.
func TestUnreachable(t *testing.T) {
	b := furnished(t)
	b.keys.breaks("main", fmt.Errorf("%w: the network is down", kek.ErrUnreachable))
	b.pass(40)
	if got := b.state("one"); got != control.StateDegraded {
		t.Errorf("the vault is %s", got)
	}
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	b.pass(12*60 - 30)
	if got := b.state("one"); got != control.StateInaccessible {
		t.Errorf("after the grace time the vault is %s", got)
	}
	j := b.wait(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	if j.State != control.JobFailed || j.Error.Code != control.CodeKeysInaccessible {
		t.Errorf("a backup after the grace time: %s, %+v", j.State, j.Error)
	}
	b.keys.breaks("main", nil)
	b.pass(1)
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
}

// TestOwed has a key that does not answer when an item is made. It gets its wrapping
// when it is back, without a word from anybody.
func TestOwed(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.keys.breaks("spare", fmt.Errorf("%w: unplugged", kek.ErrUnreachable))
	b.configure(strings.Replace(twoKeys, "items:", "items:\n  late: {vault: both, files: {paths: [$DIR/docs]}}", 1))
	b.start()
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "late"}))
	u, err := b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
	if err != nil {
		t.Fatal(err)
	}
	if !lost(u, "late") {
		t.Errorf("%+v: late hangs on main alone", u)
	}
	b.keys.breaks("spare", nil)
	b.pass(16)
	b.idle()
	if u, err = b.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"}); err != nil {
		t.Fatal(err)
	}
	if lost(u, "late") {
		t.Errorf("%+v: late should open with spare by now", u)
	}
	if !lost(u, "docs") {
		t.Errorf("%+v: docs is in a vault with one key", u)
	}
}

func lost(u control.KeyUsage, item string) bool {
	for _, v := range u.Versions {
		for _, l := range v.Lost {
			if l.Item == item {
				return true
			}
		}
	}
	return false
}

// TestDrill does without the primary key and shows that all goes on.
func TestDrill(t *testing.T) {
	b := furnished(t)
	j := b.done(b.DrillKeys(t.Context(), control.KeyDrill{Vault: "both"}))
	d := j.Result.Drill
	if d.Without != "main" || len(d.With) != 1 || d.With[0] != "spare" || d.Secrets != 2 || d.Point == "" || d.Bytes == 0 {
		t.Errorf("%+v", d)
	}
	_, err := b.DrillKeys(t.Context(), control.KeyDrill{Vault: "one"})
	b.refused(err, control.CodeBadRequest)

	b.keys.breaks("spare", fmt.Errorf("%w: nobody has tried it for years", kek.ErrDenied))
	if j := b.wait(b.DrillKeys(t.Context(), control.KeyDrill{Vault: "both"})); j.State != control.JobFailed {
		t.Errorf("a drill with a dead spare key: %s", j.State)
	}
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "more"})) // the primary is back, whatever the drill found
}
