package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// DefaultSocket is where the agent listens if nothing else is said.
const DefaultSocket = `\\.\pipe\coffer`

// pipeACL admits the system and administrators, and nobody from the network.
const pipeACL = "D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)"

// Listen opens the agent's named pipe at path ("": DefaultSocket). If an agent answers there, the
// error is ErrInUse.
func Listen(_ context.Context, path string, opts ListenOptions) (net.Listener, error) {
	if opts.Group != "" {
		return nil, errors.New("agent.socket_group has no meaning on Windows: administrators may connect; leave it out")
	}
	if opts.open() {
		return nil, errors.New("agent.roles has no meaning on Windows: administrators may do everything; leave it out")
	}
	if path == "" {
		path = DefaultSocket
	}
	l, err := winio.ListenPipe(path, &winio.PipeConfig{SecurityDescriptor: pipeACL})
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, fmt.Errorf("listen on %s: %w on it, or this account may not: %v", path, ErrInUse, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// LocalAccess is the access of an agent that listens with opts: the pipe's ACL
// decides.
func LocalAccess(ListenOptions) (Access, error) { return Access{}, nil }

// dialSocket connects to the agent's pipe.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	return winio.DialPipeContext(ctx, path)
}

// explainDial says why there is no connection, and what to do.
func explainDial(path string, err error) *Error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &Error{
			Code: CodeNoPermission, Message: fmt.Sprintf("no permission to use %s", path),
			Next: "run it as an administrator",
		}
	case errors.Is(err, fs.ErrNotExist):
		return &Error{
			Code: CodeNoSocket, Message: fmt.Sprintf("no agent: there is no pipe %s", path),
			Next: "start it (sc start cofferd), or name its pipe with --socket or COFFER_SOCKET",
		}
	}
	return &Error{Code: CodeNotRunning, Message: fmt.Sprintf("connect to the agent: %v", err)}
}

// refused tells whether an agent may be just starting. A pipe does not outlive
// its agent, so it never is.
func refused(error) bool { return false }
