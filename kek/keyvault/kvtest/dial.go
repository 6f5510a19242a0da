package kvtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
)

// Dialer returns what a client's http.Transport needs as DialContext: it resolves
// the names that the server answers to, whatever the machine's resolver does with
// names under localhost, and no others. Nothing ever leaves the machine.
func (s *Server) Dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		to, why := s.resolve(strings.ToLower(host), strings.ToLower(address))
		if why != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: why}
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}
}

// resolve returns the address to dial for a name.
func (s *Server) resolve(host, address string) (string, error) {
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return address, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost[""] || s.lost[host] {
		return "", &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	}
	if _, ok := s.find(address); !ok {
		return "", &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	bound, _, _ := net.SplitHostPort(s.opts.Listen) // New has checked it
	return net.JoinHostPort(bound, s.port), nil
}

// Client returns an HTTP client that reaches the server and trusts it, for
// azcore.ClientOptions.Transport. It keeps no connection between requests open
// longer than the server does.
func (s *Server) Client() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.cert.CA)
	return &http.Client{Transport: &http.Transport{
		DialContext:     s.Dialer(),
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
}

// LoseDNS makes names stop resolving for users of Dialer, all if none are named:
// the resolver answers with an error. Connections that are open and idle end.
func (s *Server) LoseDNS(hosts ...string) {
	s.mu.Lock()
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	for _, host := range hosts {
		s.lost[strings.ToLower(host)] = true
	}
	s.mu.Unlock()
	s.conns.endIdle()
}

// RestoreDNS undoes all of LoseDNS.
func (s *Server) RestoreDNS() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.lost)
}

// Down stops listening and closes every connection: a client finds the port closed.
func (s *Server) Down() {
	s.mu.Lock()
	server := s.http
	s.http = nil
	s.mu.Unlock()
	s.conns.endIdle()
	if server != nil {
		s.must(server.Close())
	}
}

// Up listens again on the same port.
func (s *Server) Up() {
	s.mu.Lock()
	up := s.http != nil
	s.mu.Unlock()
	if !up {
		s.must(s.serve(s.Address()))
	}
}
