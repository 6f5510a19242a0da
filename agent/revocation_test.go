//go:build linux

package agent_test

import (
	"context"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store"
)

// reconfigured restarts a furnished agent with another configuration of the vault one.
func reconfigured(t *testing.T, one string) *bench {
	t.Helper()
	b := furnished(t)
	b.stop()
	b.configure(strings.Replace(twoKeys, `one: {store: "file://$DIR/one", keys: [main]}`, `one: {store: "file://$DIR/one", `+one+`}`, 1))
	b.start()
	b.idle()
	return b
}

// TestRevokedBesideAnotherKey takes the only key of a vault away. A key that may open
// the vault by the configuration, and opens nothing in it, does not keep it open.
func TestRevokedBesideAnotherKey(t *testing.T) {
	b := reconfigured(t, "keys: [main], restore_keys: [spare]")
	b.keys.breaks("main", fmt.Errorf("%w: revoked", kek.ErrDenied))
	b.pass(11)
	if got := b.state("one"); got != control.StateInaccessible {
		t.Errorf("the vault is %s", got)
	}
	b.stop()
	b.start()
	if got := b.state("one"); got != control.StateInaccessible {
		t.Errorf("after a restart the vault is %s", got)
	}
	b.pass(20)
	b.keys.breaks("main", nil)
	b.pass(1)
	if got := b.state("one"); got != control.StateRevalidation {
		t.Errorf("with its key back after half an hour the vault is %s", got)
	}
}

// TestDeadRestoreKey has a key that opens nothing in a vault any more, and is gone:
// that is no reason to close the vault, nor to leave it closed.
func TestDeadRestoreKey(t *testing.T) {
	b := reconfigured(t, "keys: [main], restore_keys: [spare]")
	b.keys.breaks("spare", fmt.Errorf("%w: destroyed, as it should be", kek.ErrMissing))
	b.pass(2)
	if got := b.state("one"); got != control.StateAccessible {
		t.Errorf("the vault is %s", got)
	}
	b.keys.breaks("main", fmt.Errorf("%w: the network is down", kek.ErrUnreachable))
	b.pass(60)
	if got := b.state("one"); got != control.StateDegraded {
		t.Errorf("with its key out of reach for an hour the vault is %s", got)
	}
	b.keys.breaks("main", fmt.Errorf("%w: revoked", kek.ErrDenied))
	b.pass(40)
	b.keys.breaks("main", nil)
	b.pass(1)
	if _, err := b.Revalidate(t.Context(), control.KeyRevalidate{Vault: "one"}); err != nil {
		t.Error(err)
	}
}

// TestOtherHostRotated has the vault under another key than this agent knew, while
// the one that it knew is gone.
func TestOtherHostRotated(t *testing.T) {
	b := reconfigured(t, "keys: [main], restore_keys: [spare]")
	b.keys.breaks("main", fmt.Errorf("%w: destroyed", kek.ErrMissing))
	b.pass(11)
	if got := b.state("one"); got != control.StateInaccessible {
		t.Fatalf("the vault is %s", got)
	}
	rewrapElsewhere(t, b, "one", "main", "spare")
	b.pass(1)
	if got := b.state("one"); got != control.StateAccessible {
		t.Errorf("with a key that opens it the vault is %s", got)
	}
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")}))
}

// TestLinkedKeyHeals links the private half of an escrow key to a vault whose other
// key is gone.
func TestLinkedKeyHeals(t *testing.T) {
	b := newBench(t, `
agent: {state: $DIR/state, socket: $DIR/s}
keys: {main: {uri: "file://$DIR/main.pem"}, escrow: {public: $DIR/escrow.pub}}
vaults: {one: {store: "file://$DIR/one", keys: [main, escrow]}}
items: {docs: {vault: one, files: {paths: [$DIR/docs]}}}
`)
	must(t, software.Create(t.Context(), "file://"+b.path("main.pem"), software.CreateOptions{Bits: 2048}))
	link := "file://" + b.path("escrow.pem")
	must(t, software.Create(t.Context(), link, software.CreateOptions{Bits: 2048}))
	escrow, err := software.Open(t.Context(), "escrow", link)
	must(t, err)
	public, err := escrow.Public()
	must(t, err)
	must(t, os.WriteFile(b.path("escrow.pub"), public, 0o600))
	must(t, os.Mkdir(b.path("docs"), 0o700))
	b.start()
	_, err = b.CreateVault(t.Context(), control.VaultCreate{Name: "one"})
	must(t, err)
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	_, err = b.DrillKeys(t.Context(), control.KeyDrill{Vault: "one"})
	if wire := control.AsError(err); wire.Code != control.CodeBadRequest || !strings.Contains(wire.Message, "key escrow is") || !strings.Contains(wire.Next, "cofferd rescue") {
		t.Errorf("a drill with an escrow key alone: %+v", wire)
	}
	b.keys.breaks("main", fmt.Errorf("%w: the HSM burned", kek.ErrMissing))
	b.pass(12)
	_, err = b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")})
	b.refused(err, control.CodeKeysInaccessible)
	_, err = b.LinkKey(t.Context(), control.KeyLink{Vault: "one", URI: link, RestoreOnly: true})
	must(t, err)
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")}))
	b.pass(60)
	if got := b.state("one"); got != control.StateDegraded {
		t.Errorf("with the escrow key linked the vault is %s", got)
	}
}

// TestOldVersionDenied has one vault under the new version of a key and the other
// still under the old one, which is then disabled.
func TestOldVersionDenied(t *testing.T) {
	b := furnished(t)
	v1, v2 := "file://"+b.path("main.pem"), "file://"+b.path("main2.pem")
	must(t, software.Create(t.Context(), v2, software.CreateOptions{Bits: 2048}))
	b.keys.publish("main", v2, v1)
	b.done(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "both"}))
	b.keys.breaks(v1, fmt.Errorf("%w: disabled", kek.ErrDenied))
	b.pass(12)
	if got := b.state("one"); got != control.StateInaccessible {
		t.Errorf("the vault that hangs on the old version is %s", got)
	}
	if got := b.state("both"); got != control.StateAccessible {
		t.Errorf("the vault that was rotated is %s", got)
	}
}

// silent is a store whose listings take until they are no longer wanted, once it was
// silenced.
type silent struct {
	store.Store
	quiet <-chan struct{}
}

func (s silent) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	select {
	case <-s.quiet:
		<-ctx.Done()
	default:
	}
	return s.Store.List(ctx, prefix)
}

// TestSilentStore: a store that does not answer does not keep a denial from being
// noticed.
func TestSilentStore(t *testing.T) {
	b := furnished(t)
	b.stop()
	quiet := make(chan struct{})
	b.around = func(st store.Store) store.Store { return silent{st, quiet} }
	b.start()
	close(quiet)
	b.pass(16) // the agent looks at what its keys owe, and hears nothing
	b.keys.breaks("main", fmt.Errorf("%w: revoked", kek.ErrDenied))
	b.keys.breaks("spare", fmt.Errorf("%w: the network is down", kek.ErrUnreachable))
	b.pass(11)
	if got := b.state("one"); got != control.StateInaccessible {
		t.Errorf("the vault is %s", got)
	}
}

// TestPausedJobsYield: jobs that wait for a key hold up no job whose keys are there.
func TestPausedJobsYield(t *testing.T) {
	b := furnished(t)
	b.stop()
	text := strings.Replace(twoKeys, "items:", "  other: {store: \"file://$DIR/other\", keys: [spare]}\nitems:\n  docs2: {vault: one, files: {paths: [$DIR/docs]}}\n  fine: {vault: other, files: {paths: [$DIR/docs]}}", 1)
	b.configure(text)
	b.keys.breaks("main", fmt.Errorf("%w: unplugged", kek.ErrUnreachable))
	b.start()
	_, err := b.CreateVault(t.Context(), control.VaultCreate{Name: "other"})
	must(t, err)
	var waiting []int64
	for _, item := range []string{"docs", "docs2"} {
		j, err := b.Backup(t.Context(), control.BackupRequest{Item: item})
		must(t, err)
		waiting = append(waiting, j.ID)
		for e, err := range b.Events(t.Context(), j.ID, 0) {
			must(t, err)
			if e.Note != nil { // it is paused
				break
			}
		}
	}
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "fine"}))
	b.keys.breaks("main", nil)
	b.pass(1)
	for _, id := range waiting {
		if j := b.follow(id); j.State != control.JobDone {
			t.Errorf("%s: %s: %+v", j.Item, j.State, j.Error)
		}
	}
}

// TestMissingKeyIsNotWhy: a job does not wait for a key when the vault would not open
// with it either.
func TestMissingKeyIsNotWhy(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.keys.breaks("spare", fmt.Errorf("%w: unplugged", kek.ErrUnreachable))
	must(t, os.Remove(b.path("both", "vault")))
	b.start()
	j := b.wait(b.Backup(t.Context(), control.BackupRequest{Item: "more"}))
	if j.State != control.JobFailed || j.Error.Code == control.CodeKeysInaccessible {
		t.Errorf("%s: %+v", j.State, j.Error)
	}
}

// TestDeniedWhileOpening takes a key away while a job has asked it for the vault: the
// answer comes too late to be of use.
func TestDeniedWhileOpening(t *testing.T) {
	b := furnished(t)
	b.stop()
	release := b.keys.hold("main")
	b.start()
	j, err := b.Backup(t.Context(), control.BackupRequest{Item: "docs"})
	must(t, err)
	b.keys.breaks("main/open", fmt.Errorf("%w: revoked", kek.ErrDenied))
	b.pass(12)
	release()
	if j := b.follow(j.ID); j.State != control.JobFailed || j.Error.Code != control.CodeKeysInaccessible {
		t.Errorf("the backup: %s, %+v", j.State, j.Error)
	}
}

// TestCancelledDrill gives the primary key back.
func TestCancelledDrill(t *testing.T) {
	b := furnished(t)
	release := b.keys.hold("spare")
	j, err := b.DrillKeys(t.Context(), control.KeyDrill{Vault: "both"})
	must(t, err)
	for e, err := range b.Events(t.Context(), j.ID, 0) {
		must(t, err)
		if e.Note != nil { // the key is taken away
			break
		}
	}
	must(t, b.Cancel(t.Context(), j.ID))
	if j := b.follow(j.ID); j.State != control.JobCancelled {
		t.Errorf("%s: %+v", j.State, j.Error)
	}
	release()
	b.keys.breaks("spare", fmt.Errorf("%w: unplugged", kek.ErrUnreachable))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "more"}))
}
