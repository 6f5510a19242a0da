package keyvault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

const (
	vaultName = "corp"
	keyName   = "backup"
	clientID  = "7d3c1a52-0000-4000-8000-00000000c0ff"
	password  = "Zt8Q~the-client-secret-that-nobody-sees"
)

// bench is a Key Vault, the clock by which all go, and what is on the wire to it.
type bench struct {
	t      *testing.T
	server *kvtest.Server
	pool   *keyvault.Pool
	cred   keyvault.Credential
	wire   http.RoundTripper // to the server
	began  time.Time

	mu      sync.Mutex
	passed  time.Duration // that was waited
	waits   []time.Duration
	skew    time.Duration // of the servers' clock, as their Date says it
	edit    func(*http.Response)
	said    bytes.Buffer // all that was logged, and all errors
	secrets []string     // that were on the wire
	blind   bool         // the wire is another
}

func newBench(t *testing.T, opts kvtest.Options) *bench {
	t.Helper()
	testkit.Part(t, "Key Vault")
	b := &bench{t: t, pool: keyvault.NewPool(), began: time.Now()}
	if opts.Clock == nil {
		opts.Clock = b.Now
	}
	b.server = kvtest.Start(t, opts)
	b.wire = b.server.Client().Transport
	b.server.AddSecretClient(clientID, password)
	b.cred = keyvault.Credential{
		Kind: keyvault.Secret, Tenant: b.server.Tenant(), Client: clientID,
		SecretSource: "file:" + private(t, "secret", password), Authority: b.server.Authority(),
	}
	t.Cleanup(b.close)
	return b
}

// close checks that no secret of this test was said by anything.
func (b *bench) close() {
	if err := b.pool.Close(); err != nil {
		b.t.Errorf("close pool: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.blind && len(b.secrets) == 0 && b.server.Calls(kvtest.OpToken) > 0 {
		b.t.Error("no secret was seen on the wire")
	}
	plaintext := base64.RawURLEncoding.EncodeToString([]byte("secret"))
	for _, s := range append(b.secrets, password, plaintext) {
		if strings.Contains(b.said.String(), s) {
			b.t.Errorf("a secret shows in logs or errors: %.12s...", s)
		}
	}
}

// Now is the clock of the agent and of the vault.
func (b *bench) Now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.passed)
}

// Wait makes time pass.
func (b *bench) Wait(ctx context.Context, d time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.passed += d
	b.waits = append(b.waits, d)
	return ctx.Err()
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.passed += d
}

func (b *bench) waited() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]time.Duration(nil), b.waits...)
}

// Write takes log lines.
func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.Write(p)
}

func (b *bench) log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.String()
}

// tamper has every answer pass through edit.
func (b *bench) tamper(edit func(*http.Response)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.edit = edit
}

// RoundTrip notes what is secret on the wire, and dates the answers.
func (b *bench) RoundTrip(req *http.Request) (*http.Response, error) {
	b.note(req)
	resp, err := b.wire.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	now := b.Now()
	b.mu.Lock()
	edit := b.edit
	resp.Header.Set("Date", now.Add(b.skew).UTC().Format(http.TimeFormat))
	b.mu.Unlock()
	if edit != nil {
		edit(resp)
	}
	return resp, nil
}

func (b *bench) note(req *http.Request) {
	var found []string
	if _, token, ok := strings.Cut(req.Header.Get("Authorization"), " "); ok {
		found = append(found, token)
	}
	if req.Body != nil && strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			b.t.Errorf("read request: %v", err)
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		if form, err := url.ParseQuery(string(body)); err == nil {
			found = append(found, form["client_secret"]...)
			found = append(found, form["client_assertion"]...)
		}
	}
	b.mu.Lock()
	b.secrets = append(b.secrets, found...)
	b.mu.Unlock()
}

// reconnect makes a connection for every request from now on.
func (b *bench) reconnect() {
	b.t.Helper()
	transport, ok := b.wire.(*http.Transport)
	if !ok {
		b.t.Fatalf("the wire is %T", b.wire)
	}
	transport = transport.Clone()
	transport.DisableKeepAlives = true
	b.wire = transport
}

func (b *bench) config(uri string) keyvault.Config {
	return keyvault.Config{
		Name: "main", URI: uri, Credential: b.cred, Now: b.Now, Wait: b.Wait, Transport: b, Pool: b.pool,
		Log: slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (b *bench) uri(version string) string { return b.server.KeyURI(vaultName, keyName, version) }

func (b *bench) open(t *testing.T, uri string) []kek.Key {
	t.Helper()
	keys, err := keyvault.Open(t.Context(), b.config(uri))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	for _, key := range keys {
		t.Cleanup(func() {
			if err := key.Close(); err != nil {
				t.Errorf("close key: %v", err)
			}
		})
	}
	return keys
}

// made makes a key and opens it.
func (b *bench) made(o kvtest.KeyOptions) kek.Key {
	b.t.Helper()
	b.server.CreateKey(vaultName, keyName, o)
	return b.open(b.t, b.uri(""))[0]
}

// want checks that err is that one sentinel of kek, and says every part.
func (b *bench) want(err, class error, parts ...string) {
	b.t.Helper()
	fmt.Fprintf(b, "%v %+v\n", err, err)
	for _, sentinel := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrMissing, kek.ErrUnsuitable, kek.ErrWrongKey, kek.ErrNoKey} {
		if errors.Is(err, sentinel) != (sentinel == class) {
			b.t.Errorf("error is %q: %v", err, sentinel)
		}
	}
	if err == nil {
		return
	}
	if strings.Contains(err.Error(), "\n") || len(err.Error()) > 1200 {
		b.t.Errorf("error is no line: %q", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			b.t.Errorf("error does not say %q: %v", part, err)
		}
	}
}

func wrap(t *testing.T, key kek.Key, secret string) kek.Wrapped {
	t.Helper()
	w, err := key.Wrap([]byte(secret))
	if err != nil {
		t.Fatalf("Wrap: %v", err)
	}
	return w
}

func unwrap(t *testing.T, key kek.Key, w kek.Wrapped, secret string) {
	t.Helper()
	got, err := key.Unwrap(t.Context(), w)
	if err != nil || string(got) != secret {
		t.Errorf("Unwrap = %q, %v; want %q", got, err, secret)
	}
}

// private writes a file that only this user can read.
func private(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// clientKey is the key of all clients' certificates: making one takes long.
var clientKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// certificate makes a certificate for a client, in a PEM file with its key.
func certificate(t *testing.T, from, to time.Time) (*x509.Certificate, string) {
	t.Helper()
	key, err := clientKey()
	if err != nil {
		t.Fatal(err)
	}
	return certificateOf(t, key, from, to)
}

func certificateOf(t *testing.T, key *rsa.PrivateKey, from, to time.Time) (*x509.Certificate, string) {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "agent"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	return cert, private(t, "client.pem", string(text))
}

// useCertificate has the bench sign in with a certificate of those dates.
func (b *bench) useCertificate(from, to time.Time) {
	b.t.Helper()
	cert, path := certificate(b.t, from, to)
	b.server.AddCertificateClient(clientID, cert)
	b.cred.Kind, b.cred.SecretSource, b.cred.Certificate = keyvault.Certificate, "", path
}
