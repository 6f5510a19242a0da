package keyvault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	applicationID = "coffer"
	maxAnswer     = 1 << 20 // of a server; the largest, a page of versions, has some 20 KiB
	maxCA         = 1 << 20
)

// newTransport returns what carries requests to the vault and the token endpoint.
func newTransport(c Credential) (*http.Transport, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if c.CA != "" {
		text, err := readFile(c.CA, maxCA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ca: %s has no certificate in PEM", c.CA)
		}
	}
	t := newLocalTransport()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	t.ForceAttemptHTTP2 = true
	t.Proxy = http.ProxyFromEnvironment
	if c.Proxy != "" {
		proxy, err := url.Parse(c.Proxy)
		if err != nil {
			return nil, errors.New("proxy is not a URL")
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	return t, nil
}

// newLocalTransport returns one that knows no proxy.
func newLocalTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  20 * time.Second,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    maxCalls,
		MaxResponseHeaderBytes: 1 << 16,
	}
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

func (i *identity) newClient(next http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     &wire{next: next, id: i},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a vault does not move
	}
}

func (i *identity) closeIdle() {
	i.client.CloseIdleConnections()
	i.local.CloseIdleConnections()
}

// wire is every request's way. It notes what the server said, for explain, bounds
// what it may send, and has a token forgotten that it refuses.
type wire struct {
	next http.RoundTripper
	id   *identity
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	seen := watching(req.Context())
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		seen.note(exchange{host: req.URL.Hostname(), err: err})
		return nil, err
	}
	seen.note(exchange{host: req.URL.Hostname(), status: resp.StatusCode})
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		w.id.skew.Store(int64(date.Sub(w.id.now())))
	}
	if token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok && resp.StatusCode == http.StatusUnauthorized {
		w.id.forget(token)
	}
	resp.Body = &answer{ReadCloser: http.MaxBytesReader(nil, resp.Body, maxAnswer), host: req.URL.Hostname(), status: resp.StatusCode, seen: seen}
	return resp, nil
}

// CloseIdleConnections lets http.Client pass it on.
func (w *wire) CloseIdleConnections() {
	if c, ok := w.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// answer is the body of a response. It notes that it broke off.
type answer struct {
	io.ReadCloser
	host   string
	status int
	seen   *trace
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		a.seen.note(exchange{host: a.host, status: a.status, err: err})
	}
	return n, err
}

// exchange is what became of a request.
type exchange struct {
	host   string
	status int   // 0: there was no answer
	err    error // of the network
}

// trace remembers the last exchange of a call. The SDK's errors do not always.
type trace struct {
	mu   sync.Mutex
	kept exchange
}

type traceKey struct{}

// watch returns a context whose requests are noted.
func watch(ctx context.Context) (context.Context, *trace) {
	t := new(trace)
	return context.WithValue(ctx, traceKey{}, t), t
}

func watching(ctx context.Context) *trace {
	t, _ := ctx.Value(traceKey{}).(*trace)
	return t
}

func (t *trace) note(e exchange) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.kept = e
	t.mu.Unlock()
}

func (t *trace) last() exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kept
}
