//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSocket is where the agent listens if nothing else is said.
const DefaultSocket = "/run/coffer/coffer.sock"

// The modes let the owner and the group connect, or everybody.
const (
	socketMode     = 0o660
	socketModeOpen = 0o666
)

// maxSocketPath is the room for a path in sockaddr_un on Linux, without its NUL.
const maxSocketPath = 107

// Listen opens the agent's socket at path, an absolute one ("": DefaultSocket), and
// makes its folder if need be. A socket that nobody answers on any more is replaced. What is not a
// socket is never touched, and if an agent answers there, the error is ErrInUse.
// Closing the listener removes the socket.
func Listen(ctx context.Context, path string, opts ListenOptions) (net.Listener, error) {
	if path == "" {
		path = DefaultSocket
	}
	if !filepath.IsAbs(path) || len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on %q: the path of a socket must be absolute and at most %d bytes long", path, maxSocketPath)
	}
	gid, mode := -1, fs.FileMode(socketMode)
	if opts.open() {
		mode = socketModeOpen
	}
	if opts.Group != "" {
		g, err := LookupGroup(opts.Group)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
		gid = int(g)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: make its folder: %w", path, err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer unlock()
	if err := clearSocket(ctx, path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err // "listen unix PATH: ..."
	}
	// Until here the umask decided who may connect; whoever did is asked for its
	// credentials like everyone else. The mode only spares the agent callers that have
	// no role: who may do what is never read from it.
	if gid >= 0 {
		err = os.Lchown(path, -1, gid)
	}
	if err := errors.Join(err, os.Chmod(path, mode)); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// lockDir keeps two agents that start at once from taking each other's new socket
// for a stale one.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// clearSocket makes room for a new socket at path.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("what is there is not a socket, and stays: move it away, or name another path as agent.socket")
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%w on it: stop it first, or name another path as agent.socket", ErrInUse)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("tell whether an agent is on it: %w", err)
	}
	return os.Remove(path)
}

// LookupGroup returns the id of a group, by name or number.
func LookupGroup(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err == nil {
		name = g.Gid
	}
	id, perr := strconv.ParseUint(name, 10, 32)
	if perr != nil {
		return 0, fmt.Errorf("there is no group %q here: make it (groupadd --system %s), or correct the name", name, name)
	}
	return uint32(id), nil
}

// LocalAccess is the access of an agent that runs as this process and listens
// with opts.
func LocalAccess(opts ListenOptions) (Access, error) {
	a := Access{UID: uint32(os.Geteuid())}
	if opts.Group != "" {
		gid, err := LookupGroup(opts.Group)
		if err != nil {
			return Access{}, fmt.Errorf("agent.socket_group: %w", err)
		}
		a.Group = &gid
	}
	for role, names := range opts.Roles {
		for _, name := range names {
			gid, err := LookupGroup(name)
			if err != nil {
				return Access{}, fmt.Errorf("agent.roles.%s: %w", role.field(), err)
			}
			if a.Groups == nil {
				a.Groups = make(map[uint32]Role)
			}
			a.Groups[gid] = max(a.Groups[gid], role)
		}
	}
	return a, nil
}

// dialSocket connects to the agent's socket.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}

// explainDial says why there is no connection, and what to do.
func explainDial(path string, err error) *Error {
	info, statErr := os.Stat(path)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return &Error{
			Code: CodeNoPermission, Message: fmt.Sprintf("no permission to use %s", path),
			Next: "run it as root, or as a member of " + groupOf(info),
		}
	case errors.Is(err, fs.ErrNotExist):
		return &Error{
			Code: CodeNoSocket, Message: fmt.Sprintf("no agent: there is no socket %s", path),
			Next: "start it (cofferd start), or name its socket with --socket or COFFER_SOCKET",
		}
	case statErr == nil && info.Mode().Type() != fs.ModeSocket:
		return &Error{
			Code: CodeNoSocket, Message: fmt.Sprintf("%s is not a socket", path),
			Next: "name the agent's socket with --socket or COFFER_SOCKET",
		}
	case errors.Is(err, unix.ECONNREFUSED):
		return &Error{
			Code: CodeNotRunning, Message: fmt.Sprintf("the agent is not running: nobody listens on %s", path),
			Next: "start it (cofferd start); if it does not stay, its log says why: journalctl -u cofferd, or /var/log/cofferd.log where there is no systemd",
		}
	}
	return &Error{Code: CodeNotRunning, Message: fmt.Sprintf("connect to the agent: %v", err)}
}

// groupOf names the group of a socket.
func groupOf(info fs.FileInfo) string {
	if info == nil {
		return "the socket's group"
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o020 == 0 || st.Gid == 0 {
		return "the group that agent.socket_group names"
	}
	gid := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(gid); err == nil {
		return "group " + g.Name
	}
	return "group " + gid
}

// refused tells whether a socket is there and nobody listens: an agent that is
// just starting, or a stale socket.
func refused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }
