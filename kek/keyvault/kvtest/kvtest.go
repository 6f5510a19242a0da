// Package kvtest is a server that answers as Azure Key Vault, as Managed HSM and as
// Microsoft Entra ID, for tests that drive it with the real Azure clients over TLS
// and for trying Coffer without Azure. It keeps private keys in memory and is not
// for keys that protect anything.
//
// It is strict where the service is strict: a bearer token is checked (MAC, issuer,
// tenant, audience, expiry), a client assertion is verified against the registered
// certificate, byte fields are base64url without padding, api-version must be there
// and known, names are resolved as the service resolves them. Its contract is the
// REST API of versions 7.4 to 2025-07-01, without sign, verify, release and
// attestation. Where the service's own words are known the errors have them; where
// they are not, the status and the outer code are right and the inner code is a
// guess (KeyExpired, KeyNotYetValid, KeyOperationForbidden, VaultReadOnly).
//
// One listener on loopback is everything. The name in the Host header says what is
// meant:
//
//	https://localhost:PORT/                     Entra
//	https://NAME.localhost:PORT/                the vault NAME
//	https://NAME.managedhsm.localhost:PORT/     the Managed HSM NAME
//
// The resource that a vault's challenge names is the host without NAME, so the
// client's own check of it holds. With Options.Azure it also answers to the names
// of the real clouds, which only Dialer resolves to it.
//
// What goes wrong is set from the test: see Deny, CloseFirewall, Inject, Throttle,
// Hold, FailOver, LoseDNS, Down, RefuseClient and RevokeTokens. Nothing here waits
// for time to pass: the clock is passed in.
package kvtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Defaults of Options.
const (
	DefaultVault         = "corp"
	DefaultPageSize      = 3
	DefaultTokenLifetime = 24 * time.Hour // what Entra gives to clients that understand revocation
	Propagation          = 10 * time.Minute
)

// Options of a server. The zero value is one vault, "corp", with soft delete and
// purge protection, that answers at once and by the real time.
type Options struct {
	Listen string   // host:port on loopback; default 127.0.0.1 and a free port
	Vaults []string // names; default "corp"
	// ManagedHSM makes each of Vaults a Managed HSM.
	ManagedHSM bool
	// Clock is the time of vaults, keys and tokens. Default: time.Now.
	Clock func() time.Time
	// AuthorityClock is the time by which Entra judges client assertions, which the
	// Azure clients always date by the real time. Default: time.Now.
	AuthorityClock func() time.Time
	Tenant         string // id of the directory; default: a new one
	// Recovery is the recovery level of all vaults. Default: Recoverable.
	Recovery Recovery
	// RecoverableDays a deleted key is kept. Default: 90, 7 for a customized level.
	RecoverableDays int
	// PageSize is the most entries on a page of a list. Default: 3. The service
	// gives 25.
	PageSize int
	// EmptyPages puts a page without entries before the first of every list.
	EmptyPages    bool
	TokenLifetime time.Duration // default: 24 h
	// Propagation is how long a change of a permission, of a key's attributes, a
	// deletion or a recovery takes to show. Default: none.
	Propagation time.Duration
	// DisabledWraps lets a disabled version wrap and encrypt, as the service was seen
	// to do (azure-sdk-for-python issue 45342).
	DisabledWraps bool
	// Azure makes the server answer to the names of the real clouds too.
	Azure bool
	// Keys is where new RSA keys come from. Default: Start shares a small pool of
	// published test keys within the process, New generates.
	Keys *Pool
	// State is what State of another server returned: this one continues it.
	State []byte
	// Changed is called after each change of what State returns, without locks held.
	Changed func()
}

// Server is a running server. All methods may be called at any time and from any
// goroutine. A method that is asked for a vault or key that is not there ends the
// test, or panics if the server was not made by Start.
type Server struct {
	opts Options
	t    testing.TB // nil outside tests
	dir  string     // has the CA file
	cert certificate
	tls  *tls.Config
	port string

	serving sync.WaitGroup
	conns   *connections

	mu     sync.Mutex
	http   *http.Server   // nil while down
	beside []*http.Server // the agent of Arc, proxies
	closed bool

	tenant     string
	tokenKey   []byte
	generation int // of tokens: those of an earlier one are revoked
	clients    map[string]*client
	arcClients map[string]bool
	arcFiles   map[string]string // content of a key file, and its path

	vaults  map[string]*vault
	denied  map[grant]bool
	pending []change
	faults  []*fault
	lost    map[string]bool // host names that do not resolve; "" is all

	calls    map[Op]int
	requests []Request
}

// Start starts a server and stops it when the test ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	if opts.Keys == nil {
		pool, err := testKeys()
		if err != nil {
			t.Fatalf("kvtest: %v", err)
		}
		opts.Keys = pool
	}
	s, err := New(opts)
	if err != nil {
		t.Fatalf("kvtest: %v", err)
	}
	s.t = t
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("kvtest: %v", err)
		}
	})
	return s
}

// New starts a server. Close stops it.
func New(opts Options) (*Server, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, conns: newConnections(), lost: make(map[string]bool),
		clients: make(map[string]*client), arcClients: make(map[string]bool), arcFiles: make(map[string]string),
		vaults: make(map[string]*vault), denied: make(map[grant]bool), calls: make(map[Op]int),
	}
	if err := s.restore(opts.State); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

// complete fills in the defaults.
func (o *Options) complete() error {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if err := CheckLoopback(o.Listen); err != nil {
		return err
	}
	if o.Vaults = slices.Clone(o.Vaults); len(o.Vaults) == 0 {
		o.Vaults = []string{DefaultVault}
	}
	for i, name := range o.Vaults {
		if err := CheckName(name); err != nil || len(name) > 24 {
			return fmt.Errorf("vault name %q: use 1 to 24 letters, digits and hyphens", name)
		}
		o.Vaults[i] = strings.ToLower(name)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.AuthorityClock == nil {
		o.AuthorityClock = time.Now
	}
	if o.Recovery == "" {
		o.Recovery = Recoverable
	}
	if o.PageSize < 1 {
		o.PageSize = DefaultPageSize
	}
	if o.TokenLifetime == 0 {
		o.TokenLifetime = DefaultTokenLifetime
	}
	if o.Keys == nil {
		o.Keys = NewPool()
	}
	return nil
}

// CheckLoopback refuses an address that others than this machine can reach.
func CheckLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("address %s is not a loopback address such as 127.0.0.1: this server is only for trying and testing", address)
	}
	return nil
}

// open makes what the listener needs and begins to serve.
func (s *Server) open() error {
	var err error
	if s.cert.isZero() {
		if s.cert, err = newCertificate(s.hosts()); err != nil {
			return fmt.Errorf("make certificate: %w", err)
		}
	}
	pair, err := tls.X509KeyPair(s.cert.Chain, s.cert.Key)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if s.dir, err = os.MkdirTemp("", "kvtest-"); err != nil {
		return err
	}
	if err := os.WriteFile(s.CAFile(), s.cert.CA, 0o600); err != nil {
		return err
	}
	return s.serve(s.opts.Listen)
}

// serve listens on address.
func (s *Server) serve(address string) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{
		Handler: s, TLSConfig: s.tls, ReadHeaderTimeout: time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), ConnState: s.conns.state, ConnContext: s.conns.context,
	}
	s.mu.Lock()
	s.http = server
	if s.port == "" { // it stays the same
		s.port = port
	}
	s.mu.Unlock()
	s.serving.Go(func() { _ = server.ServeTLS(l, "", "") }) // ends with Close, which Close reports
	return nil
}

// Close stops the server and waits for its requests to end.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	servers := s.beside
	if s.http != nil {
		servers = append(servers, s.http)
	}
	s.beside, s.http = nil, nil
	for content, path := range s.arcFiles {
		_ = os.Remove(path) // the folder may be gone already
		delete(s.arcFiles, content)
	}
	s.mu.Unlock()
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Close())
	}
	s.serving.Wait()
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// VaultURL is the address of a vault, without a slash at the end.
func (s *Server) VaultURL(name string) string {
	own := s.own()
	if s.opts.ManagedHSM {
		return "https://" + name + "." + own.hsm
	}
	return "https://" + name + "." + own.vault
}

// KeyURI is the address of a key, of all its versions if version is "".
func (s *Server) KeyURI(vault, key, version string) string {
	uri := s.VaultURL(vault) + "/keys/" + key
	if version != "" {
		uri += "/" + version
	}
	return uri
}

// Authority is the address of Entra, for cloud.Configuration.
func (s *Server) Authority() string { return "https://" + s.own().login + "/" }

// Address is the listener's.
func (s *Server) Address() string {
	host, _, _ := net.SplitHostPort(s.opts.Listen) // complete has checked it
	return net.JoinHostPort(host, s.port)
}

// CAPEM is the certificate of the authority that the server's certificate is from.
func (s *Server) CAPEM() []byte { return append([]byte(nil), s.cert.CA...) }

// CAFile has the same in a file, until Close.
func (s *Server) CAFile() string { return filepath.Join(s.dir, "ca.pem") }

// Tenant is the id of the directory.
func (s *Server) Tenant() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenant
}
