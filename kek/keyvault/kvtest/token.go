package kvtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// claims of an access token. Tokens are JWTs with HS256 under a key of this server;
// to clients they are opaque.
type claims struct {
	Audience   string `json:"aud"`
	Issuer     string `json:"iss"`
	Issued     int64  `json:"iat"`
	NotBefore  int64  `json:"nbf"`
	Expires    int64  `json:"exp"`
	Client     string `json:"appid"`
	Object     string `json:"oid"`
	Tenant     string `json:"tid"`
	ID         string `json:"uti"`
	Version    string `json:"ver"`
	Generation int    `json:"gen"`
}

const tokenHeader = `{"alg":"HS256","typ":"JWT"}`

// issuer of tokens. s.mu is held.
func (s *Server) issuer() string { return "https://sts.windows.net/" + s.tenant + "/" }

// mint makes a token for a resource. s.mu is held.
func (s *Server) mint(client, resource string) (string, error) {
	now := s.opts.Clock()
	body, err := json.Marshal(claims{
		Audience: resource, Issuer: s.issuer(), Issued: now.Unix(), NotBefore: now.Unix(),
		Expires: now.Add(s.opts.TokenLifetime).Unix(), Client: client, Object: objectID(client),
		Tenant: s.tenant, ID: newUUID(), Version: "1.0", Generation: s.generation,
	})
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(tokenHeader)) + "." + enc.EncodeToString(body)
	return signed + "." + enc.EncodeToString(s.mac(signed)), nil
}

func (s *Server) mac(signed string) []byte {
	m := hmac.New(sha256.New, s.tokenKey)
	m.Write([]byte(signed))
	return m.Sum(nil)
}

// RevokeTokens makes all tokens given out so far invalid: a vault refuses them with
// a challenge that asks for claims, as it does when an identity is revoked, and the
// clients get new ones.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
}

// authenticate returns the client whose token a request to a vault has.
func (s *Server) authenticate(r *http.Request, at place) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", s.challenge(at, "", "AKV10000: Request is missing a Bearer or PoP token.")
	}
	c, err := s.verify(token)
	if err != nil {
		return "", s.challenge(at, "invalid_token", "AKV10046: Unable to resolve the key used for signature validation.")
	}
	now := s.opts.Clock().Unix()
	switch {
	case c.Issuer != s.issuer() || c.Tenant != s.tenant:
		return "", s.challenge(at, "invalid_token", fmt.Sprintf("AKV10032: Invalid issuer. Expected one of %s, found %s.", s.issuer(), c.Issuer))
	case c.Audience != at.resource:
		return "", s.challenge(at, "invalid_token", fmt.Sprintf("AKV10022: Invalid audience. Expected %s, found: %s.", at.resource, c.Audience))
	case now < c.NotBefore || now >= c.Expires:
		return "", s.challenge(at, "invalid_token", "[TokenExpired] Error validating token: 'S2S12086'.")
	case c.Generation < s.generation:
		return "", s.challenge(at, "insufficient_claims", "The token was revoked.")
	}
	return c.Client, nil
}

// verify returns the claims of a token that this server made.
func (s *Server) verify(token string) (claims, error) {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, fmt.Errorf("a token has three parts, not %d", len(parts))
	}
	enc := base64.RawURLEncoding
	mac, err := enc.DecodeString(parts[2])
	if err != nil || !hmac.Equal(mac, s.mac(parts[0]+"."+parts[1])) {
		return c, fmt.Errorf("the token is not from here")
	}
	if header, err := enc.DecodeString(parts[0]); err != nil || string(header) != tokenHeader {
		return c, fmt.Errorf("the token is of another kind")
	}
	body, err := enc.DecodeString(parts[1])
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(body, &c)
}

// challenge is the answer to a request without a valid token. s.mu is held.
func (s *Server) challenge(at place, kind, message string) *failure {
	value := fmt.Sprintf(`Bearer authorization="https://%s/%s", resource="%s"`, at.cloud.login, s.tenant, at.resource)
	switch kind {
	case "":
	case "insufficient_claims":
		wanted := `{"access_token":{"nbf":{"essential":true,"value":"` + strconv.FormatInt(s.opts.AuthorityClock().Unix(), 10) + `"}}}`
		value += `, error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(wanted)) + `"`
	default:
		value += `, error="` + kind + `"`
	}
	return &failure{
		status: http.StatusUnauthorized, code: "Unauthorized", message: message,
		header: http.Header{"Www-Authenticate": {value}},
	}
}

// expiresIn is the life of a token as the token endpoint says it.
func (s *Server) expiresIn() int { return int(s.opts.TokenLifetime/time.Second) - 1 }

// objectID is the id of the principal of a client: a UUID made from its id.
func objectID(client string) string {
	sum := sha256.Sum256([]byte(client))
	return formatUUID([16]byte(sum[:16]))
}

func formatUUID(b [16]byte) string {
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
