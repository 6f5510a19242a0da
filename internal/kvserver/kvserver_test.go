package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
)

// start runs a server until the test or stop ends it, and returns what it printed.
func start(t *testing.T, args ...string) (printed string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, args, w, t.Output())
		w.CloseWithError(err)
		done <- err
	}()
	var text strings.Builder
	for buffer := make([]byte, 4096); !strings.Contains(text.String(), " enable "); {
		n, err := r.Read(buffer)
		text.Write(buffer[:n])
		if err != nil {
			cancel()
			t.Fatalf("%v: it printed %q", err, &text)
		}
	}
	var once bool
	stop = func() {
		cancel()
		if !once {
			once = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return text.String(), stop
}

// entry is the key entry that the server prints, as the agent reads it.
type entry struct {
	URI        string
	Credential config.Credential
}

// parse reads the part of the output that is for coffer.yaml.
func parse(t *testing.T, printed string) entry {
	t.Helper()
	_, text, _ := strings.Cut(printed, "In coffer.yaml:\n")
	text, _, _ = strings.Cut(text, "\nThen,")
	c, err := config.Parse("coffer.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v: %s", err, printed)
	}
	key := c.Keys["cloud"]
	if key.Credential == nil {
		t.Fatalf("there is no credential: %s", printed)
	}
	return entry{URI: key.URI, Credential: *key.Credential}
}

// client makes an Azure client from nothing but the entry.
func (e entry) client(t *testing.T) *azkeys.Client {
	t.Helper()
	secret, err := os.ReadFile(strings.TrimPrefix(e.Credential.SecretSource, "file:"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(e.Credential.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	wire := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	if e.Credential.Proxy != "" {
		proxy, err := url.Parse(e.Credential.Proxy)
		if err != nil {
			t.Fatal(err)
		}
		wire.Proxy = http.ProxyURL(proxy)
	}
	t.Cleanup(wire.CloseIdleConnections)
	options := azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: e.Credential.Authority},
		Transport: &http.Client{Transport: wire}, Retry: policy.RetryOptions{MaxRetries: -1},
	}
	cred, err := azidentity.NewClientSecretCredential(e.Credential.Tenant, e.Credential.Client, string(secret),
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	vault, _, _ := strings.Cut(e.URI, "/keys/")
	c, err := azkeys.NewClient(vault, cred, &azkeys.ClientOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestServer: a client that has what the server printed uses its key, ctl takes it
// away and gives it back, and the next start continues.
func TestServer(t *testing.T) {
	dir := t.TempDir()
	printed, stop := start(t, "--state", dir, "--bits", "2048")
	first := parse(t, printed)
	alg := azkeys.EncryptionAlgorithmRSAOAEP256
	wrapped, err := first.client(t).WrapKey(t.Context(), "backup", "", azkeys.KeyOperationParameters{Algorithm: &alg, Value: []byte("secret")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unwrap := func(e entry) error {
		got, err := e.client(t).UnwrapKey(t.Context(), "backup", wrapped.KID.Version(), azkeys.KeyOperationParameters{Algorithm: &alg, Value: wrapped.Result}, nil)
		if err == nil && string(got.Result) != "secret" {
			return errors.New("it opens to something else")
		}
		return err
	}
	pool := keyvault.NewPool()
	t.Cleanup(func() { pool.Close() })
	check := keyvault.Check(t.Context(), keyvault.Config{
		Name: "cloud", URI: first.URI, Pool: pool, Log: slog.New(slog.DiscardHandler),
		Credential: keyvault.Credential{
			Kind: keyvault.Kind(first.Credential.Kind), Tenant: first.Credential.Tenant, Client: first.Credential.Client,
			SecretSource: first.Credential.SecretSource, Authority: first.Credential.Authority, CA: first.Credential.CA, Proxy: first.Credential.Proxy,
		},
	})
	if len(check) != len(kek.Stages()) {
		t.Errorf("the check has %d steps", len(check))
	}
	for _, step := range check {
		if step.Verdict != kek.Passed && step.Verdict != kek.Warned {
			t.Errorf("the check of the key: %+v", step)
		}
	}
	order := func(verb, key string) error {
		return run(t.Context(), []string{"ctl", "--state", dir, verb, key}, t.Output(), t.Output())
	}
	for _, step := range []struct {
		verb  string
		works bool
	}{{"disable", false}, {"enable", true}, {"deny", false}, {"allow", true}, {"rotate", true}, {"delete", false}, {"recover", true}} {
		if err := order(step.verb, "corp/backup"); err != nil {
			t.Fatal(err)
		}
		if err := unwrap(first); (err == nil) != step.works {
			t.Errorf("after %s: %v", step.verb, err)
		}
	}
	if err := order("disable", "none"); err == nil || !strings.Contains(err.Error(), `there is no key "none"`) {
		t.Errorf("a key that is not there: %v", err)
	}
	if err := run(t.Context(), []string{"--state", dir}, t.Output(), t.Output()); err == nil || !strings.Contains(err.Error(), "another kvserver") {
		t.Errorf("a second server on the same folder: %v", err)
	}
	private(t, dir, "state.json", "settings.json", "client-secret", "ca.pem", "admin.json")
	if err := order("disable", "backup"); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := order("enable", "backup"); err == nil || !strings.Contains(err.Error(), "no kvserver runs") {
		t.Errorf("ctl without a server: %v", err)
	}

	if err := run(t.Context(), []string{"--state", dir, "--key", "other"}, t.Output(), t.Output()); err == nil || !strings.Contains(err.Error(), "--key backup") {
		t.Errorf("with another key: %v", err)
	}
	printed, _ = start(t, "--state", dir)
	second := parse(t, printed)
	if second != first {
		t.Errorf("the second start printed %+v, the first %+v", second, first)
	}
	if err := unwrap(second); err == nil {
		t.Error("the key is not disabled any more")
	}
	if err := order("enable", "backup"); err != nil {
		t.Fatal(err)
	}
	if err := unwrap(second); err != nil {
		t.Error(err)
	}
}

// private checks that nobody else may read these files.
func private(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

// TestWithoutState: nothing is left behind.
func TestWithoutState(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	printed, stop := start(t, "--bits", "2048", "--managed-hsm")
	e := parse(t, printed)
	if got, err := e.client(t).GetKey(t.Context(), "backup", "", nil); err != nil || *got.Key.Kty != azkeys.KeyTypeRSAHSM {
		t.Errorf("key %+v, %v", got.Key, err)
	}
	stop()
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAdminToken(t *testing.T) {
	dir := t.TempDir()
	start(t, "--state", dir, "--bits", "2048")
	text, err := os.ReadFile(filepath.Join(dir, adminFile))
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(text, []byte(`"token":"`)) + len(`"token":"`)
	text[i] ^= 1
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, adminFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"ctl", "--state", other, "delete", "backup"}, t.Output(), t.Output()); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("with a wrong token: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{
		{"--listen", "0.0.0.0:8443"}, {"--listen", ":8443"}, {"--listen", "192.0.2.1:1"}, {"--nothing"}, {"backup"}, {"--bits", "1024"}, {"--key", "a_b"}, {"--vault", ""},
		{"ctl"}, {"ctl", "disable", "backup"}, {"ctl", "--state", "x", "disable"}, {"ctl", "--nothing"},
	} {
		if err := run(t.Context(), slices.Clone(args), io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
}
