//go:build linux

package main_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// manager is what systemd is to an agent: who is told how it does.
type manager struct {
	t testing.TB
	l *net.UnixConn
}

// newManager listens for what the host's agent says, with a watchdog of a second.
func newManager(t testing.TB, h *host) *manager {
	t.Helper()
	path := h.path("notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	h.env = append(h.env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=1000000")
	return &manager{t, l}
}

// hears waits for a message that has all the words.
func (m *manager) hears(words ...string) {
	m.t.Helper()
	must(m.t, m.l.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 4096)
	for {
		n, err := m.l.Read(buf)
		if err != nil {
			m.t.Fatalf("the agent never says %q: %v", words, err)
		}
		all := true
		for _, w := range words {
			all = all && strings.Contains(string(buf[:n]), w)
		}
		if all {
			return
		}
	}
}

// TestNotify is an agent under a service manager that wants to know how it does, and
// reloads it by SIGHUP.
func TestNotify(t *testing.T) {
	h := newHost(t, plain)
	m := newManager(t, h)
	h.start()
	m.hears("READY=1", "STATUS=All well")
	m.hears("WATCHDOG=1", "STATUS=All well")

	hup := func() { must(t, h.daemon.cmd.Process.Signal(syscall.SIGHUP)) }
	h.configure(plain + "nonsense: yes\n")
	hup()
	m.hears("RELOADING=1", "MONOTONIC_USEC=")
	m.hears("READY=1", "STATUS=the configuration on disk was refused: coffer status")
	m.hears("WATCHDOG=1", "refused") // until it is mended
	h.coffer("item", "list").says(control.ExitDone, "docs")

	h.configure(strings.Replace(plain, "  docs:", "  more: {vault: local, files: {paths: [$DIR]}}\n  docs:", 1))
	hup()
	m.hears("READY=1", "STATUS=All well")
	h.coffer("item", "list").says(control.ExitDone, "docs", "more")

	h.configure(strings.Replace(plain, "$DIR/state", "$DIR/elsewhere", 1)) // what only a restart can do
	hup()
	m.hears("READY=1", "refused")
	must(t, h.daemon.cmd.Process.Signal(syscall.SIGTERM))
	m.hears("STOPPING=1")
	h.daemon.wait(t)
}

// TestWatchdog stops an agent as a hang does: it says nothing any more, and again
// when it goes on.
func TestWatchdog(t *testing.T) {
	h := newHost(t, plain)
	m := newManager(t, h)
	h.start()
	m.hears("WATCHDOG=1")
	must(t, h.daemon.cmd.Process.Signal(syscall.SIGSTOP))
	until(t, "it says nothing for two seconds", func() bool {
		must(t, m.l.SetReadDeadline(time.Now().Add(2*time.Second)))
		_, err := m.l.Read(make([]byte, 4096))
		return os.IsTimeout(err)
	})
	must(t, h.daemon.cmd.Process.Signal(syscall.SIGCONT))
	m.hears("WATCHDOG=1")
}

// TestHandedOver has the socket from who started it, and leaves it there.
func TestHandedOver(t *testing.T) {
	h := newHost(t, plain)
	started := func(path string) (*net.UnixListener, *daemon) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		must(t, err)
		t.Cleanup(func() { l.Close() })
		f, err := l.File()
		must(t, err)
		defer f.Close()
		log, err := os.Create(h.path("log-" + filepath.Base(path)))
		must(t, err)
		defer log.Close()
		run := h.command(context.Background(), "cofferd", "run", "--config", h.path("coffer.yaml"))
		d := &daemon{log: filepath.Base(log.Name()), done: make(chan struct{}),
			cmd: exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`}, run.Args...)...)}
		d.cmd.Env, d.cmd.Dir, d.cmd.ExtraFiles = append(run.Env, "LISTEN_FDS=1"), run.Dir, []*os.File{f}
		d.cmd.Stdout, d.cmd.Stderr = log, log
		must(t, d.cmd.Start())
		go func() {
			defer close(d.done)
			_ = d.cmd.Wait() // its exit code is looked at where it matters
		}()
		return l, d
	}
	l, d := started(h.path("s"))
	h.daemon = d
	h.coffer("status").done()
	h.stop()
	if !exists(h.path("s")) {
		t.Error("the agent removed a socket that is not its own")
	}
	l.Close()

	_, other := started(h.path("other"))
	if code := other.wait(t); code != control.ExitFailed {
		t.Errorf("with another socket than the configuration's it ended with %d", code)
	}
	result{t: t, what: "cofferd", code: control.ExitFailed, out: h.read(other.log)}.fails(control.ExitFailed, h.path("s"), "coffer.socket")
}

// TestService asks for what only root may do, and with a configuration that is
// broken.
func TestService(t *testing.T) {
	needRoot(t)
	h := newHost(t, plain)
	as := nobody(t, h)
	for _, verb := range []string{"install", "uninstall"} {
		cmd := h.command(t.Context(), "cofferd", verb)
		if verb == "install" {
			cmd.Args = append(cmd.Args, "--config", h.path("coffer.yaml"))
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		finish(t, cmd).fails(control.ExitFailed, "root", "sudo cofferd "+verb)
	}
	h.configure("nonsense: yes\n")
	h.run(nil, "cofferd", "install", "--config", h.path("coffer.yaml")).says(control.ExitFailed, "nonsense")
	if exists("/etc/systemd/system/cofferd.service") {
		t.Error("it was installed all the same")
	}
	h.run(nil, "cofferd", "status", "twice").says(control.ExitUsage)
}
