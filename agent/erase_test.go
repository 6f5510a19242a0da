//go:build linux

package agent_test

import (
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestErase destroys an item, and nothing else.
func TestErase(t *testing.T) {
	b := furnished(t)
	b.done(b.Verify(t.Context(), control.VerifyRequest{Item: "docs"}))
	_, err := b.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "more"})
	b.refused(err, control.CodeBadRequest)
	done, err := b.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "docs"})
	must(t, err)
	if done.Secrets != 1 || done.Deleted == 0 || done.Locked != 0 {
		t.Errorf("%+v", done)
	}
	if p := b.proved("docs"); p != (control.Proof{}) {
		t.Errorf("what is left was verified: %+v", p)
	}
	_, err = b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: b.path("back")})
	b.refused(err, control.CodeNotFound)
	b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "more", Target: b.path("back")}))
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"})) // it may be made anew
	b.done(b.Verify(t.Context(), control.VerifyRequest{}))
}

// TestEraseWhileRotating: a rotation under way would wrap again what is destroyed.
func TestEraseWhileRotating(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.configure(strings.Replace(twoKeys, `keys: [main]}`, `keys: [spare], restore_keys: [main]}`, 1))
	release := b.keys.hold("spare")
	b.start()
	_, err := b.RotateKeys(t.Context(), control.KeyRotate{Vault: "one"})
	must(t, err)
	_, err = b.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "docs"})
	b.refused(err, control.CodeConflict)
	release()
	b.idle()
	_, err = b.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "docs"})
	must(t, err)
}

// TestDrillAndRotation: a drill takes the primary key from nothing but the opening.
// What is made meanwhile is wrapped with it, and no rotation takes its wrappings.
func TestDrillAndRotation(t *testing.T) {
	b := furnished(t)
	b.stop()
	b.configure(strings.Replace(twoKeys, "items:", "items:\n  late: {vault: both, files: {paths: [$DIR/docs]}}", 1))
	b.start()
	release := b.keys.hold("spare")
	drill, err := b.DrillKeys(t.Context(), control.KeyDrill{Vault: "both", Item: "more"})
	must(t, err)
	for e, err := range b.Events(t.Context(), drill.ID, 0) {
		must(t, err)
		if e.Note != nil { // the key is taken away
			break
		}
	}
	for name, j := range map[string]control.Job{
		"a rotation":     b.wait(b.RotateKeys(t.Context(), control.KeyRotate{Vault: "both"})),
		"a second drill": b.wait(b.DrillKeys(t.Context(), control.KeyDrill{Vault: "both", Item: "late"})),
	} {
		if j.State != control.JobFailed || j.Error.Code != control.CodeConflict {
			t.Errorf("%s during a drill: %s, %+v", name, j.State, j.Error)
		}
	}
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "late"}))
	release()
	if j := b.follow(drill.ID); j.State != control.JobDone {
		t.Errorf("the drill: %s, %+v", j.State, j.Error)
	}
	v := opened(t, b, "both", "main")
	for r, err := range v.KeyRecords(t.Context()) {
		must(t, err)
		if len(r.Wrappings) != 2 {
			t.Errorf("the secret of %q is wrapped under %d keys", r.Item, len(r.Wrappings))
		}
	}
}
