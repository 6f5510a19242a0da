//go:build unix

package hook

import (
	"os/exec"
	"syscall"
)

// group is the process group of a command.
type group struct{ cmd *exec.Cmd }

// contain puts a command that is to be started into a process group of its own.
func contain(cmd *exec.Cmd) *group {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &group{cmd}
}

func (g *group) started() {}

// stop asks all of the group to end.
func (g *group) stop() error { return syscall.Kill(-g.cmd.Process.Pid, syscall.SIGTERM) }

// kill ends all of the group. There may be nobody left.
func (g *group) kill() { _ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) }

func (g *group) release() {}
