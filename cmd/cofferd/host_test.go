//go:build linux

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// patience is how long a test waits for what must happen. It is long, because a
// loaded machine is slow, and costs nothing where all is well.
const patience = 2 * time.Minute

// host is a machine of a test's own: a folder with a configuration, a state, a
// store and a socket, and at most one agent.
type host struct {
	testing.TB
	dir    string
	env    []string // besides the test's own
	as     *syscall.Credential
	under  []string       // a program, and its arguments, that the agent is started with
	clock  *testkit.Clock // nil: the machine's
	daemon *daemon
}

// daemon is a running cofferd.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// plain is a configuration with a software key, a vault in a folder, a folder to
// keep and a stream.
const plain = `
agent: {state: $DIR/state, socket: $DIR/s}
keys:
  main: {uri: "file://$DIR/kek.pem"}
vaults:
  local: {store: "file://$DIR/vault", keys: [main]}
items:
  docs: {vault: local, files: {paths: [$DIR/docs]}}
  pipe: {vault: local, stream: {name: dump}}
`

// newHost makes a machine with a configuration, in which $DIR is its folder. The
// folder has a short name, because the name of a socket must be.
func newHost(t testing.TB, config string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "cf")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	h := &host{TB: t, dir: dir}
	t.Cleanup(func() {
		h.kill()
		if t.Failed() {
			h.showLogs()
		}
		must(t, os.RemoveAll(dir))
	})
	must(t, os.Mkdir(h.path("docs"), 0o755))
	h.configure(config)
	return h
}

// configure writes the configuration, for the next start.
func (h *host) configure(config string) {
	h.Helper()
	h.write("coffer.yaml", strings.ReplaceAll(config, "$DIR", h.dir))
}

// path returns the path of something in the host's folder.
func (h *host) path(name ...string) string {
	return filepath.Join(append([]string{h.dir}, name...)...)
}

func (h *host) write(name, content string) {
	h.Helper()
	must(h, os.WriteFile(h.path(name), []byte(content), 0o600))
}

// command is a program of ours with the host's environment.
func (h *host) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	cmd.Env = append(append(os.Environ(), "COFFER_SOCKET="+h.path("s")), h.env...)
	cmd.Dir = h.dir
	return cmd
}

// start starts the agent and returns when it answers.
func (h *host) start() {
	h.Helper()
	d := h.launch("coffer.yaml")
	until(h, "the agent answers", func() bool {
		select {
		case <-d.done:
			h.Fatalf("cofferd ended: %s\n%s", d.cmd.ProcessState, h.read(d.log))
		default:
		}
		conn, err := net.Dial("unix", h.path("s"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	h.daemon = d
}

// launch starts an agent with a configuration and returns at once.
func (h *host) launch(config string) *daemon {
	h.Helper()
	log, err := os.CreateTemp(h.dir, "log")
	must(h, err)
	defer log.Close()
	d := &daemon{cmd: h.command(context.Background(), "cofferd", "run", "--config", h.path(config)), log: filepath.Base(log.Name()), done: make(chan struct{})}
	if h.under != nil {
		program, err := exec.LookPath(h.under[0])
		must(h, err)
		d.cmd.Path, d.cmd.Args = program, slices.Concat(h.under, []string{d.cmd.Path}, d.cmd.Args[1:])
	}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if h.clock != nil {
		d.cmd.Path, err = os.Executable()
		must(h, err)
		d.cmd.Env = append(d.cmd.Env, aheadOf+"="+h.clock.Ahead().String())
	}
	if h.as != nil {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.as}
	}
	must(h, d.cmd.Start())
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // its exit code is looked at where it matters
	}()
	return d
}

// wait waits until the daemon has ended, and returns its exit code: -1 if a signal
// ended it.
func (d *daemon) wait(t testing.TB) int {
	t.Helper()
	select {
	case <-d.done:
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("cofferd does not end")
		return 0
	}
}

// stop ends the agent as systemd does, and it must end well.
func (h *host) stop() {
	h.Helper()
	d := h.daemon
	h.daemon = nil
	must(h, d.cmd.Process.Signal(syscall.SIGTERM))
	if code := d.wait(h); code != 0 {
		h.Errorf("cofferd ended with %d after SIGTERM\n%s", code, h.read(d.log))
	}
}

// kill ends the agent as a power cut does.
func (h *host) kill() {
	if d := h.daemon; d != nil {
		h.daemon = nil
		_ = d.cmd.Process.Kill() // it may have ended
		<-d.done
	}
}

// read returns the content of a file of the host.
func (h *host) read(name string) string {
	h.Helper()
	b, err := os.ReadFile(h.path(name))
	must(h, err)
	return string(b)
}

// showLogs logs what the agents said.
func (h *host) showLogs() {
	logs, _ := filepath.Glob(h.path("log*"))
	for _, name := range logs {
		b, err := os.ReadFile(name)
		h.Logf("%s %v\n%s", name, err, b[max(0, len(b)-4000):])
	}
}

// result is how a program ended.
type result struct {
	t        testing.TB
	what     string
	code     int
	out, err string
}

// coffer runs coffer to its end.
func (h *host) coffer(args ...string) result {
	h.Helper()
	return h.run(nil, "coffer", args...)
}

// run runs a program of ours to its end, perhaps with something to read.
func (h *host) run(stdin []byte, name string, args ...string) result {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	cmd := h.command(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	return finish(h, cmd)
}

// finish runs a command to its end.
func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := result{t: t, what: strings.Join(cmd.Args, " "), code: cmd.ProcessState.ExitCode(), out: out.String(), err: errs.String()}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || r.code < 0) {
		t.Fatalf("%s: %v\n%s%s", r.what, err, r.out, r.err)
	}
	return r
}

// done requires that all went well.
func (r result) done() result {
	r.t.Helper()
	return r.says(control.ExitDone)
}

// says requires an exit code, and words in what was printed.
func (r result) says(code int, words ...string) result {
	r.t.Helper()
	if r.code != code {
		r.t.Fatalf("%s: exit code %d, want %d\n%s%s", r.what, r.code, code, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			r.t.Errorf("%s: it does not say %q:\n%s%s", r.what, w, r.out, r.err)
		}
	}
	return r
}

// fails requires a fault with its words, and a next step.
func (r result) fails(code int, words ...string) result {
	r.t.Helper()
	return r.says(code, append(words, "next  ")...)
}

// fromJSON decodes what a command with --json printed.
func fromJSON[T any](r result) T {
	r.t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		r.t.Fatalf("%s: %v\n%s%s", r.what, err, r.out, r.err)
	}
	return v
}

// ready makes the key and the vault, and returns the vault's id.
func (h *host) ready() string {
	h.Helper()
	h.start()
	h.coffer("key", "create", "main").done()
	return fromJSON[control.VaultCreated](h.coffer("vault", "create", "local", "--json").done()).ID
}

// backup makes a point and returns it.
func (h *host) backup(item string) control.Point {
	h.Helper()
	return *fromJSON[control.Job](h.coffer("backup", item, "--json").done()).Result.Point
}

// points returns the ids of an item's points.
func (h *host) points(item string) []string {
	h.Helper()
	var ids []string
	for _, p := range fromJSON[[]control.Point](h.coffer("point", "list", item, "--json").done()) {
		ids = append(ids, p.ID)
	}
	return ids
}

// detached starts a job that runs by itself.
func (h *host) detached(args ...string) int64 {
	h.Helper()
	return fromJSON[control.Job](h.coffer(append(args, "--detach", "--json")...).done()).ID
}

// job returns a job as it is.
func (h *host) job(id int64) control.Job {
	h.Helper()
	return fromJSON[control.Job](h.coffer("job", "show", fmt.Sprint(id), "--json").done())
}

// until waits for a condition that may not last.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	wait(t, 2*time.Millisecond, what, ok)
}

// patiently waits for a condition that lasts, and leaves the machine to others.
func patiently(t testing.TB, what string, ok func() bool) {
	t.Helper()
	wait(t, 200*time.Millisecond, what, ok)
}

func wait(t testing.TB, every time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in %s it never came that %s", patience, what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needRoot ends the test where it cannot mount or change users.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "root", "run the tests as root")
	}
}
