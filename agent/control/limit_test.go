//go:build unix

package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/quota"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// dial connects to the agent, for as long as the test lasts.
func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil { // not for ever, if the agent is wrong
		t.Fatal(err)
	}
	return conn
}

// says sends text and returns the reply's status and error code.
func says(t *testing.T, conn net.Conn, text string) (int, control.Code) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", text, err)
	}
	defer resp.Body.Close()
	var body struct{ Error control.Error }
	json.NewDecoder(resp.Body).Decode(&body) //nolint:errcheck // then there is no code
	return resp.StatusCode, body.Error.Code
}

// closes waits until the agent closes a connection.
func closes(t *testing.T, conn net.Conn, what string) {
	t.Helper()
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s: the agent keeps the connection", what)
	}
}

const get = "GET /v1/version HTTP/1.1\r\nHost: coffer\r\n\r\n"

// TestTooManyConnections: who has as many as he may is told so, and a place that is
// given back is free again.
func TestTooManyConnections(t *testing.T) {
	c := serveWith(t, control.ServerConfig{Backend: world(), Quota: quota.Limits{Owner: 3}})
	var held []net.Conn
	for range 3 {
		conn := dial(t, c.socket)
		if status, _ := says(t, conn, get); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		held = append(held, conn)
	}
	_, err := c.Version(t.Context())
	if e := control.AsError(err); e == nil || e.Code != control.CodeBusy || e.Next == "" {
		t.Errorf("one too many: %v", err)
	}
	c.Close()
	held[0].Close()
	for { // until the agent has noticed
		if _, err = c.Version(t.Context()); control.CodeOf(err) != control.CodeBusy {
			break
		}
	}
	if err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

// TestFlood: another user who opens connections until his program may have no more
// files, with a role or without, does not keep root out, and gets his share at most.
func TestFlood(t *testing.T) {
	if os.Geteuid() != 0 {
		testkit.Missing(t, "root", "run it as root to take on another user")
	}
	for role, share := range map[control.Role]int{control.RoleNone: 2, control.RoleViewer: 16} {
		t.Run(role.String(), func(t *testing.T) {
			c := serveWith(t, control.ServerConfig{Backend: world(), Quota: quota.Limits{Share: 16}, Role: func(p control.Peer) control.Role {
				if p.UID == 0 {
					return control.RoleKeyAdmin
				}
				return role
			}})
			let(t, c.socket)
			flood := asOther(t, c.socket, "flood")
			out, err := flood.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			stop, err := flood.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := flood.Start(); err != nil {
				t.Fatal(err)
			}
			held, err := bufio.NewReader(out).ReadString('\n')
			if n, _ := strconv.Atoi(strings.TrimSpace(held)); err != nil || n != share {
				t.Errorf("the other user holds %q connections, %v; want %d", held, err, share)
			}
			for range 100 {
				if _, err := c.Version(t.Context()); err != nil {
					t.Errorf("root: %v", err)
				}
			}
			stop.Close()
			if err := flood.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTooManyRequests: who asks too often is told when to come again.
func TestTooManyRequests(t *testing.T) {
	c := serveWith(t, control.ServerConfig{Backend: world(), Quota: quota.Limits{Rate: 0.001, Burst: 5}})
	for range 5 {
		if _, err := c.Version(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Version(t.Context()); control.CodeOf(err) != control.CodeBusy {
		t.Errorf("the sixth: %v", err)
	}
	conn := dial(t, c.socket)
	if status, code := says(t, conn, get); status != http.StatusTooManyRequests || code != control.CodeBusy {
		t.Errorf("status %d, code %s", status, code)
	}
}

// TestStall: a request whose rest does not come is given up, wherever it stops, and
// whether or not anybody wanted its body.
func TestStall(t *testing.T) {
	refused := func(control.Peer) control.Role { return control.RoleNone }
	patience := control.Patience{Body: 50 * time.Millisecond}
	for _, tt := range []struct {
		name, text string
		role       func(control.Peer) control.Role
		status     int
	}{
		{"in a body", "POST /v1/backup HTTP/1.1\r\nHost: coffer\r\nContent-Length: 100\r\n\r\n{", nil, 400},
		{"in a chunk", "POST /v1/backup HTTP/1.1\r\nHost: coffer\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{", nil, 400},
		{"in a body that nobody wants", "GET /v1/version HTTP/1.1\r\nHost: coffer\r\nContent-Length: 100\r\n\r\n{", nil, 400},
		{"in a body of who may not", "POST /v1/backup HTTP/1.1\r\nHost: coffer\r\nContent-Length: 100\r\n\r\n{", refused, 403},
		{"in a body to nowhere", "POST /v1/none HTTP/1.1\r\nHost: coffer\r\nContent-Length: 100\r\n\r\n{", nil, 404},
		{"in a body of a web page", "POST /v1/backup HTTP/1.1\r\nHost: evil\r\nContent-Length: 100\r\n\r\n{", nil, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serveWith(t, control.ServerConfig{Backend: world(), Patience: patience, Role: tt.role})
			conn := dial(t, c.socket)
			if status, _ := says(t, conn, tt.text); status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			closes(t, conn, tt.name)
		})
	}
}

// endless is an agent whose points never end.
type endless struct{ control.Backend }

func (endless) Content(ctx context.Context, _ control.ContentRequest, w io.Writer) error {
	for ctx.Err() == nil {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (endless) Entries(context.Context, control.EntriesRequest) iter.Seq2[control.Entry, error] {
	return func(yield func(control.Entry, error) bool) {
		for yield(control.Entry{Path: "/" + strings.Repeat("x", 1000)}, nil) {
		}
	}
}

func (endless) Points(context.Context, control.PointsRequest) iter.Seq2[control.Point, error] {
	return func(yield func(control.Point, error) bool) {
		for yield(control.Point{Item: "etc", ID: strings.Repeat("x", 1000)}, nil) {
		}
	}
}

// TestSlowReader: who asks for a stream and does not take it is let go.
func TestSlowReader(t *testing.T) {
	patience := control.Patience{Reply: time.Minute, Stream: 50 * time.Millisecond}
	c := serveWith(t, control.ServerConfig{Backend: endless{world()}, Patience: patience, Quota: quota.Limits{Owner: 3}})
	for _, verb := range []string{"items/etc/points/p1/content", "items/etc/points/p1/entries", "points"} {
		conn := dial(t, c.socket)
		if _, err := fmt.Fprintf(conn, "GET /v1/%s HTTP/1.1\r\nHost: coffer\r\n\r\n", verb); err != nil {
			t.Fatal(err)
		}
	}
	for { // they hold all places until they are let go
		_, err := c.Version(t.Context())
		if err == nil {
			return
		}
		if control.CodeOf(err) != control.CodeBusy {
			t.Fatal(err)
		}
	}
}

// TestPatience: an input that comes slowly, and a job that says nothing for long, are
// not a caller who stalls.
func TestPatience(t *testing.T) {
	const short = 200 * time.Millisecond
	b := world()
	c := serveWith(t, control.ServerConfig{Backend: b, Patience: control.Patience{Body: short, Reply: 2 * short, Stream: 2 * short}})
	j := inputJob(t, b, c)
	ctx, cancel := context.WithTimeout(t.Context(), 5*short/2)
	defer cancel()
	var watching sync.WaitGroup
	events := 0
	watching.Go(func() {
		for _, err := range c.Events(t.Context(), j.ID, 0) {
			if err != nil {
				t.Errorf("follow: %v", err)
			}
			events++
		}
	})
	r := io.MultiReader(strings.NewReader("first"), readerFunc(func([]byte) (int, error) {
		<-ctx.Done()
		return 0, io.EOF
	}))
	if err := c.Input(t.Context(), j.ID, r); err != nil {
		t.Errorf("a slow input: %v", err)
	}
	watching.Wait()
	if got := string(b.InputOf(j.ID)); got != "first" || events != 2 {
		t.Errorf("the agent read %q, and told %d events", got, events)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
