package kvtest

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"
)

// Proxy starts an HTTP proxy on a loopback address ("" is a free port) that tunnels
// to the server by its names, and nowhere else, and returns its address for clients.
// It is for machines whose resolver does not know names under localhost, and for
// tests of clients that use a proxy. It ends with Close.
func (s *Server) Proxy(listen string) (string, error) {
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	if err := CheckLoopback(listen); err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(s.tunnel), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	s.mu.Lock()
	s.beside = append(s.beside, server)
	s.mu.Unlock()
	s.serving.Go(func() { _ = server.Serve(l) }) // ends with Close
	return "http://" + l.Addr().String(), nil
}

// tunnel answers a CONNECT.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if r.Method != http.MethodConnect || err != nil {
		http.Error(w, "this proxy only tunnels to the test server", http.StatusMethodNotAllowed)
		return
	}
	to, err := s.resolve(strings.ToLower(host), strings.ToLower(r.Host))
	if err == nil && to != s.Address() {
		err = errors.New("this proxy only tunnels to the test server")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	far, err := new(net.Dialer).DialContext(r.Context(), "tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = far.Close()
		panic(http.ErrAbortHandler)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_, _ = near.Close(), far.Close()
		return
	}
	s.serving.Go(func() { // ends when the server closes its side
		defer near.Close()
		if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err == nil {
			_, _ = io.Copy(near, far)
		}
	})
	s.serving.Go(func() { // ends when the client or the other side closes
		defer far.Close()
		_, _ = io.Copy(far, buffered)
	})
}
