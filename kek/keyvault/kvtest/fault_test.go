package kvtest_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

var sharedKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return kvtest.NewPool().RSA(2048) })

// shared returns a key for tests that do not care which.
func shared(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := sharedKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// bench is a server with a key, a client of it and something to unwrap.
type bench struct {
	*kvtest.Server
	client *azkeys.Client
	value  []byte
}

func newBench(t *testing.T, o kvtest.Options) *bench {
	t.Helper()
	b := &bench{Server: kvtest.Start(t, o)}
	b.CreateKey("corp", "backup", kvtest.KeyOptions{Material: shared(t)})
	b.client = keys(t, b.Server)
	b.value = sealed(t, shared(t).Public().(*rsa.PublicKey), []byte("secret"))
	if err := b.unwrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) unwrap(ctx context.Context) error {
	opened, err := unwrap(ctx, b.client, "backup", "", b.value)
	if err == nil && string(opened) != "secret" {
		return errors.New("opened to something else")
	}
	return err
}

func (b *bench) get(ctx context.Context) error {
	_, err := b.client.GetKey(ctx, "backup", "", nil)
	return err
}

func TestDeny(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.Deny(kvtest.Scope{Vault: "corp", Key: "Backup"}, kvtest.OpUnwrap)
	wantError(t, b.unwrap(t.Context()), http.StatusForbidden, "ForbiddenByRbac", "Microsoft.KeyVault/vaults/keys/unwrap/action", "appid="+appID)
	if err := b.get(t.Context()); err != nil {
		t.Error(err)
	}
	b.Allow(kvtest.Scope{Vault: "corp", Key: "backup"}, kvtest.OpUnwrap)
	b.Deny(kvtest.Scope{Client: "somebody-else"})
	if err := b.unwrap(t.Context()); err != nil {
		t.Error(err)
	}
	b.Deny(kvtest.Scope{Client: appID})
	wantError(t, b.get(t.Context()), http.StatusForbidden, "ForbiddenByRbac")
	b.Allow(kvtest.Scope{Client: appID})
	b.CloseFirewall("corp")
	wantError(t, b.get(t.Context()), http.StatusForbidden, "ForbiddenByFirewall", "Client address is not authorized and caller is not a trusted service.")
	b.OpenFirewall("corp")
	if err := b.get(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestThrottle: so many requests and no more, with a Retry-After that the client
// obeys when it may.
func TestThrottle(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.ForgetCalls()
	b.Throttle(2, 1500*time.Millisecond, kvtest.OpUnwrap)
	for range 2 {
		err := b.unwrap(t.Context())
		wantError(t, err, http.StatusTooManyRequests, "Throttled", "VaultRequestTypeLimitReached")
		var r *azcore.ResponseError
		if errors.As(err, &r) && r.RawResponse.Header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q, want 2", r.RawResponse.Header.Get("Retry-After"))
		}
	}
	if err := b.unwrap(t.Context()); err != nil {
		t.Error(err)
	}
	b.Throttle(2, 0)
	retrying := policy.WithRetryOptions(t.Context(), policy.RetryOptions{MaxRetries: 3, RetryDelay: time.Millisecond})
	if err := b.unwrap(retrying); err != nil {
		t.Error(err)
	}
	if n := b.Calls(kvtest.OpUnwrap); n != 6 {
		t.Errorf("%d calls, want 6", n)
	}
	lift := b.Inject(kvtest.Fault{Status: http.StatusServiceUnavailable, Key: "backup"})
	for range 3 {
		wantError(t, b.get(t.Context()), http.StatusServiceUnavailable)
	}
	lift()
	if err := b.get(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHold: a request waits as long as the test wants, and one that its client gives
// up is over.
func TestHold(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	held := b.Hold(kvtest.OpUnwrap)
	done := make(chan error, 1)
	go func() { done <- b.unwrap(t.Context()) }()
	<-held.Arrived()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	if err := b.get(t.Context()); err != nil {
		t.Errorf("another operation: %v", err)
	}
	held.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	held = b.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- b.unwrap(ctx) }()
	<-held.Arrived()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	held.Release()
}

func TestReset(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.ForgetCalls()
	b.Reset(1, kvtest.OpUnwrap)
	if err := b.unwrap(t.Context()); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want a reset connection", err)
	}
	if log := b.Requests(); len(log) != 1 || log[0].Status != 0 || log[0].Op != kvtest.OpUnwrap {
		t.Errorf("log %+v", log)
	}
	if err := b.unwrap(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDNS(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.LoseDNS()
	var dns *net.DNSError
	if err := b.unwrap(t.Context()); !errors.As(err, &dns) || dns.IsNotFound {
		t.Errorf("got %v, want that the resolver fails", err)
	}
	b.RestoreDNS()
	held, done := b.Hold(), make(chan error, 1)
	go func() { done <- b.unwrap(t.Context()) }()
	<-held.Arrived()
	b.LoseDNS("corp.localhost")
	held.Release()
	if err := <-done; err != nil {
		t.Errorf("a request under way: %v", err)
	}
	if err := b.unwrap(t.Context()); !errors.As(err, &dns) {
		t.Errorf("the request after it: %v", err)
	}
	b.RestoreDNS()
	if err := b.unwrap(t.Context()); err != nil {
		t.Error(err)
	}
	b.DeleteVault("corp")
	if err := b.unwrap(t.Context()); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("got %v, want that there is no such host", err)
	}
	b.RecoverVault("corp")
	if err := b.unwrap(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := b.Dialer()(t.Context(), "tcp", "example.com:443"); !errors.As(err, &dns) {
		t.Errorf("a name of others: %v", err)
	}
}

// TestProxy: through the proxy a client needs no names, and gets nowhere else.
func TestProxy(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	address, err := b.Proxy("")
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport, ok := b.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("the client has another transport")
	}
	transport.DialContext, transport.Proxy = nil, http.ProxyURL(proxy)
	client := &http.Client{Transport: transport}
	options := azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: client, Retry: policy.RetryOptions{MaxRetries: -1}}}
	keys, err := azkeys.NewClient(b.VaultURL("corp"), secretCredential(t, b.Server), &options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.GetKey(t.Context(), "backup", "", nil); err != nil {
		t.Error(err)
	}
	for _, address := range []string{"https://example.com/", "https://127.0.0.1:1/", "http://corp.localhost/"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := client.Do(r); err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("%s: %s", address, resp.Status)
			}
		}
	}
	if _, err := b.Proxy("0.0.0.0:0"); err == nil {
		t.Error("a proxy that others can reach")
	}
}

func TestDown(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.Down()
	if err := b.unwrap(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want a refused connection", err)
	}
	b.Up()
	if err := b.unwrap(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFailOver: what reads goes on, what writes does not.
func TestFailOver(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.FailOver("corp")
	if err := errors.Join(b.get(t.Context()), b.unwrap(t.Context())); err != nil {
		t.Error(err)
	}
	if _, err := b.client.WrapKey(t.Context(), "backup", "", operation(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil); err != nil {
		t.Error(err)
	}
	if _, err := b.client.BackupKey(t.Context(), "backup", nil); err != nil {
		t.Error(err)
	}
	_, create := b.client.CreateKey(t.Context(), "new", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA)}, nil)
	_, rotate := b.client.RotateKey(t.Context(), "backup", nil)
	_, update := b.client.UpdateKey(t.Context(), "backup", "", azkeys.UpdateKeyParameters{}, nil)
	_, gone := b.client.DeleteKey(t.Context(), "backup", nil)
	for _, err := range []error{create, rotate, update, gone} {
		wantError(t, err, http.StatusForbidden, "read-only")
	}
	b.FailBack("corp")
	if _, err := b.client.RotateKey(t.Context(), "backup", nil); err != nil {
		t.Error(err)
	}
}

// TestRevokedTokens: the client answers the challenge with a new token.
func TestRevokedTokens(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.ForgetCalls()
	b.RevokeTokens()
	if err := b.unwrap(t.Context()); err != nil {
		t.Error(err)
	}
	if n := b.Calls(kvtest.OpToken); n != 1 {
		t.Errorf("%d tokens, want 1", n)
	}
}

// TestEntraDown: without a token there is no answer from the vault, but those who
// have one go on.
func TestEntraDown(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	for name, fault := range map[string]kvtest.Fault{
		"unavailable": {Ops: []kvtest.Op{kvtest.OpToken}, Status: http.StatusServiceUnavailable},
		"reset":       {Ops: []kvtest.Op{kvtest.OpToken}, Reset: true},
		"discovery":   {Ops: []kvtest.Op{kvtest.OpDiscovery}, Status: http.StatusInternalServerError},
	} {
		lift := b.Inject(fault)
		fresh := keysWith(t, b.Server, secretCredential(t, b.Server))
		if _, err := fresh.GetKey(t.Context(), "backup", "", nil); err == nil {
			t.Errorf("%s: a new client got an answer", name)
		}
		if err := b.unwrap(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		lift()
		if _, err := fresh.GetKey(t.Context(), "backup", "", nil); err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		}
	}
}
