package control

import "errors"

// ErrInUse: another agent answers on the socket.
var ErrInUse = errors.New("another agent answers")

// ListenOptions of Listen.
type ListenOptions struct {
	// Group owns the socket, and may connect: its name or number. "" leaves the
	// process's own.
	Group string
	// Roles are groups whose members have a role: their names or numbers. If there is
	// one, everybody may connect, and what the kernel says of the caller decides alone.
	Roles map[Role][]string
}

// open tells whether somebody has a role who is not in the socket's group.
func (o ListenOptions) open() bool {
	for _, names := range o.Roles {
		if len(names) > 0 {
			return true
		}
	}
	return false
}
