package control

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Peer is who is at the other end of the socket, by the word of the kernel.
type Peer struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups, where the kernel tells them
	PID      int32
	// Admitted says that the transport lets only those in who may do everything,
	// and that the ids mean nothing: the ACL of a named pipe on Windows.
	Admitted   bool
	unknown    error
	turnedAway bool // there was no room for its connection
}

// String names the peer in logs and jobs.
func (p Peer) String() string {
	if p.unknown != nil {
		return "unknown caller"
	}
	if p.Admitted {
		return "administrator"
	}
	return fmt.Sprintf("uid %d", p.UID)
}

// Role is what a caller may do. Each role may do all that the ones before it may.
type Role int

// The roles.
const (
	RoleNone     Role = iota
	RoleViewer        // look
	RoleOperator      // back up, verify, cancel
	RoleRestorer      // see and restore data
	RoleKeyAdmin      // vaults and keys
)

func (r Role) String() string {
	switch r {
	case RoleViewer:
		return "viewer"
	case RoleOperator:
		return "operator"
	case RoleRestorer:
		return "restorer"
	case RoleKeyAdmin:
		return "key-admin"
	}
	return "none"
}

// field is the name of the role in the configuration.
func (r Role) field() string { return strings.ReplaceAll(r.String(), "-", "_") }

// Access says who may do what.
type Access struct {
	UID   uint32  // the agent's own
	Group *uint32 // the socket's group, if one is configured
	// Groups have a role each; who is in several has the highest.
	Groups map[uint32]Role
}

// Role returns the role of a peer: root, the agent's own user and members of the
// socket's group may do everything, members of Groups what their role allows, and
// nobody else anything.
func (a Access) Role(p Peer) Role {
	switch {
	case p.unknown != nil:
		return RoleNone
	case p.Admitted, p.UID == 0, p.UID == a.UID:
		return RoleKeyAdmin
	}
	role := RoleNone
	for _, g := range append([]uint32{p.GID}, p.Groups...) {
		if a.Group != nil && g == *a.Group {
			return RoleKeyAdmin
		}
		role = max(role, a.Groups[g])
	}
	return role
}

type peerKey struct{}

// WithPeer returns a context of a request from p.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom returns who sent the request that ctx belongs to. Without one, the
// peer has no role.
func PeerFrom(ctx context.Context) Peer {
	if p, ok := ctx.Value(peerKey{}).(Peer); ok {
		return p
	}
	return Peer{unknown: errNoPeer}
}

// forbidden is the answer to a peer whose role does not reach.
func forbidden(p Peer, have, need Role) *Error {
	e := &Error{
		Code:    CodeForbidden,
		Message: p.String() + " may not use this agent",
		Next:    "run it as root, or join a group that agent.roles or agent.socket_group names",
	}
	if have != RoleNone {
		e.Message = fmt.Sprintf("%s has the role %s here, and this needs %s", p, have, need)
		e.Next = fmt.Sprintf("ask someone who has it, or join a group that agent.roles names for %s", need.field())
	}
	return e
}

// parseID reads the number of a job.
func parseID(s string) (int64, error) {
	id, err := strconv.ParseInt(strings.TrimPrefix(s, "#"), 10, 64)
	if err != nil || id <= 0 {
		return 0, &Error{
			Code: CodeBadRequest, Message: fmt.Sprintf("%q is not the number of a job", s),
			Next: "list them: coffer job list",
		}
	}
	return id, nil
}
