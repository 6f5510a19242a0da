package keyvault_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// startProxy starts an HTTP proxy that leads wherever dial does.
func startProxy(t *testing.T, dial func(network, address string) (net.Conn, error)) (string, *atomic.Int64) {
	t.Helper()
	var tunnels atomic.Int64
	var under sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only tunnels", http.StatusMethodNotAllowed)
			return
		}
		far, err := dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer far.Close()
		tunnels.Add(1)
		w.WriteHeader(http.StatusOK)
		// Counted before the server lets go of the connection: until then it waits.
		under.Add(1)
		defer under.Done()
		near, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer near.Close()
		under.Go(func() {
			io.Copy(far, near)
			far.Close()
		})
		io.Copy(near, far)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		under.Wait()
	})
	return server.URL, &tunnels
}

// own returns a config without a transport of the test's: only the proxy leads to
// the server.
func (b *bench) own(t *testing.T) (keyvault.Config, *atomic.Int64) {
	t.Helper()
	b.blind = true
	dial := b.server.Dialer()
	proxy, tunnels := startProxy(t, func(network, address string) (net.Conn, error) { return dial(t.Context(), network, address) })
	cfg := b.config(b.uri(""))
	cfg.Transport, cfg.Pool = nil, nil
	cfg.Credential.Proxy, cfg.Credential.CA = proxy, b.server.CAFile()
	return cfg, tunnels
}

// TestOwnTransport goes through a proxy to a server whose authority only the config
// knows, for the vault and for tokens.
func TestOwnTransport(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
	cfg, tunnels := b.own(t)
	keys, err := keyvault.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	unwrap(t, keys[0], wrap(t, keys[0], "secret"), "secret")
	if tunnels.Load() < 2 {
		t.Errorf("%d connections went through the proxy", tunnels.Load())
	}
	if err := keys[0].Close(); err != nil {
		t.Error(err)
	}

	cfg.Credential.CA = ""
	_, err = keyvault.Open(t.Context(), cfg)
	b.want(err, kek.ErrUnreachable, "credential.ca")
	cfg.Credential.CA = private(t, "ca.pem", "no certificate")
	_, err = keyvault.Open(t.Context(), cfg)
	b.want(err, kek.ErrUnsuitable, "has no certificate")
	cfg.Credential.CA = "/does/not/exist"
	_, err = keyvault.Open(t.Context(), cfg)
	b.want(err, kek.ErrUnsuitable, "ca: ", "/does/not/exist")
}

// TestProxyFails: a proxy that is away, or that lets nobody through, is no verdict
// on the key.
func TestProxyFails(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
	cfg, _ := b.own(t)
	refusing, _ := startProxy(t, func(string, string) (net.Conn, error) { return nil, errors.New("not allowed") })
	for _, proxy := range []string{refusing, "http://127.0.0.1:1"} {
		cfg.Credential.Proxy = proxy
		_, err := keyvault.Open(t.Context(), cfg)
		b.want(err, kek.ErrUnreachable, "see whether the proxy "+proxy)
	}
}

// TestOldTLS: a server that knows only TLS 1.1 is not spoken with.
func TestOldTLS(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	var asked atomic.Int64
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.StartTLS()
	t.Cleanup(old.Close)
	cfg, _ := b.own(t)
	cfg.Credential.Proxy, _ = startProxy(t, func(network, _ string) (net.Conn, error) {
		return net.Dial(network, strings.TrimPrefix(old.URL, "https://"))
	})
	_, err := keyvault.Open(t.Context(), cfg)
	b.want(err, kek.ErrUnreachable)
	if asked.Load() > 0 {
		t.Error("the server was asked over TLS 1.1")
	}
}
