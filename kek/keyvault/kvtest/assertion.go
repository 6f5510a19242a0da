package kvtest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// skew is how far the clocks of a client and of Entra may differ.
const skew = 5 * time.Minute

// checkAssertion verifies a client assertion (RFC 7523) that is signed with a
// registered certificate: algorithm RS256 or PS256, certificate by x5t#S256.
func checkAssertion(assertion, id string, audiences []string, c *client, now time.Time) error {
	var header struct {
		Algorithm  string `json:"alg"`
		Thumbprint string `json:"x5t#S256"`
	}
	var body struct {
		Audience  string `json:"aud"`
		Issuer    string `json:"iss"`
		Subject   string `json:"sub"`
		ID        string `json:"jti"`
		NotBefore int64  `json:"nbf"`
		Expires   int64  `json:"exp"`
	}
	signed, signature, err := splitJWT(assertion, &header, &body)
	if err != nil {
		return &refusal{400, "invalid_request", 50027, "JWT token is invalid or malformed: " + err.Error()}
	}
	thumbprint, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(header.Thumbprint))
	if err != nil {
		return &refusal{401, "invalid_client", 700027, "The thumbprint in x5t#S256 cannot be read."}
	}
	cert, err := c.certificate(thumbprint)
	if err != nil {
		return &refusal{401, "invalid_client", 700027, "The certificate with identifier used to sign the client assertion is not registered on application: " + err.Error() + "."}
	}
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return &refusal{401, "invalid_client", 1000502, "The provided certificate is not within its specified validity window: " +
			cert.NotBefore.UTC().Format(time.RFC3339) + " to " + cert.NotAfter.UTC().Format(time.RFC3339) + "."}
	}
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return &refusal{401, "invalid_client", 700027, fmt.Sprintf("The certificate has a key of type %T.", cert.PublicKey)}
	}
	if err := checkSignature(header.Algorithm, public, signed, signature); err != nil {
		return &refusal{401, "invalid_client", 700027, "Client assertion failed signature validation: " + err.Error() + "."}
	}
	switch {
	case !slices.Contains(audiences, body.Audience):
		return &refusal{401, "invalid_client", 700023, "Client assertion audience claim does not match Realm issuer: " + body.Audience + "."}
	case body.Issuer != id || body.Subject != id:
		return &refusal{401, "invalid_client", 700021, "Client assertion application identifier doesn't match 'client_id' parameter."}
	case body.ID == "":
		return &refusal{401, "invalid_client", 50027, "JWT token is invalid or malformed: it has no jti."}
	case now.Add(skew).Before(time.Unix(body.NotBefore, 0)) || now.Add(-skew).After(time.Unix(body.Expires, 0)):
		return &refusal{401, "invalid_client", 700024, fmt.Sprintf(
			"Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s.",
			now.UTC().Format(time.RFC3339), time.Unix(body.NotBefore, 0).UTC().Format(time.RFC3339), time.Unix(body.Expires, 0).UTC().Format(time.RFC3339))}
	}
	return nil
}

// splitJWT decodes a JWT. What is signed and the signature are returned; nothing is
// verified.
func splitJWT(token string, header, body any) (signed string, signature []byte, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", nil, fmt.Errorf("it has %d parts instead of 3", len(parts))
	}
	enc := base64.RawURLEncoding
	for i, to := range []any{header, body} {
		text, err := enc.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, to)
		}
		if err != nil {
			return "", nil, err
		}
	}
	signature, err = enc.DecodeString(parts[2])
	return parts[0] + "." + parts[1], signature, err
}

func checkSignature(algorithm string, by *rsa.PublicKey, signed string, signature []byte) error {
	sum := sha256.Sum256([]byte(signed))
	switch algorithm {
	case "RS256":
		return rsa.VerifyPKCS1v15(by, crypto.SHA256, sum[:], signature)
	case "PS256":
		return rsa.VerifyPSS(by, crypto.SHA256, sum[:], signature, nil)
	}
	return errors.New("algorithm " + algorithm + " is not RS256 or PS256")
}
