//go:build linux

package main_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestRolesReloaded: what a group may do changes with a reload; only the first role needs
// a restart, and a name that is no group changes nothing.
func TestRolesReloaded(t *testing.T) {
	needRoot(t)
	with := func(roles string) string {
		return strings.Replace(plain, "agent: {", "agent: {roles: {"+roles+"}, ", 1)
	}
	h := newHost(t, with("viewer: [65534]"))
	must(t, os.Chmod(h.dir, 0o755))
	h.start()
	other := func(args ...string) result {
		t.Helper()
		cmd := h.command(t.Context(), "coffer", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
		return finish(t, cmd)
	}
	other("item", "list").done()
	other("doctor").fails(control.ExitFailed, "has the role viewer here, and this needs operator")

	h.configure(with("operator: [65534]"))
	other("config", "reload").fails(control.ExitFailed, "this needs operator")
	h.coffer("config", "reload").done()
	other("config", "reload").done()

	h.configure(with("key_admin: [no-such-group]"))
	h.coffer("config", "reload").fails(control.ExitFailed, "agent.roles.key_admin", "no-such-group")
	other("item", "list").done()

	h.configure(plain)
	h.coffer("config", "reload").done()
	other("item", "list").fails(control.ExitFailed, "may not use this agent")

	h.stop()
	h.start()
	h.configure(with("viewer: [65534]"))
	h.coffer("config", "reload").fails(control.ExitFailed, "agent.roles", "restart the agent")
}
