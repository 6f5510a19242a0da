package control

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control/quota"
)

// Patience is how long a Server waits for callers; a field that is zero has its
// default. None of it bounds how long a job or a stream takes.
type Patience struct {
	Body time.Duration // for the whole of a JSON request; default 30 s
	// Reply is for a caller to take a piece of a reply or an event, default 1 min. It is
	// longer than Body: what is left of a request is read before the reply to it goes.
	Reply time.Duration
	// Stream is the same for listings and contents, which a pager may hold up; default
	// 1 h.
	Stream time.Duration
}

// withDefaults fills in what is zero.
func (p Patience) withDefaults() Patience {
	return Patience{
		Body:   cmp.Or(p.Body, 30*time.Second),
		Reply:  cmp.Or(p.Reply, time.Minute),
		Stream: cmp.Or(p.Stream, time.Hour),
	}
}

// turnedAway is how many connections for which there is no room are told so at once.
// Others are closed.
const turnedAway = 16

// callerOf is who a peer is to the quota.
func (s *Server) callerOf(p Peer) quota.Caller {
	c := quota.Caller{Class: quota.Member, UID: p.UID}
	switch {
	case s.cfg.Role(p) == RoleNone:
		c.Class = quota.Stranger
	case p.Admitted, p.UID == 0, int64(p.UID) == int64(os.Geteuid()):
		c.Class = quota.Owner
	}
	return c
}

// door lets connections in as long as there is room for who is behind them.
type door struct {
	net.Listener
	server *Server
	told   chan struct{} // one for each connection that is turned away just now
}

// admitted is a connection of a known peer that gives its place back when it closes.
type admitted struct {
	net.Conn
	peer  Peer
	leave func()
	once  sync.Once
}

func (a *admitted) Close() error {
	a.once.Do(a.leave)
	return a.Conn.Close()
}

// Accept returns the next connection, which is an *admitted.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p, err := peerOf(conn)
		if err != nil {
			d.server.cfg.Logger.Warn("control caller is unknown", "err", err)
			p = Peer{unknown: err}
		}
		leave, ok := d.server.quota.Enter(d.server.callerOf(p))
		if ok {
			return &admitted{Conn: conn, peer: p, leave: leave}, nil
		}
		select {
		case d.told <- struct{}{}:
			p.turnedAway = true
			return &admitted{Conn: conn, peer: p, leave: func() { <-d.told }}, nil
		default:
			conn.Close()
		}
	}
}

// identify notes who is at the other end of a new connection.
func identify(ctx context.Context, conn net.Conn) context.Context {
	return WithPeer(ctx, conn.(*admitted).peer) // as Accept returns them
}

// admit refuses a request for which there is no room, or that comes too soon after
// too many others.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) error {
	p := PeerFrom(r.Context())
	if p.turnedAway {
		w.Header().Set("Connection", "close")
		return busy(w, time.Second, "%s has as many connections to the agent as it may", p)
	}
	if wait := s.quota.Ask(s.callerOf(p)); wait > 0 {
		return busy(w, wait, "%s asks more often than the agent answers", p)
	}
	return nil
}

// busy is the answer to who has to wait.
func busy(w http.ResponseWriter, wait time.Duration, format string, p Peer) error {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	return &Error{Code: CodeBusy, Message: fmt.Sprintf(format, p), Next: "wait a moment, then ask again"}
}

// The deadlines of a connection are all relative to the clock of the machine, as the
// net package has it; where there is no connection, as in tests, there is no deadline.

// hurry gives the caller so long to send the rest of a request. Without it a handler
// that does not read a body would wait for its end for ever.
func hurry(w http.ResponseWriter, patience time.Duration) {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // see above
}

// relax lets the caller send when it likes. It is called when a body was read: a read
// that ends at a deadline would look as if the caller had gone.
func relax(w http.ResponseWriter) {
	http.NewResponseController(w).SetReadDeadline(time.Time{}) //nolint:errcheck // see above
}
