package control

import "errors"

// ErrInUse: another agent answers on the socket.
var ErrInUse = errors.New("another agent answers")

// ListenOptions of Listen.
type ListenOptions struct {
	// Group owns the socket, and may connect: its name or number. "" leaves the
	// process's own.
	Group string
}
