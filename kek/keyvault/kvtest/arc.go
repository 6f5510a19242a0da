package kvtest

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ArcClient is the id of the identity that an Azure Arc machine itself has.
const ArcClient = "00000000-0000-0000-0000-0000000000a7"

// arcVersion is the one version of the Arc agent's API.
const arcVersion = "2020-06-01"

// AddArcIdentity gives the machine one more identity, which is asked for by its
// client id. A client id that was not added is answered with the machine's own
// identity and without naming it, as old agents do.
func (s *Server) AddArcIdentity(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arcClients[strings.ToLower(client)] = true
}

// ArcEndpoint starts what the Azure Arc agent offers on the machine and returns its
// address, for IDENTITY_ENDPOINT. A client proves that it may read the folder dir:
// the first answer names a new file there, and the second request shows its content.
// The Azure client takes no other folder than /var/opt/azcmagent/tokens.
func (s *Server) ArcEndpoint(dir string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveArc(w, r, dir) }),
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
	}
	s.mu.Lock()
	s.beside = append(s.beside, server)
	s.mu.Unlock()
	s.serving.Go(func() { _ = server.Serve(l) }) // ends with Close
	return "http://" + l.Addr().String() + "/metadata/identity/oauth2/token"
}

// serveArc answers as the agent.
func (s *Server) serveArc(w http.ResponseWriter, r *http.Request, dir string) {
	query := r.URL.Query()
	entry := &Request{Time: s.opts.Clock(), Op: OpArc, Method: r.Method, Path: r.URL.Path, APIVersion: query.Get("api-version")}
	a := s.arc(r, entry, dir)
	entry.Status, entry.Code = a.status, a.code
	s.log(entry)
	if a.reset {
		reset(w)
		return
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	write(w, a.status, a.body)
}

func (s *Server) arc(r *http.Request, entry *Request, dir string) answer {
	header := make(http.Header)
	query := r.URL.Query()
	resource := strings.TrimSuffix(query.Get("resource"), "/")
	refuse := func(says string) answer {
		return (&refusal{http.StatusBadRequest, "invalid_request", 900144, says}).answer(header)
	}
	switch {
	case r.Method != http.MethodGet || r.URL.Path != "/metadata/identity/oauth2/token":
		return answer{status: http.StatusNotFound, header: header}
	case r.Header.Get("Metadata") != "true":
		return refuse("Required metadata header not specified.")
	case query.Get("api-version") != arcVersion:
		return refuse("The api-version '" + query.Get("api-version") + "' is not supported.")
	case !s.resource(resource):
		return refuse("The resource principal named " + resource + " was not found in the tenant.")
	}
	s.count(OpArc)
	if a := s.suffer(r, OpArc, "", "", header); a != nil {
		return *a
	}
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic ")
	if !ok {
		path, err := s.arcFile(dir)
		if err != nil {
			return answer{status: http.StatusInternalServerError, header: header}
		}
		header["Www-Authenticate"] = []string{"Basic realm=" + path}
		return answer{status: http.StatusUnauthorized, header: header}
	}
	return s.arcToken(entry, resource, shown, query.Get("client_id"))
}

// arcFile makes a file that only those may read who may ask for tokens.
func (s *Server) arcFile(dir string) (string, error) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	content := hex.EncodeToString(random[:])
	path := filepath.Join(dir, newUUID()+".key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arcFiles[content] = path
	return path, nil
}

// arcToken answers with a token to who shows the content of a file, once.
func (s *Server) arcToken(entry *Request, resource, shown, asked string) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for content, path := range s.arcFiles {
		if subtle.ConstantTimeCompare([]byte(content), []byte(shown)) == 1 {
			found = true
			delete(s.arcFiles, content)
			_ = os.Remove(path) // it opens nothing any more
		}
	}
	if !found {
		return (&refusal{http.StatusUnauthorized, "unauthorized_client", 7000215, "The content of the key file is wrong."}).answer(make(http.Header))
	}
	entry.Client = ArcClient
	out := map[string]any{"token_type": "Bearer", "resource": resource}
	if s.arcClients[strings.ToLower(asked)] {
		entry.Client = asked
		out["client_id"] = asked
	}
	token, err := s.mint(entry.Client, resource)
	if err != nil {
		return answer{status: http.StatusInternalServerError}
	}
	now := s.opts.AuthorityClock()
	out["access_token"] = token
	out["expires_in"] = strconv.Itoa(s.expiresIn())
	out["expires_on"] = strconv.FormatInt(now.Add(s.opts.TokenLifetime).Unix(), 10)
	out["not_before"] = strconv.FormatInt(now.Unix(), 10)
	return answer{status: http.StatusOK, body: out}
}
