package kvtest_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// selfSigned returns a certificate for a client.
func selfSigned(t *testing.T, until time.Time) (*x509.Certificate, *rsa.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "backup agent"},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func certificateCredential(t *testing.T, s *kvtest.Server, cert *x509.Certificate, key crypto.PrivateKey) azcore.TokenCredential {
	t.Helper()
	cred, err := azidentity.NewClientCertificateCredential(s.Tenant(), appID, []*x509.Certificate{cert}, key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: transport(s), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// wantRefused checks that Entra gave no token and why.
func wantRefused(t *testing.T, err error, text string) {
	t.Helper()
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want a refusal of Entra with %q", err, text)
	}
}

func TestSecretCredential(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	c := keys(t, s)
	for range 3 {
		if _, err := c.GetKey(t.Context(), "backup", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Calls(kvtest.OpToken); n != 1 {
		t.Errorf("%d tokens for 3 requests, want 1", n)
	}
	cred, err := azidentity.NewClientSecretCredential(s.Tenant(), appID, "wrong",
		&azidentity.ClientSecretCredentialOptions{ClientOptions: transport(s), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = keysWith(t, s, cred).GetKey(t.Context(), "backup", "", nil)
	wantRefused(t, err, "AADSTS7000215")

	s.RefuseClient(appID)
	_, err = keys(t, s).GetKey(t.Context(), "backup", "", nil)
	wantRefused(t, err, "AADSTS7000112")
	s.AcceptClient(appID)
	if _, err = keys(t, s).GetKey(t.Context(), "backup", "", nil); err != nil {
		t.Error(err)
	}
	again := secretCredential(t, s)
	s.RemoveClient(appID)
	_, err = keysWith(t, s, again).GetKey(t.Context(), "backup", "", nil)
	wantRefused(t, err, "AADSTS700016")
	for _, r := range s.Requests() {
		if text, _ := json.Marshal(r); bytes.Contains(text, []byte(secret)) {
			t.Errorf("the log has the secret: %s", text)
		}
	}
}

// TestCertificateCredential: an assertion is accepted if it is signed with the
// registered certificate while that is valid, and by the clock of Entra.
func TestCertificateCredential(t *testing.T) {
	at := newClock()
	s := kvtest.Start(t, kvtest.Options{AuthorityClock: at.Now})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	cert, key := selfSigned(t, time.Now().Add(24*time.Hour))
	get := func(cert *x509.Certificate, key crypto.PrivateKey) error {
		_, err := keysWith(t, s, certificateCredential(t, s, cert, key)).GetKey(t.Context(), "backup", "", nil)
		return err
	}
	s.AddSecretClient(appID, secret)
	wantRefused(t, get(cert, key), "AADSTS70021")
	s.AddCertificateClient(appID, cert)
	if err := get(cert, key); err != nil {
		t.Fatal(err)
	}
	expired, expiredKey := selfSigned(t, time.Now().Add(-time.Hour))
	wantRefused(t, get(expired, expiredKey), "AADSTS700027")
	s.AddCertificateClient(appID, expired)
	wantRefused(t, get(expired, expiredKey), "AADSTS1000502")
	at.Advance(time.Hour)
	wantRefused(t, get(cert, key), "AADSTS700024")
	at.Advance(-2 * time.Hour)
	wantRefused(t, get(cert, key), "AADSTS700024")
}

// TestAssertions: what is in an assertion is looked at, and how it is signed.
func TestAssertions(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	cert, key := selfSigned(t, time.Now().Add(24*time.Hour))
	_, stranger := selfSigned(t, time.Now().Add(24*time.Hour))
	s.AddCertificateClient(appID, cert)
	sum := sha256.Sum256(cert.Raw)
	type object = map[string]any
	tokenURL := s.Authority() + s.Tenant() + "/oauth2/v2.0/token"
	for name, test := range map[string]struct {
		header, body object
		key          *rsa.PrivateKey
		refused      string
	}{
		"right":          {key: key},
		"older issuer":   {body: object{"aud": s.Authority() + s.Tenant() + "/v2.0"}, key: key},
		"PS256":          {header: object{"alg": "PS256"}, key: key, refused: "AADSTS700027"}, // signed with PKCS #1 v1.5
		"no algorithm":   {header: object{"alg": "none"}, key: key, refused: "AADSTS700027"},
		"other key":      {key: stranger, refused: "AADSTS700027"},
		"other cert":     {header: object{"x5t#S256": "AAAA"}, key: key, refused: "AADSTS700027"},
		"other audience": {body: object{"aud": "https://login.microsoftonline.com/"}, key: key, refused: "AADSTS700023"},
		"other client":   {body: object{"sub": "somebody"}, key: key, refused: "AADSTS700021"},
		"no id":          {body: object{"jti": ""}, key: key, refused: "AADSTS50027"},
		"too old":        {body: object{"exp": time.Now().Add(-time.Hour).Unix()}, key: key, refused: "AADSTS700024"},
		"too early":      {body: object{"nbf": time.Now().Add(time.Hour).Unix()}, key: key, refused: "AADSTS700024"},
	} {
		header := object{"alg": "RS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}
		body := object{"aud": tokenURL, "iss": appID, "sub": appID, "jti": "1", "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
		maps.Copy(header, test.header)
		maps.Copy(body, test.body)
		assertion := signRS256(t, test.key, header, body)
		cred, err := azidentity.NewClientAssertionCredential(s.Tenant(), appID, func(context.Context) (string, error) { return assertion, nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: transport(s), DisableInstanceDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = keysWith(t, s, cred).GetKey(t.Context(), "backup", "", nil)
		switch {
		case test.refused != "":
			wantRefused(t, err, test.refused)
		case err != nil:
			t.Errorf("%s: %v", name, err)
		}
	}
}

func signRS256(t *testing.T, key *rsa.PrivateKey, header, body any) string {
	t.Helper()
	var parts []string
	for _, part := range []any{header, body} {
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(text))
	}
	signed := strings.Join(parts, ".")
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestWorkloadCredential(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	file := filepath.Join(t.TempDir(), "token")
	get := func(content string) error {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		cred, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: transport(s), DisableInstanceDiscovery: true, ClientID: appID, TenantID: s.Tenant(), TokenFilePath: file,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = keysWith(t, s, cred).GetKey(t.Context(), "backup", "", nil)
		return err
	}
	s.AddWorkloadClient(appID, "issuer.token.1")
	if err := get("issuer.token.1"); err != nil {
		t.Error(err)
	}
	wantRefused(t, get("issuer.token.2"), "AADSTS70021")
}

// TestArcEndpoint goes through the handshake of the Arc agent step by step.
func TestArcEndpoint(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	dir := t.TempDir()
	resource := strings.TrimSuffix(s.Authority(), "/")
	endpoint := s.ArcEndpoint(dir) + "?" + url.Values{"api-version": {"2020-06-01"}, "resource": {resource}}.Encode()
	ask := func(header http.Header) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	if r := ask(http.Header{}); r.StatusCode != http.StatusBadRequest {
		t.Errorf("without the Metadata header: %s", r.Status)
	}
	r := ask(http.Header{"Metadata": {"true"}})
	realm, ok := strings.CutPrefix(r.Header.Get("WWW-Authenticate"), "Basic realm=")
	if r.StatusCode != http.StatusUnauthorized || !ok || filepath.Dir(realm) != dir || filepath.Ext(realm) != ".key" {
		t.Fatalf("first answer: %s, %q", r.Status, r.Header)
	}
	content, err := os.ReadFile(realm)
	if err != nil {
		t.Fatal(err)
	}
	if r := ask(http.Header{"Metadata": {"true"}, "Authorization": {"Basic wrong"}}); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("with wrong content: %s", r.Status)
	}
	with := http.Header{"Metadata": {"true"}, "Authorization": {"Basic " + string(content)}}
	r = ask(with)
	var token struct {
		Access string `json:"access_token"`
		Type   string `json:"token_type"`
	}
	if err := json.NewDecoder(r.Body).Decode(&token); err != nil || r.StatusCode != http.StatusOK || token.Type != "Bearer" || token.Access == "" {
		t.Errorf("second answer: %s, %v", r.Status, err)
	}
	if r := ask(with); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("the same content again: %s", r.Status)
	}
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	got := raw(t, s, http.MethodGet, s.KeyURI("corp", "backup", "")+"?api-version=7.5", "", http.Header{"Authorization": {"Bearer " + token.Access}})
	if got.StatusCode != http.StatusOK {
		t.Errorf("with the token of the agent: %s", got.Status)
	}
}

// TestAzureNames: the client needs no setting but a dialer to believe that it talks
// to the real clouds.
func TestAzureNames(t *testing.T) {
	for vault, settings := range map[string]cloud.Configuration{
		"https://corp.vault.azure.net":         cloud.AzurePublic,
		"https://corp.vault.azure.cn":          cloud.AzureChina,
		"https://corp.vault.usgovcloudapi.net": cloud.AzureGovernment,
	} {
		s := kvtest.Start(t, kvtest.Options{Azure: true})
		version := s.CreateKey("corp", "backup", kvtest.KeyOptions{})
		s.AddSecretClient(appID, secret)
		options := azcore.ClientOptions{Cloud: settings, Transport: s.Client(), Retry: policy.RetryOptions{MaxRetries: -1}}
		cred, err := azidentity.NewClientSecretCredential(s.Tenant(), appID, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: options})
		if err != nil {
			t.Fatal(err)
		}
		c, err := azkeys.NewClient(vault, cred, &azkeys.ClientOptions{ClientOptions: options})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.GetKey(t.Context(), "backup", "", nil)
		if err != nil {
			t.Errorf("%s: %v", vault, err)
		} else if want := vault + "/keys/backup/" + version; string(*got.Key.KID) != want {
			t.Errorf("kid %s, want %s", *got.Key.KID, want)
		}
	}
}

// raw sends a request as it is, without an Azure client.
func raw(t *testing.T, s *kvtest.Server, method, address, body string, header http.Header) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(text))
	return resp
}
