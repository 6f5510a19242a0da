package kvtest

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// goodbye is how long a client has to notice that a connection ends.
const goodbye = time.Second

// connections are those that are open. With them a test can take the server away so
// that its clients know of it, and none sends its next request into a connection
// that is about to end.
type connections struct {
	mu      sync.Mutex
	changed *sync.Cond
	open    map[net.Conn]*connection
}

type connection struct {
	state http.ConnState
	busy  bool // a request is being answered
	last  bool // and is the last one
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

func newConnections() *connections {
	c := &connections{open: make(map[net.Conn]*connection)}
	c.changed = sync.NewCond(&c.mu)
	return c
}

// context is http.Server.ConnContext.
func (c *connections) context(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// state is http.Server.ConnState.
func (c *connections) state(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.changed.Broadcast()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.open, conn)
		return
	}
	if c.open[conn] == nil {
		c.open[conn] = new(connection)
	}
	c.open[conn].state = state
}

// busy notes whether a request of this context is being answered.
func (c *connections) busy(ctx context.Context, now bool) {
	conn, ok := ctx.Value(connKey{}).(net.Conn)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.changed.Broadcast()
	if it := c.open[conn]; it != nil {
		it.busy = now
	}
}

// last tells whether the connection of a request takes no more of them.
func (c *connections) last(ctx context.Context) bool {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.open[conn]
	return it != nil && it.last
}

// endIdle ends the connections that no request is being answered on, and returns
// when their clients have closed them too. The others end with their requests.
func (c *connections) endIdle() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	before := make(map[net.Conn]*connection, len(c.open))
	for conn, it := range c.open {
		before[conn] = it
	}
	for conn, it := range before {
		alive := func() bool { return c.open[conn] == it && ctx.Err() == nil }
		// The client has its answer a moment before the server calls it idle.
		for alive() && it.state == http.StateActive && !it.busy {
			c.changed.Wait()
		}
		if it.busy {
			it.last = true
			continue
		}
		end(conn)
		for alive() {
			c.changed.Wait()
		}
		if c.open[conn] == it {
			_ = conn.Close() // nobody reads at the other end
		}
	}
}

// end says goodbye: the other side reads the end of the stream.
func end(conn net.Conn) {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return
	}
	_ = secure.CloseWrite() // the client may have gone, or never have finished its handshake
	if plain, ok := secure.NetConn().(*net.TCPConn); ok {
		_ = plain.CloseWrite()
	}
}
