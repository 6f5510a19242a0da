package kvtest

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// client is an application that may ask for tokens.
type client struct {
	Secrets      []string `json:"secrets,omitempty"`
	Certificates [][]byte `json:"certificates,omitempty"` // DER
	Assertions   []string `json:"assertions,omitempty"`   // of a workload identity
	Refused      bool     `json:"refused,omitempty"`
}

// AddSecretClient registers an application, or one more secret of it.
func (s *Server) AddSecretClient(id, secret string) {
	s.register(id, func(c *client) { c.Secrets = append(c.Secrets, secret) })
}

// AddCertificateClient registers an application, or one more certificate of it.
func (s *Server) AddCertificateClient(id string, certificate *x509.Certificate) {
	s.register(id, func(c *client) { c.Certificates = append(c.Certificates, certificate.Raw) })
}

// AddWorkloadClient registers an application whose workload identity shows this
// token of its issuer, or one more token of it.
func (s *Server) AddWorkloadClient(id, token string) {
	s.register(id, func(c *client) { c.Assertions = append(c.Assertions, strings.TrimSpace(token)) })
}

// RemoveClient deletes an application: it gets no more tokens. Those it has go on
// until they end.
func (s *Server) RemoveClient(id string) {
	s.mu.Lock()
	delete(s.clients, strings.ToLower(id))
	s.mu.Unlock()
	s.changed()
}

// RefuseClient disables an application: it gets no more tokens.
func (s *Server) RefuseClient(id string) { s.register(id, func(c *client) { c.Refused = true }) }

// AcceptClient undoes RefuseClient.
func (s *Server) AcceptClient(id string) { s.register(id, func(c *client) { c.Refused = false }) }

func (s *Server) register(id string, change func(*client)) {
	s.mu.Lock()
	c := s.clients[strings.ToLower(id)]
	if c == nil {
		c = new(client)
		s.clients[strings.ToLower(id)] = c
	}
	change(c)
	s.mu.Unlock()
	s.changed()
}

// SetTenant moves the vaults to another directory: tokens of the old one are not
// valid there, and challenges name the new one.
func (s *Server) SetTenant(id string) {
	s.mu.Lock()
	s.tenant = id
	s.mu.Unlock()
	s.changed()
}

// refusal is an error of Entra.
type refusal struct {
	status int
	kind   string // of OAuth
	number int    // AADSTS
	says   string
}

func (f *refusal) Error() string { return fmt.Sprintf("AADSTS%d: %s", f.number, f.says) }

func (f *refusal) answer(header http.Header) answer {
	body := map[string]any{
		"error": f.kind, "error_description": f.Error() + " Trace ID: " + newUUID(),
		"error_codes": []int{f.number}, "correlation_id": newUUID(),
	}
	return answer{status: f.status, body: body, header: header, code: fmt.Sprintf("AADSTS%d", f.number)}
}

// serveEntra answers as the directory.
func (s *Server) serveEntra(r *http.Request, at place, entry *Request, body []byte) answer {
	header := http.Header{
		"Cache-Control": {"no-store, no-cache"}, "X-Ms-Request-Id": {newUUID()},
		"Date": {s.opts.AuthorityClock().UTC().Format(http.TimeFormat)},
	}
	tenant, rest, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	known := strings.EqualFold(tenant, s.Tenant())
	var serve func() (any, error)
	switch {
	case r.Method == http.MethodGet && tenant == "common" && rest == "discovery/instance":
		entry.Op = OpDiscovery
		known, serve = true, func() (any, error) { return s.instance(at), nil }
	case r.Method == http.MethodGet && rest == "v2.0/.well-known/openid-configuration":
		entry.Op = OpDiscovery
		serve = func() (any, error) { return s.openID(at), nil }
	case r.Method == http.MethodPost && rest == "oauth2/v2.0/token":
		entry.Op = OpToken
		serve = func() (any, error) { return s.token(at, entry, body) }
	default:
		return answer{status: http.StatusNotFound, header: header}
	}
	s.count(entry.Op)
	if a := s.suffer(r, entry.Op, "", "", header); a != nil {
		return *a
	}
	if !known {
		return (&refusal{400, "invalid_tenant", 90002, "Tenant '" + tenant + "' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."}).answer(header)
	}
	result, err := serve()
	if refused, ok := err.(*refusal); ok {
		return refused.answer(header)
	} else if err != nil {
		return answer{status: http.StatusInternalServerError, header: header}
	}
	return answer{status: http.StatusOK, body: result, header: header}
}

// instance is the answer to instance discovery.
func (s *Server) instance(at place) any {
	login := at.cloud.login
	return map[string]any{
		"tenant_discovery_endpoint": "https://" + login + "/" + s.Tenant() + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []any{map[string]any{
			"preferred_network": login, "preferred_cache": login, "aliases": []string{login},
		}},
	}
}

// openID is the configuration document of the directory.
func (s *Server) openID(at place) any {
	base := "https://" + at.cloud.login + "/" + s.Tenant()
	return map[string]any{
		"issuer":                                base + "/v2.0",
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
		"response_types_supported":              []string{"token"},
		"subject_types_supported":               []string{"pairwise"},
	}
}

// token answers a request for a token with the credentials of an application.
func (s *Server) token(at place, entry *Request, body []byte) (any, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, &refusal{400, "invalid_request", 900144, "The request body is not a form."}
	}
	id := form.Get("client_id")
	if form.Get("grant_type") != "client_credentials" {
		return nil, &refusal{400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '" + form.Get("grant_type") + "'."}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[strings.ToLower(id)]
	switch {
	case c == nil:
		return nil, &refusal{400, "unauthorized_client", 700016, "Application with identifier '" + id + "' was not found in the directory 'Test'."}
	case c.Refused:
		return nil, &refusal{400, "unauthorized_client", 7000112, "Application '" + id + "' is disabled."}
	}
	if err := s.prove(at, id, c, form); err != nil {
		return nil, err
	}
	resource, err := s.audience(form.Get("scope"))
	if err != nil {
		return nil, err
	}
	entry.Client = id
	token, err := s.mint(id, resource)
	if err != nil {
		return nil, err
	}
	in := s.expiresIn()
	return map[string]any{"token_type": "Bearer", "expires_in": in, "ext_expires_in": in, "access_token": token}, nil
}

// audience reads a scope: one resource, and what the Azure client adds to it.
func (s *Server) audience(scope string) (string, error) {
	names := slices.DeleteFunc(strings.Fields(scope), func(name string) bool {
		return name == "openid" || name == "offline_access" || name == "profile"
	})
	if len(names) != 1 || !strings.HasSuffix(names[0], "/.default") {
		return "", &refusal{400, "invalid_scope", 1002012, "The provided value for scope " + scope + " is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier."}
	}
	resource := strings.TrimSuffix(names[0], "/.default")
	if !s.resource(resource) {
		return "", &refusal{400, "invalid_resource", 500011, "The resource principal named " + resource + " was not found in the tenant."}
	}
	return resource, nil
}

// prove checks the credentials in a request for a token. s.mu is held.
func (s *Server) prove(at place, id string, c *client, form url.Values) error {
	secret, assertion := form.Get("client_secret"), form.Get("client_assertion")
	switch {
	case secret != "" && assertion != "":
		return &refusal{400, "invalid_request", 90023, "A request has either client_secret or client_assertion."}
	case secret != "":
		for _, right := range c.Secrets {
			if subtle.ConstantTimeCompare([]byte(right), []byte(secret)) == 1 {
				return nil
			}
		}
		return &refusal{401, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '" + id + "'."}
	case assertion == "":
		return &refusal{401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	case form.Get("client_assertion_type") != assertionType:
		return &refusal{400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_assertion_type'."}
	}
	for _, right := range c.Assertions {
		if subtle.ConstantTimeCompare([]byte(right), []byte(strings.TrimSpace(assertion))) == 1 {
			return nil
		}
	}
	if len(c.Certificates) == 0 {
		return &refusal{400, "invalid_request", 70021, "No matching federated identity record found for presented assertion."}
	}
	base := "https://" + at.cloud.login + "/" + s.tenant
	audiences := []string{base + "/oauth2/v2.0/token", base + "/v2.0", base + "/"}
	return checkAssertion(assertion, id, audiences, c, s.opts.AuthorityClock())
}

// certificate finds the certificate with a SHA-256 thumbprint.
func (c *client) certificate(thumbprint []byte) (*x509.Certificate, error) {
	for _, der := range c.Certificates {
		if sum := sha256.Sum256(der); subtle.ConstantTimeCompare(sum[:], thumbprint) == 1 {
			return x509.ParseCertificate(der)
		}
	}
	return nil, fmt.Errorf("no certificate with thumbprint %x is registered", thumbprint)
}
