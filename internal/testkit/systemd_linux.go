package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/internal/durable"
)

// imageName is the Debian that the machines are made of. Another content needs
// another name.
const imageName = "bookworm-systemd-1"

// bootWait is how long a machine has to boot.
const bootWait = 2 * time.Minute

// Systemd is a machine of a test's own: a Debian that a real systemd runs as PID 1,
// without a network. What is written in it is gone with it.
type Systemd struct {
	t      testing.TB
	root   string // its / as this machine sees it
	leader int    // its PID 1 as this machine sees it
}

// StartSystemd boots a machine that has some more packages of Debian's, and ends it
// when the test ends.
func StartSystemd(t testing.TB, packages ...string) *Systemd {
	t.Helper()
	Part(t, "systemd")
	if os.Geteuid() != 0 {
		Missing(t, "root", "run the tests as root")
	}
	for program, pkg := range map[string]string{"systemd-nspawn": "systemd-container", "debootstrap": "debootstrap", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, program, "apt-get install "+pkg)
		}
	}
	dir := t.TempDir()
	s := &Systemd{t: t, root: filepath.Join(dir, "root")}
	s.mount(dir, image(t, packages))
	group := "coffer-test-" + strconv.Itoa(os.Getpid())
	leave := enterGroup(t, group)
	t.Cleanup(leave)

	ready := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: ready, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// In a group of its own, because it makes two beneath the one where it is.
	const script = `for g in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
		[ ! -d "$g/$0" ] || echo $$ >"$g/$0/cgroup.procs"; done; exec "$@"`
	cmd := exec.Command("sh", "-c", script, group, "systemd-nspawn", "--quiet", "--boot", "--directory="+s.root, "--machine="+group,
		"--register=no", "--keep-unit", "--private-network", "--console=read-only", "--notify-ready=yes", "--hostname=host1")
	p := startProcess(t, cmd, append(os.Environ(), "NOTIFY_SOCKET="+ready, "SYSTEMD_LOG_LEVEL=warning"))
	s.leader = s.awaitBoot(l, p)
	t.Cleanup(func() { s.halt(p) })
	return s
}

// mount lays an empty file system over the image, at s.root.
func (s *Systemd) mount(dir, lower string) {
	s.t.Helper()
	mkdir(s.t, s.root)
	over := filepath.Join(dir, "over")
	mkdir(s.t, over)
	do := func(what string, err error) {
		if err != nil {
			s.t.Fatalf("mount %s: %v", what, err)
		}
	}
	do("memory", unix.Mount("coffer-test", over, "tmpfs", 0, "size=2g,mode=755"))
	s.t.Cleanup(func() { unmount(s.t, over) })
	upper, work := filepath.Join(over, "upper"), filepath.Join(over, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	do("overlay", unix.Mount("coffer-test", s.root, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work))
	s.t.Cleanup(func() { unmount(s.t, s.root) })
}

func unmount(t testing.TB, path string) {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", path, err)
	}
}

// awaitBoot returns the process id of the machine's PID 1 when it has booted.
func (s *Systemd) awaitBoot(l *net.UnixConn, p *process) int {
	s.t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(bootWait)); err != nil {
		s.t.Fatal(err)
	}
	leader, buf := 0, make([]byte, 4096)
	for {
		n, err := l.Read(buf)
		if err != nil {
			s.t.Fatalf("the machine does not boot: %v\n%s", err, p.output())
		}
		for line := range strings.Lines(string(buf[:n])) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch {
			case name == "X_NSPAWN_LEADER_PID":
				leader, _ = strconv.Atoi(value)
			case name == "READY" && value == "1" && leader != 0:
				return leader
			}
		}
	}
}

// halt powers the machine off.
func (s *Systemd) halt(p *process) {
	// SIGRTMIN+4 is "poweroff" to systemd (systemd(1)).
	_ = syscall.Kill(s.leader, syscall.Signal(34+4))
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(s.leader, syscall.SIGKILL)
		<-p.done
	}
}

// Path returns the path that something of the machine has on this one.
func (s *Systemd) Path(name string) string { return filepath.Join(s.root, name) }

// Run runs a shell command as root in the machine, and returns what it printed and
// its exit code.
func (s *Systemd) Run(ctx context.Context, command string) (string, int) {
	s.t.Helper()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(s.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TZ=UTC", "SYSTEMD_PAGER=", "sh", "-c", command)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s: %v", command, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// enterGroup makes a control group for a machine, in each hierarchy of systemd's that
// there is, and returns what removes it.
func enterGroup(t testing.TB, name string) (leave func()) {
	t.Helper()
	var made []string
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(hierarchy, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatalf("make a control group: %v", err)
		}
		made = append(made, dir)
	}
	return func() {
		for _, dir := range made {
			removeGroup(dir)
		}
	}
}

// removeGroup removes a control group with those beneath it. What is left of one is
// without processes and without harm.
func removeGroup(dir string) {
	below, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range below {
		if e.IsDir() {
			removeGroup(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// image returns the folder with the Debian and some more packages, which is made once,
// in a minute.
func image(t testing.TB, packages []string) string {
	t.Helper()
	dir := filepath.Join(cache(t), "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, strings.Join(slices.Concat([]string{imageName}, packages), "+"))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	lock, err := durable.Lock(path + ".lock")
	if err != nil {
		t.Fatalf("make %s: %v", path, err)
	}
	defer lock.Close()
	half := path + ".half"
	if err := os.RemoveAll(half); err != nil {
		t.Fatal(err)
	}
	t.Logf("making a Debian with systemd in %s, once", path)
	cmd := exec.CommandContext(t.Context(), "debootstrap", "--variant=minbase", "--include="+strings.Join(slices.Concat([]string{"systemd", "systemd-sysv", "dbus"}, packages), ","), "bookworm", half)
	if out, err := cmd.CombinedOutput(); err != nil {
		Missing(t, "a Debian image", fmt.Sprintf("debootstrap: %v\n%s", err, out[max(0, len(out)-2000):]))
	}
	// A crash here leaves a folder that the next run removes.
	if err := os.Rename(half, path); err != nil {
		t.Fatal(err)
	}
	return path
}
