//go:build unix

package control_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// TestMain lets the test binary be a caller of another user.
func TestMain(m *testing.M) {
	socket := os.Getenv("COFFER_TEST_SOCKET")
	switch os.Getenv("COFFER_TEST_CALL") {
	case "flood":
		floodSocket(socket)
	case "status":
		_, err := control.NewClient(control.ClientConfig{Socket: socket}).Status(context.Background())
		if err == nil {
			fmt.Print("welcome")
			return
		}
		e := control.AsError(err)
		fmt.Printf("%s: %s (%s)", e.Code, e.Message, e.Next)
	default:
		os.Exit(m.Run())
	}
}

// floodSocket opens all connections that it can, sends half a request on each, prints
// how many of them are left to it, and holds those until its input ends.
func floodSocket(socket string) {
	var held []net.Conn
	for len(held) < 400 {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			continue // the backlog is full for a moment
		}
		if _, err := io.WriteString(conn, "GET /v1/version HTTP/1.1\r\n"); err == nil {
			held = append(held, conn)
		}
	}
	// The other half, on all of them: those that were turned away are closed, and each
	// of the others has an answer, which leaves it open.
	open := 0
	for _, conn := range held {
		io.WriteString(conn, "Host: coffer\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && !resp.Close {
			open++
		}
	}
	fmt.Println(open)
	io.Copy(io.Discard, os.Stdin)
}

// asOther is this program as another user, who calls.
func asOther(t *testing.T, socket, call string, groups ...uint32) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(socket), "caller")
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copied)
	cmd.Env = []string{"COFFER_TEST_CALL=" + call, "COFFER_TEST_SOCKET=" + socket}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64123, Gid: 64123, Groups: groups}}
	return cmd
}

// callAs asks for the status as another user, and returns what it was told.
func callAs(t *testing.T, socket string, groups ...uint32) string {
	t.Helper()
	out, err := asOther(t, socket, "status", groups...).CombinedOutput()
	if err != nil {
		t.Fatalf("call as another user: %v: %s", err, out)
	}
	return string(out)
}

// let opens the way to a socket to everybody.
func let(t *testing.T, socket string) {
	t.Helper()
	for path, mode := range map[string]os.FileMode{filepath.Dir(filepath.Dir(socket)): 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOtherUsers: the mode of the socket, the credentials of the caller and the
// groups of the caller each decide as they should.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		testkit.Missing(t, "root", "run it as root to take on another user")
	}
	c := serve(t, world(), nil)
	if err := os.Chmod(filepath.Dir(filepath.Dir(c.socket)), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := callAs(t, c.socket); !strings.HasPrefix(got, "agent_no_permission: no permission to use "+c.socket+" (run it as root") {
		t.Errorf("with mode 0660: %s", got)
	}
	if err := os.Chmod(c.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := callAs(t, c.socket); got != "forbidden: uid 64123 may not use this agent (run it as root, or join a group that agent.roles or agent.socket_group names)" {
		t.Errorf("with mode 0666: %s", got)
	}

	const group = 64777
	opts := control.ListenOptions{Group: fmt.Sprint(group)}
	access, err := control.LocalAccess(opts)
	if err != nil {
		t.Fatal(err)
	}
	g := serve(t, world(), access.Role)
	if err := os.Chmod(filepath.Dir(filepath.Dir(g.socket)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(g.socket, 0, group); err != nil {
		t.Fatal(err)
	}
	if got := callAs(t, g.socket, group); got != "welcome" {
		t.Errorf("a member of the group: %s", got)
	}
	many := make([]uint32, 300)
	for i := range many {
		many[i] = uint32(64000 + i)
	}
	if got := callAs(t, g.socket, append(many, group)...); got != "welcome" {
		t.Errorf("a member of many groups: %s", got)
	}
	if got := callAs(t, g.socket); !strings.Contains(got, "agent_no_permission") || !strings.Contains(got, "member of group 64777") {
		t.Errorf("not a member: %s", got)
	}
}

// TestRoleGroups: the groups that the kernel tells of a caller give it its role, the
// highest of them all, and the socket lets everybody in who may have one.
func TestRoleGroups(t *testing.T) {
	if os.Geteuid() != 0 {
		testkit.Missing(t, "root", "run it as root to take on another user")
	}
	dir, err := os.MkdirTemp("", "coffer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	opts := control.ListenOptions{Roles: map[control.Role][]string{
		control.RoleViewer: {"64701", "64703"}, control.RoleOperator: {"64702"}, control.RoleKeyAdmin: {"64704"},
	}}
	access, err := control.LocalAccess(opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(t.Context(), socket, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var have []control.Role
	srv := control.NewServer(control.ServerConfig{Backend: world(), Logger: slog.New(slog.DiscardHandler), Role: func(p control.Peer) control.Role {
		mu.Lock()
		defer mu.Unlock()
		r := access.Role(p)
		have = append(have, r)
		return r
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, l) }()
	var want []control.Role
	for _, tt := range []struct {
		groups []uint32
		role   control.Role
	}{
		{nil, control.RoleNone},
		{[]uint32{64700}, control.RoleNone},
		{[]uint32{64701}, control.RoleViewer},
		{[]uint32{64703, 64702, 64701}, control.RoleOperator},
		{[]uint32{64701, 64704}, control.RoleKeyAdmin},
	} {
		got := callAs(t, socket, tt.groups...)
		if welcome := got == "welcome"; welcome != (tt.role > control.RoleNone) {
			t.Errorf("groups %v: %s", tt.groups, got)
		}
		want = append(want, tt.role)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := slices.Compact(have); !slices.Equal(got, slices.Compact(want)) {
		t.Errorf("the callers had the roles %v, want %v", got, want)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "s")
	l, err := control.Listen(t.Context(), path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	if _, err := control.Listen(t.Context(), path, control.ListenOptions{}); !errors.Is(err, control.ErrInUse) {
		t.Errorf("a second agent: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as a crash leaves it
	l, err = control.Listen(t.Context(), path, control.ListenOptions{})
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket outlives the listener: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path, group, want string
	}{
		{path: file, want: "is not a socket, and stays"},
		{path: link, want: "is not a socket, and stays"},
		{path: dir, want: "is not a socket, and stays"},
		{path: filepath.Join(file, "s"), want: "make its folder"},
		{path: "relative", want: "must be absolute"},
		{path: "@abstract", want: "must be absolute"},
		{path: filepath.Join(dir, strings.Repeat("x", 120)), want: "at most 107 bytes"},
		{path: filepath.Join(dir, "s"), group: "no-such-group", want: `there is no group "no-such-group" here`},
	}
	for _, tt := range tests {
		_, err := control.Listen(t.Context(), tt.path, control.ListenOptions{Group: tt.group})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("listen on %q: %v, want %q", tt.path, err, tt.want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// TestListenRace: of many agents that start over one stale socket, one listens.
func TestListenRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale(t, path)
	type result struct {
		l   net.Listener
		err error
	}
	results := make(chan result)
	for range 16 {
		go func() {
			l, err := control.Listen(t.Context(), path, control.ListenOptions{})
			results <- result{l, err}
		}()
	}
	won := 0
	for range 16 {
		switch r := <-results; {
		case r.err == nil:
			won++
			defer r.l.Close()
		case !errors.Is(r.err, control.ErrInUse):
			t.Error(r.err)
		}
	}
	if won != 1 {
		t.Errorf("%d agents listen", won)
	}
}

// stale leaves a socket that nobody answers on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestNoAgent(t *testing.T) {
	dir := t.TempDir()
	stale(t, filepath.Join(dir, "stale"))
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, code := range map[string]control.Code{
		"stale":  control.CodeNotRunning,
		"file":   control.CodeNoSocket,
		"none":   control.CodeNoSocket,
		"none/x": control.CodeNoSocket,
	} {
		_, err := control.NewClient(control.ClientConfig{Socket: filepath.Join(dir, name)}).Status(t.Context())
		if control.CodeOf(err) != code || control.AsError(err).Next == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClientWaits: an agent that is just starting is waited for, and its first
// answer is the answer.
func TestClientWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale(t, path)
	c := control.NewClient(control.ClientConfig{Socket: path, Wait: time.Minute})
	asked := make(chan error, 1)
	go func() {
		_, err := c.Status(t.Context())
		asked <- err
	}()
	l, err := control.Listen(t.Context(), path, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(time.Minute)); err != nil { // the client may have given up
		t.Fatal(err)
	}
	conn, err := l.Accept()
	for err == nil { // Listen's own look at the stale socket is not here: nobody listened
		if n, _ := conn.Read(make([]byte, 4096)); n > 0 {
			break
		}
		conn.Close()
		conn, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(conn, bytes.NewBufferString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	if err := <-asked; err != nil {
		t.Errorf("status: %v", err)
	}
	conn.Close()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); control.CodeOf(err) != control.CodeCancelled {
		t.Errorf("a call that was cancelled: %v", err)
	}
}
