package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Client asks an agent. It is a Backend, of the agent that answers on its socket,
// and safe for concurrent use. Its errors are *Error.
type Client struct {
	cfg  ClientConfig
	http *http.Client

	mu      sync.Mutex
	version string // of the agent, from its last reply
}

var _ Backend = (*Client)(nil)

// ClientConfig is what a Client needs.
type ClientConfig struct {
	Socket string // "": DefaultSocket
	// Wait is how long to wait for an agent that is just starting: one whose
	// socket is there but refuses, or is missing for a moment.
	Wait time.Duration
}

// NewClient returns a client. It connects when it is first used.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	c := &Client{cfg: cfg}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
			// A reply whose headers do not come is an agent that hangs; ctx decides how
			// long to bear it.
			DisableCompression: true,
			MaxIdleConns:       4,
			IdleConnTimeout:    idleTimeout / 2,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// AgentVersion returns the version of the agent that answered last, or "".
func (c *Client) AgentVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// dial connects, and waits for an agent that is just starting.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, c.cfg.Wait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for missing := false; ; {
		conn, err := dialSocket(ctx, c.cfg.Socket)
		if err == nil {
			return conn, nil
		}
		why := explainDial(c.cfg.Socket, err)
		switch {
		case refused(err) && why.Code == CodeNotRunning:
		case why.Code == CodeNoSocket && !missing:
			missing = true // an agent that is just replacing a stale socket has none for a moment
		default:
			return nil, why
		}
		select {
		case <-wait.Done():
			return nil, why
		case <-tick.C:
		}
	}
}

// do sends a request and returns the reply if it is a good one. The caller closes
// its body.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, prepare func(*http.Request)) (*http.Response, error) {
	u := "http://" + socketHostname + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("make request: %v", err)}
	}
	if prepare != nil {
		prepare(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, broken(ctx, err)
	}
	c.mu.Lock()
	c.version = resp.Header.Get(headerVersion)
	c.mu.Unlock()
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, readFault(resp)
	}
	return resp, nil
}

// broken explains a request that got no reply.
func broken(ctx context.Context, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if ctx.Err() != nil {
		return &Error{Code: CodeCancelled, Message: context.Cause(ctx).Error()}
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return torn(err)
}

// readFault reads the error of a reply.
func readFault(resp *http.Response) error {
	var body errorBody
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) //nolint:errcheck // "" is not JSON
	if kind == contentJSON {
		err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(&body)
		if err == nil && body.Error != nil && body.Error.Code != "" {
			return body.Error
		}
	}
	return &Error{
		Code: CodeProtocol, Message: "what answers on the socket does not speak like an agent: " + resp.Status,
		Next: "see that the socket is the agent's",
	}
}

// call sends in (nil: no body) and reads a JSON reply.
func call[A any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (A, error) {
	var out A
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return out, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("encode request: %v", err)}
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.do(ctx, method, path, query, body, func(r *http.Request) {
		if in != nil {
			r.Header.Set("Content-Type", contentJSON)
		}
	})
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return out, broken(ctx, err)
	}
	if len(b) > maxReply {
		return out, &Error{Code: CodeProtocol, Message: fmt.Sprintf("the agent's answer is larger than %d bytes", maxReply)}
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, &Error{Code: CodeProtocol, Message: fmt.Sprintf("read the agent's answer: %v", err), Next: nextVersion}
	}
	return out, nil
}

// named reads what the agent says of one thing: path has %s where its name belongs.
func named[A any](ctx context.Context, c *Client, path, what, name string, query url.Values) (A, error) {
	seg, err := segment(what, name)
	if err != nil {
		var none A
		return none, err
	}
	return call[A](ctx, c, http.MethodGet, fmt.Sprintf(path, seg), query, nil)
}

// stream yields the values of a streamed reply.
func stream[T any](ctx context.Context, c *Client, path string, query url.Values, yield func(T, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, path, query, nil, nil)
	if err != nil {
		var none T
		yield(none, err)
		return
	}
	defer resp.Body.Close()
	readStream(resp.Body, func(v T, err error) bool {
		if err != nil && ctx.Err() != nil {
			err = &Error{Code: CodeCancelled, Message: context.Cause(ctx).Error()}
		}
		return yield(v, err)
	})
}

// segment writes a name into a path. The names of a path's own grammar would be
// cleaned away on the way, and can name nothing.
func segment(what, name string) (string, error) {
	if name == "" || name == "." || name == ".." {
		return "", &Error{Code: CodeNotFound, Message: fmt.Sprintf("there is no %s %q", what, name)}
	}
	return url.PathEscape(name), nil
}
