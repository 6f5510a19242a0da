package kvtest

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
)

// maxBody is the largest body of a request that is read.
const maxBody = 1 << 20

// answer is what a request comes to.
type answer struct {
	status int
	body   any
	header http.Header
	code   string // of an error, for the log
	reset  bool   // no answer: the connection is reset
}

// ServeHTTP answers as the service whose name the request has.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.serving.Add(1)
	s.settle()
	at, ok := s.find(r.Host)
	s.mu.Unlock()
	defer s.serving.Done()
	s.conns.busy(r.Context(), true)
	defer s.conns.busy(r.Context(), false)

	entry := &Request{Time: s.opts.Clock(), Method: r.Method, Path: r.URL.Path, APIVersion: r.URL.Query().Get("api-version")}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)) // all of it, so that a client that goes away is noticed
	var a answer
	switch {
	case err != nil:
		a = answer{status: http.StatusRequestEntityTooLarge}
	case !ok:
		a = answer{status: http.StatusNotFound}
	case at.vault == nil:
		a = s.serveEntra(r, at, entry, body)
	default:
		a = s.serveVault(r, at, entry, body)
	}
	entry.Status, entry.Code = a.status, a.code
	s.log(entry) // before the client can know
	if a.reset {
		reset(w)
		return
	}
	maps.Copy(w.Header(), a.header)
	if s.conns.last(r.Context()) {
		w.Header().Set("Connection", "close")
	}
	write(w, a.status, a.body)
}

// reset ends the connection so that the other side sees it reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if plain, ok := conn.(*net.TCPConn); ok {
		_ = plain.SetLinger(0)
	}
	_ = conn.Close()
}

// fail turns an error into an answer of a vault.
func fail(err error, header http.Header) answer {
	f := new(failure)
	if !errors.As(err, &f) {
		f = &failure{status: http.StatusInternalServerError, code: "InternalError", message: err.Error()}
	}
	maps.Copy(header, f.header)
	return answer{status: f.status, body: f.body(), header: header, code: f.last()}
}

// serveVault answers a request to a vault. The order is that of the service: who
// asks, whether the service keeps up, whether the request makes sense, from where
// it comes, what it may do, and then the key.
func (s *Server) serveVault(r *http.Request, at place, entry *Request, body []byte) answer {
	header := s.vaultHeader(r)
	entry.Vault = at.vault.name
	method := r.Method
	if other := r.Header.Get("X-HTTP-METHOD"); other != "" && method == http.MethodPost {
		method = strings.ToUpper(other)
	}
	to, known := parse(method, r.URL.Path)
	entry.Op, entry.Key, entry.Version = to.op, to.key, to.version
	who, err := s.authenticate(r, at)
	if err != nil {
		return fail(err, header)
	}
	entry.Client = who
	if !known || to.op == OpRandom && !at.vault.hsm {
		return fail(&failure{status: http.StatusNotFound, code: "NotFound", message: "There is no such operation: " + method + " " + r.URL.Path}, header)
	}
	s.count(to.op)
	if a := s.suffer(r, to.op, at.vault.name, to.key, header); a != nil {
		return *a
	}
	c := &call{s: s, place: at, route: to, api: entry.APIVersion, query: r.URL.Query(), path: r.URL.Path}
	if err := c.read(body); err != nil {
		return fail(err, header)
	}
	if err := s.authorize(r, at, entry); err != nil {
		return fail(err, header)
	}
	result, err := c.do()
	if err != nil {
		return fail(err, header)
	}
	status := http.StatusOK
	if result == nil {
		status = http.StatusNoContent
	}
	return answer{status: status, body: result, header: header}
}

// suffer lets the injected fault happen; nil if there is none.
func (s *Server) suffer(r *http.Request, op Op, vault, key string, header http.Header) *answer {
	for {
		f := s.happens(op, vault, key)
		switch {
		case f == nil:
			return nil
		case f.hold != nil:
			if !f.hold.wait(r.Context()) {
				return &answer{reset: true}
			}
		case f.Reset:
			return &answer{reset: true}
		default:
			a := fail(f.failure(), header)
			return &a
		}
	}
}

// authorize tells why a client may not do what it asks for.
func (s *Server) authorize(r *http.Request, at place, entry *Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	caller := "appid=" + entry.Client + ";oid=" + objectID(entry.Client) + ";iss=" + s.issuer()
	address, _, _ := net.SplitHostPort(r.RemoteAddr) // of a TCP connection, always both
	switch {
	case at.vault.firewall:
		return forbidden("ForbiddenByFirewall",
			"Client address is not authorized and caller is not a trusted service.\r\nClient address: %s\r\nCaller: %s\r\nVault: %s;location=test", address, caller, at.vault.name)
	case s.forbidden(Scope{Vault: at.vault.name, Key: entry.Key, Client: entry.Client}, entry.Op):
		return forbidden("ForbiddenByRbac",
			"Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: %s\r\nAction: '%s'\r\nResource: '/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/test/providers/microsoft.keyvault/vaults/%s/keys/%s'\r\nAssignment: (not found)\r\nVault: %s;location=test",
			caller, entry.Op.action(), at.vault.name, entry.Key, at.vault.name)
	case at.vault.readOnly && entry.Op.writes():
		return forbidden("VaultReadOnly", "The vault has failed over to its second region and is read-only. Operation %s is not allowed.", entry.Op)
	}
	return nil
}

// vaultHeader is what every answer of a vault has.
func (s *Server) vaultHeader(r *http.Request) http.Header {
	h := http.Header{
		"Cache-Control": {"no-cache"}, "Pragma": {"no-cache"}, "Expires": {"-1"},
		"X-Content-Type-Options": {"nosniff"}, "Strict-Transport-Security": {"max-age=31536000;includeSubDomains"},
	}
	set := func(name, value string) { h[http.CanonicalHeaderKey(name)] = []string{value} }
	set("Date", s.opts.Clock().UTC().Format(http.TimeFormat))
	set("x-ms-keyvault-region", "test")
	set("x-ms-keyvault-service-version", "1.9.0.0")
	set("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;")
	set("x-ms-request-id", newUUID())
	if id := r.Header.Get("x-ms-client-request-id"); id != "" {
		set("x-ms-client-request-id", id)
	}
	return h
}

// read checks and decodes what the request has.
func (c *call) read(body []byte) error {
	switch {
	case c.api == "":
		return badParameter("api-version must be specified")
	case !knownVersion(c.api):
		return badParameter("The specified version (%s) is not recognized. Consider using the latest supported version (2025-07-01).", c.api)
	case c.key != "" && CheckName(c.key) != nil:
		return badParameter("The request URI contains an invalid name: %s", c.key)
	}
	if len(body) == 0 {
		return nil
	}
	c.body.raw = body
	if err := json.Unmarshal(body, &c.body); err != nil {
		return badParameter("The request body is not valid: %v", err)
	}
	return nil
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return formatUUID(b)
}
