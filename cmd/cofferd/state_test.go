//go:build linux

package main_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestStateFull fills the disk that the agent's state is on, under it and before it
// starts. It answers, says what it cannot do for want of room and does not half of
// it; a restore goes on without state; and all is well when there is room.
func TestStateFull(t *testing.T) {
	h := newHost(t, plain)
	small(t, h.path("state"), 2)
	t.Cleanup(h.kill) // before its state goes
	furnish(t, h.path("docs"))
	id := h.ready()
	first := h.backup("docs").ID
	filler := h.path("state", "filler")
	for _, when := range []string{"under it", "before it starts"} {
		t.Run(when, func(t *testing.T) {
			h := h.in(t)
			if when != "under it" {
				h.stop()
			}
			fillUp(t, filler)
			if when != "under it" {
				h.start()
			}
			h.coffer("status").says(control.ExitDone, "docs")
			if got := h.coffer("backup", "docs"); got.code == control.ExitDone || !strings.Contains(got.err, "no space left") {
				t.Errorf("the backup ended with %d and says\n%s", got.code, got.err)
			}
			back := h.path("back-" + strings.ReplaceAll(when, " ", "-"))
			h.run(nil, "cofferd", "rescue", "--store", "file://"+h.path("vault"), "--vault-id", id, "--key", "file://"+h.path("kek.pem"), "restore", "docs", back).done()
			sameTree(t, h.path("docs"), back+h.path("docs"))
			must(t, os.Remove(filler))
		})
	}
	if got := h.points("docs"); len(got) != 1 || got[0] != first {
		t.Errorf("points %q without room for a backup, want %s", got, first)
	}
	h.backup("docs")
	h.coffer("verify", "docs").done()
	h.coffer("audit", "verify").done()
}

// fillUp leaves no room on the file system of a file.
func fillUp(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer f.Close()
	for size := 1 << 16; size > 0; size /= 2 {
		for err == nil {
			_, err = f.Write([]byte(strings.Repeat("x", size)))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
		err = nil
	}
}
