//go:build linux

package main_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestStoreFull fills the store in the middle of a backup. What is in it stays
// good, and with more room the backup goes on where it stopped.
func TestStoreFull(t *testing.T) {
	h := newHost(t, plain)
	small(t, h.path("vault"), 48)
	furnish(t, h.path("docs"))
	h.ready()
	first := h.backup("docs")
	fill(t, h.path("docs/more"), 3, 24, 4<<20)
	h.coffer("backup", "docs").fails(control.ExitFailed, "store is full", "make room")
	if got := h.points("docs"); !slices.Equal(got, []string{first.ID}) {
		t.Errorf("points %q, want only %s", got, first.ID)
	}
	h.coffer("verify", "docs").done()
	kept := packs(h.path("vault"))

	must(t, mount(h.path("vault"), syscall.MS_REMOUNT, 400))
	second := h.backup("docs")
	if kept > 1 && second.Stats.NewBytes >= 96<<20 {
		t.Errorf("the second try stored %d bytes, all of them again, though %d packs were there", second.Stats.NewBytes, kept)
	}
	h.coffer("verify", "docs").done()
	h.coffer("restore", "docs@"+second.ID, h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
}

// TestStoreReadOnly has a store that can be read and not written.
func TestStoreReadOnly(t *testing.T) {
	h := newHost(t, plain)
	small(t, h.path("vault"), 64)
	furnish(t, h.path("docs"))
	h.ready()
	first := h.backup("docs")
	must(t, os.WriteFile(h.path("docs/new"), []byte("new"), 0o600))
	must(t, mount(h.path("vault"), syscall.MS_REMOUNT|syscall.MS_RDONLY, 64))
	h.coffer("backup", "docs").fails(control.ExitFailed, "read-only")
	h.coffer("verify", "docs").done()
	must(t, os.Remove(h.path("docs/new")))
	h.coffer("restore", "docs@"+first.ID, h.path("back")).done()
	h.stop()
	h.start() // and to an agent that never saw it otherwise
	h.coffer("restore", "docs@"+first.ID, h.path("again")).done()
	must(t, mount(h.path("vault"), syscall.MS_REMOUNT, 64))
	h.backup("docs")
}

// TestStoreGone takes the folder of the store away, as a disk that is not mounted.
func TestStoreGone(t *testing.T) {
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	h.ready()
	first := h.backup("docs")
	must(t, os.Rename(h.path("vault"), h.path("unplugged")))
	must(t, os.WriteFile(h.path("docs/new"), []byte("new"), 0o600))
	h.coffer("backup", "docs").fails(control.ExitFailed, "store does not exist")
	h.coffer("restore", "docs", h.path("back")).fails(control.ExitFailed, "store does not exist")
	h.stop()
	h.start() // an alarm, not a refusal
	h.coffer("status").says(control.ExitDone, "store does not exist")
	h.coffer("backup", "docs").fails(control.ExitFailed, "store does not exist")
	if _, err := os.Stat(h.path("vault")); err == nil {
		t.Error("a backup made a new store in the place of the one that is gone")
	}
	must(t, os.Rename(h.path("unplugged"), h.path("vault")))
	h.coffer("restore", "docs@"+first.ID, h.path("back")).done()
	h.backup("docs")
}

// TestStateGone loses the agent's state. Without an id nothing in the store is
// trusted; with it everything is there again, also the index.
func TestStateGone(t *testing.T) {
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	id := h.ready()
	first := h.backup("docs")
	h.stop()
	must(t, os.RemoveAll(h.path("state")))
	h.start()
	h.coffer("backup", "docs").fails(control.ExitFailed, "id", "recovery sheet")
	h.coffer("point", "list", "docs").fails(control.ExitFailed, "recovery sheet")
	h.coffer("vault", "create", "local").fails(control.ExitFailed, "holds a vault already") // never over another
	h.stop()
	h.configure(pinned(id))
	h.start()
	if again := h.backup("docs"); again.Stats.NewBytes > 64<<10 {
		t.Errorf("after the loss of the index %d bytes were stored again", again.Stats.NewBytes)
	}
	h.coffer("restore", "docs@"+first.ID, h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
}

// TestOtherVault pins the id of another vault than the one in the store.
func TestOtherVault(t *testing.T) {
	other := newHost(t, plain)
	wrong := other.ready()
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	id := h.ready()
	first := h.backup("docs")
	h.stop()
	h.configure(pinned(wrong))
	h.start()
	for _, args := range [][]string{{"backup", "docs"}, {"point", "list", "docs"}, {"restore", "docs", h.path("back")}, {"verify", "docs"}} {
		h.coffer(args...).fails(control.ExitFailed, "recovery sheet")
	}
	h.coffer("status").says(control.ExitDone, "recovery sheet")
	h.run(nil, "cofferd", "rescue", "--store", "file://"+h.path("vault"), "--vault-id", wrong, "--key", "file://"+h.path("kek.pem"), "ls").
		fails(control.ExitFailed, "recovery sheet")
	h.stop()
	h.configure(pinned(id))
	h.start()
	h.coffer("restore", "docs@"+first.ID, h.path("back")).done()
}

// pinned is plain with the vault's id.
func pinned(id string) string {
	return `
agent: {state: $DIR/state, socket: $DIR/s}
keys:
  main: {uri: "file://$DIR/kek.pem"}
vaults:
  local: {store: "file://$DIR/vault", keys: [main], id: ` + id + `}
items:
  docs: {vault: local, files: {paths: [$DIR/docs]}}
`
}

// TestDamage flips a bit in, and cuts, every object of a vault, one at a time.
// Verify finds each, and no restore ends well with other data, or leaves a file with
// other content under its name.
func TestDamage(t *testing.T) {
	h := newHost(t, plain)
	fill(t, h.path("docs"), 1, 8, 200<<10)
	id := h.ready()
	h.backup("docs")
	h.stop()
	h.configure(pinned(id))
	for _, object := range objects(t, h.path("vault"), "") {
		good, err := os.ReadFile(object)
		must(t, err)
		flipped := slices.Clone(good)
		if len(flipped) == 0 || strings.Contains(object, "/sessions/") {
			continue // of a session that has its point only the name counts
		}
		flipped[len(flipped)/2] ^= 4
		for what, bad := range map[string][]byte{"flipped": flipped, "cut": good[:len(good)/2]} {
			replace(t, object, bad)
			must(t, os.RemoveAll(h.path("state"))) // nothing is known from before
			must(t, os.RemoveAll(h.path("back")))
			h.start()
			verify, restore := h.coffer("verify", "docs"), h.coffer("restore", "docs", h.path("back"))
			if verify.code == control.ExitDone {
				t.Errorf("%s %s: verify says that all is well", what, object)
			}
			if restore.code == control.ExitDone {
				sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
			} else if back := h.path("back", h.path("docs")); exists(back) {
				wholeOrAbsent(t, h.path("docs"), back)
			}
			h.stop()
			replace(t, object, good)
		}
	}
	h.start()
	h.coffer("verify", "docs").done()
}

// replace writes an object as nobody may.
func replace(t testing.TB, path string, b []byte) {
	t.Helper()
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, b, 0o600))
}
