package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// Signal is how a backup goes, for those that watch for missing ones.
type Signal string

// The signals: the ends of the URL that is called.
const (
	Started  Signal = "/start"
	Finished Signal = ""
	Failed   Signal = "/fail"
)

type ping struct {
	signal Signal
	at     time.Time
}

// pingAge is how old a ping may be to be of use to anybody.
const pingAge = time.Hour

// maxAnswer of a server is read.
const maxAnswer = 16 << 10

// dialWait is how long a connection may take.
const dialWait = 10 * time.Second

// sendWebhook posts a notice.
func (n *Notifier) sendWebhook(ctx context.Context, cfg config.Notify, m message.Notice) error {
	w := cfg.Webhook
	body, err := inJSON(m)
	if cfg.Body != "" {
		body, err = n.text(cfg.Body, message.DefaultBody, m)
	}
	if err != nil {
		return err
	}
	to, err := n.address(w.URL, w.URLSource)
	if err != nil {
		return err
	}
	token, err := n.secret(w.TokenSource)
	if err != nil {
		return err
	}
	if token != "" && to.Scheme != "https" && !loopback(to.Hostname()) {
		return errors.New("a token goes over https alone, or to this machine: correct the url")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(body))
	if err != nil {
		return plain(err)
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	if json.Valid([]byte(body)) {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range w.Headers {
		req.Header.Set(name, value)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return n.call(req, w.CA)
}

// sendPing calls the URL of a signal.
func (n *Notifier) sendPing(ctx context.Context, p *config.Ping, s Signal) error {
	to, err := n.address(p.URL, p.URLSource)
	if err != nil {
		return err
	}
	to.Path = strings.TrimSuffix(to.Path, "/") + string(s)
	to.RawPath = ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return plain(err)
	}
	return n.call(req, p.CA)
}

// address returns where to go. A URL that is a secret is in no error.
func (n *Notifier) address(given, source string) (*url.URL, error) {
	text := given
	if source != "" {
		var err error
		if text, err = n.secret(source); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the url is not one of https://host/path")
	}
	return u, nil
}

// call sends a request. Any answer of 200 to 299 is good.
func (n *Notifier) call(req *http.Request, ca string) error {
	client, closeClient, err := n.client(ca)
	if err != nil {
		return err
	}
	defer closeClient()
	req.Header.Set("User-Agent", "coffer")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("call %s: %w", req.URL.Host, plain(err))
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // it is for people
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("call %s: it answered %s%s", req.URL.Host, resp.Status, quoted(answer))
	}
	return nil
}

// client makes what calls a server. Nothing is kept: notices are rare.
func (n *Notifier) client(ca string) (*http.Client, func(), error) {
	trusted, err := trust(ca)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trusted, ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{Timeout: dialWait}).DialContext, TLSHandshakeTimeout: dialWait, MaxResponseHeaderBytes: 64 << 10}
	client := &http.Client{Transport: transport, CheckRedirect: stay}
	return client, transport.CloseIdleConnections, nil
}

// stay follows a redirect only on the same server, as a request of the same method:
// another is not who was to be told, nor to have the token.
func stay(req *http.Request, via []*http.Request) error {
	first := via[0]
	if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme || req.Method != first.Method || len(via) > 3 {
		return http.ErrUseLastResponse
	}
	return nil
}

// plain takes the URL out of an error, since it may be a secret.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// quoted is what a server said, on one line.
func quoted(text []byte) string {
	const most = 200
	line := strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "?")), " ")
	if line == "" {
		return ""
	}
	if runes := []rune(line); len(runes) > most {
		line = string(runes[:most]) + " ..."
	}
	return fmt.Sprintf(": %q", line)
}

// reachWebhook and reachPing connect, and ask nothing.
func (n *Notifier) reachWebhook(ctx context.Context, w *config.Webhook) error {
	if _, err := n.secret(w.TokenSource); err != nil {
		return err
	}
	return n.reach(ctx, w.URL, w.URLSource, w.CA)
}

func (n *Notifier) reachPing(ctx context.Context, p *config.Ping) error {
	return n.reach(ctx, p.URL, p.URLSource, p.CA)
}

// reach connects to the server of a URL, through the proxy if there is one for it.
func (n *Notifier) reach(ctx context.Context, given, source, ca string) error {
	u, err := n.address(given, source)
	if err != nil {
		return err
	}
	trusted, err := trust(ca)
	if err != nil {
		return err
	}
	secure := u.Scheme == "https"
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		u, secure = proxy, proxy.Scheme == "https"
	}
	port := u.Port()
	if port == "" {
		port = map[bool]string{true: "443", false: "80"}[secure]
	}
	return connect(ctx, net.JoinHostPort(u.Hostname(), port), secure, trusted)
}
