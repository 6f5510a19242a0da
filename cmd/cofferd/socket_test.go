//go:build linux

package main_test

import (
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// nobodyID is a user and group without rights.
const nobodyID = 65534

var coreIsZero = regexp.MustCompile(`(?m)^Max core file size +0 +0 `)

// nobody gives a host's folder to a user without rights, to run its agent as.
func nobody(t testing.TB, h *host) *syscall.Credential {
	t.Helper()
	must(t, os.Chown(h.dir, nobodyID, nobodyID))
	must(t, os.Chown(h.path("coffer.yaml"), nobodyID, nobodyID))
	return &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
}

func owner(t testing.TB, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Uid
}

func itoa(n int) string { return strconv.Itoa(n) }

// TestSocketWithoutPermission is another user at the door.
func TestSocketWithoutPermission(t *testing.T) {
	needRoot(t)
	h := newHost(t, plain)
	h.start()
	cmd := h.command(t.Context(), "coffer", "status")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
	finish(t, cmd).fails(control.ExitFailed, "permission", h.path("s"))
}

// TestNoAgent is coffer before cofferd, and after it was killed.
func TestNoAgent(t *testing.T) {
	h := newHost(t, plain)
	h.coffer("status").fails(control.ExitFailed, h.path("s"))
	h.start()
	h.kill()
	h.coffer("status").fails(control.ExitFailed, "cofferd")
	h.start() // over what the dead one left
	h.coffer("status").done()
}

// TestTwoAgents starts a second agent on the state, or on the socket, of one that
// runs. It says so, and the first goes on.
func TestTwoAgents(t *testing.T) {
	for name, tt := range map[string]struct{ config, says string }{
		"one state":       {"agent: {state: $DIR/state, socket: $DIR/s2}\n", "state folder"},
		"the same folder": {"agent: {state: $DIR/link, socket: $DIR/s2}\n", "state folder"},
		"one socket":      {"agent: {state: $DIR/state2, socket: $DIR/s}\n", "agent.socket"},
		"both":            {plain, "agent.socket"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, plain)
			fill(t, h.path("docs"), 1, 1, 10)
			h.ready()
			must(t, os.Symlink("state", h.path("link")))
			must(t, os.Rename(h.path("coffer.yaml"), h.path("first.yaml")))
			h.configure(tt.config)
			second := h.launch("coffer.yaml")
			if code := second.wait(t); code != control.ExitFailed {
				t.Errorf("exit code %d, want %d", code, control.ExitFailed)
			}
			result{t: t, what: "cofferd", code: control.ExitFailed, out: h.read(second.log)}.says(control.ExitFailed, tt.says)
			h.backup("docs")
		})
	}
}

// TestSocketFolder has a path for the socket at which there is something else.
func TestSocketFolder(t *testing.T) {
	h := newHost(t, plain)
	h.write("s", "precious")
	d := h.launch("coffer.yaml")
	if code := d.wait(t); code != control.ExitFailed {
		t.Errorf("exit code %d, want %d", code, control.ExitFailed)
	}
	if got := h.read("s"); got != "precious" {
		t.Errorf("what was at the socket's path is now %q", got)
	}
}
