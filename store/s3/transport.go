package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Timeouts that find out a peer that is dead. None of them limits how long an
// honest transfer may take.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	// stallTimeout is how long a connection may move no byte in either direction
	// while a request is under way. It is longer than idleTimeout, so that no
	// request is given a connection that is about to be cut.
	stallTimeout = 2 * time.Minute
	idleTimeout  = 45 * time.Second
)

// newTransport returns a transport that trusts the CAs in the PEM file cfg.CA, or
// those of the system if it is "", cuts connections that stall, and keeps to the
// paces.
func newTransport(cfg Config) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := cfg.CA; ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read the CA to trust: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the CA to trust: %s holds no PEM certificate", ca)
		}
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer(cfg),
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   handshakeTimeout,
		ResponseHeaderTimeout: cfg.stall,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   64,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // objects come as they are
	}, nil
}

// dialer returns a function that connects. Names under localhost are this machine
// (RFC 6761, 6.3), which not every resolver knows, and buckets have names there.
func dialer(cfg Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix(host, ".localhost") {
			addr = net.JoinHostPort("localhost", port)
		}
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c = &stallConn{Conn: c, stall: cfg.stall}
		if cfg.Upload == nil && cfg.Download == nil {
			return c, nil
		}
		return newPacedConn(c, cfg.Upload, cfg.Download), nil
	}
}

// stallConn is cut when it moves no byte for a while. A write puts the end of a
// pending read off as well: an answer may take that long after the last byte of
// its request.
type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
