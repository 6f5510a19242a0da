package s3

import (
	"context"
	"net"
)

// pacePiece is how much goes over a connection at once where there is a limit: so
// little that the line stays usable for others.
const pacePiece = 16 << 10

// pacedConn is a connection that keeps to a pace.
type pacedConn struct {
	net.Conn
	upload, download func(ctx context.Context, n int) error
	open             context.Context // until Close: nobody else can end a wait
	end              context.CancelFunc
}

// newPacedConn returns c with limits, of which one may be nil.
func newPacedConn(c net.Conn, upload, download func(ctx context.Context, n int) error) *pacedConn {
	free := func(context.Context, int) error { return nil }
	if upload == nil {
		upload = free
	}
	if download == nil {
		download = free
	}
	p := &pacedConn{Conn: c, upload: upload, download: download}
	p.open, p.end = context.WithCancel(context.Background())
	return p
}

// Read implements net.Conn.
func (c *pacedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), pacePiece)])
	if n > 0 {
		if perr := c.download(c.open, n); perr != nil && err == nil {
			err = perr
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *pacedConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		piece := p[:min(len(p), pacePiece)]
		if err = c.upload(c.open, len(piece)); err == nil {
			var m int
			m, err = c.Conn.Write(piece)
			n += m
		}
		p = p[len(piece):]
	}
	return n, err
}

// Close implements net.Conn. Who waits to read or write waits no longer.
func (c *pacedConn) Close() error {
	c.end()
	return c.Conn.Close()
}
