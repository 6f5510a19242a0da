package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/controltest"
)

func TestContent(t *testing.T) {
	c := serve(t, world(), nil)
	var out bytes.Buffer
	if err := c.Content(t.Context(), control.ContentRequest{Item: "etc", Path: "/etc/\xff"}, &out); err != nil || out.String() != "content" {
		t.Errorf("content %q, %v", out.String(), err)
	}
	for path, code := range map[string]control.Code{"/etc/broken": control.CodeDamaged, "/none": control.CodeNotFound} {
		err := c.Content(t.Context(), control.ContentRequest{Item: "etc", Point: "p1", Path: path}, io.Discard)
		if control.CodeOf(err) != code {
			t.Errorf("%s: %v", path, err)
		}
	}
	err := c.Content(t.Context(), control.ContentRequest{Item: "etc", Path: "/etc/\xff"}, failWriter{})
	if err == nil || !strings.Contains(err.Error(), "no space") || control.AsError(err).Next == "" {
		t.Errorf("a writer that fails gave %v", err)
	}
}

type failWriter struct{}

func (failWriter) Write([]byte) (int, error) { return 0, errors.New("no space") }

// inputJob starts a backup that waits for input.
func inputJob(t *testing.T, b *controltest.Backend, c *running) control.Job {
	t.Helper()
	b.Script = func(string, string) controltest.Play {
		return controltest.Play{Waits: true, End: control.Job{State: control.JobDone}}
	}
	j, err := c.Backup(t.Context(), control.BackupRequest{Item: "etc", Input: &control.BackupInput{Name: "dump"}})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestInput(t *testing.T) {
	b := world()
	c := serve(t, b, nil)
	for _, size := range []int{0, 1, 3 << 20} {
		data := bytes.Repeat([]byte{7}, size)
		j := inputJob(t, b, c)
		if err := c.Input(t.Context(), j.ID, iotest.HalfReader(bytes.NewReader(data))); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.InputOf(j.ID), data) {
			t.Errorf("%d bytes: the agent read %d", size, len(b.InputOf(j.ID)))
		}
	}
}

// TestTornInput breaks the input of a backup in every way that a peer can die or
// lie: the job fails, and none of it looks like the end of the data.
func TestTornInput(t *testing.T) {
	raw := func(id int64, rest string) string {
		return fmt.Sprintf("PUT /v1/jobs/%d/input HTTP/1.1\r\nHost: coffer\r\n%s", id, rest)
	}
	const chunked = "Transfer-Encoding: chunked\r\nTrailer: Coffer-Length\r\n\r\n"
	tests := map[string]string{
		"dies in a chunk":         chunked + "a\r\nhalf",
		"dies between chunks":     chunked + "4\r\nhalf\r\n",
		"dies before the trailer": chunked + "4\r\nhalf\r\n0\r\n",
		"no trailer":              "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n",
		"wrong length":            chunked + "4\r\nhalf\r\n0\r\nCoffer-Length: 5\r\n\r\n",
		"short of its length":     "Content-Length: 10\r\n\r\nhalf",
		"length, no trailer":      "Content-Length: 4\r\n\r\nhalf",
		"no body":                 "\r\n",
	}
	for name, rest := range tests {
		t.Run(name, func(t *testing.T) {
			b := world()
			c := serve(t, b, nil)
			j := inputJob(t, b, c)
			conn, err := net.Dial("unix", c.socket)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, raw(j.ID, rest)); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			checkTorn(t, b, c, j.ID)
		})
	}
	t.Run("reader fails", func(t *testing.T) {
		b := world()
		c := serve(t, b, nil)
		j := inputJob(t, b, c)
		r := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("disk on fire")))
		if err := c.Input(t.Context(), j.ID, r); err == nil || !strings.Contains(err.Error(), "disk on fire") {
			t.Errorf("input: %v", err)
		}
		checkTorn(t, b, c, j.ID)
	})
	t.Run("caller cancels", func(t *testing.T) {
		b := world()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := serve(t, &onInput{Backend: b, do: cancel}, nil)
		j := inputJob(t, b, c)
		pr, pw := io.Pipe()
		defer pw.Close()
		go pw.Write([]byte("half"))
		if err := c.Input(ctx, j.ID, pr); control.CodeOf(err) != control.CodeCancelled {
			t.Errorf("input: %v", err)
		}
		checkTorn(t, b, c, j.ID)
	})
}

// onInput is an agent that does something when it has the first byte of an input.
type onInput struct {
	*controltest.Backend
	do func()
}

func (o *onInput) Input(ctx context.Context, id int64, r io.Reader) error {
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil {
		return err
	}
	o.do()
	return o.Backend.Input(ctx, id, io.MultiReader(bytes.NewReader(first), r))
}

func checkTorn(t *testing.T, b *controltest.Backend, c *running, id int64) {
	t.Helper()
	var last *control.Job
	for e, err := range c.Events(t.Context(), id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Job != nil {
			last = e.Job
		}
	}
	if last == nil || last.State != control.JobFailed || b.InputOf(id) != nil {
		t.Errorf("the job ended as %+v, with input %q", last, b.InputOf(id))
	}
}

// agentThat answers one request with the bytes and closes.
func agentThat(t *testing.T, answer string) *control.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 64<<10))
			io.WriteString(conn, answer)
			conn.Close()
		}
	}()
	return control.NewClient(control.ClientConfig{Socket: path})
}

// TestTornOutput: an agent that dies in the middle is not taken for one that has
// finished, whatever part of its answer arrived.
func TestTornOutput(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Coffer-Length\r\n\r\n4\r\nhalf\r\n0\r\nCoffer-Length: 4\r\n\r\n"
	for n := range len(whole) {
		c := agentThat(t, whole[:n])
		if err := c.Content(t.Context(), control.ContentRequest{Item: "i", Path: "/p"}, io.Discard); err == nil {
			t.Fatalf("the first %d bytes of an answer were taken for the whole", n)
		}
	}
	c := agentThat(t, whole)
	if err := c.Content(t.Context(), control.ContentRequest{Item: "i", Path: "/p"}, io.Discard); err != nil {
		t.Fatalf("the whole answer: %v", err)
	}
}

func TestTornListing(t *testing.T) {
	whole := `{"value":{"path":"/a","type":"file"}}` + "\n" + `{"value":{"path":"/b","type":"file"}}` + "\n" + `{"end":{"count":2}}`
	head := "HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
	ask := control.EntriesRequest{Item: "i"}
	for n := range len(whole) {
		if got, err := collect(agentThat(t, head+whole[:n]).Entries(t.Context(), ask)); control.CodeOf(err) != control.CodeTorn {
			t.Fatalf("the first %d bytes gave %v, %v", n, got, err)
		}
	}
	if got, err := collect(agentThat(t, head+whole).Entries(t.Context(), ask)); err != nil || len(got) != 2 {
		t.Fatalf("the whole gave %v, %v", got, err)
	}
	for _, wrong := range []string{`{"end":{"count":1}}`, `{}`, `{"value":7}`, `{"error":{"code":"damaged","message":"m"}}`} {
		if _, err := collect(agentThat(t, head+wrong+"\n").Entries(t.Context(), ask)); err == nil {
			t.Errorf("%s was taken for a good end", wrong)
		}
	}
}

// TestLongListing streams a long listing; the reader sees all of it, in order.
func TestLongListing(t *testing.T) {
	const n = 50_000
	b := world()
	for i := range n {
		b.Files = append(b.Files, control.Entry{Path: fmt.Sprintf("/srv/%06d", i), Type: "file", Size: int64(i)})
	}
	c := serve(t, b, nil)
	i := 0
	for e, err := range c.Entries(t.Context(), control.EntriesRequest{Item: "etc", Path: "/srv/"}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Size != int64(i) {
			t.Fatalf("entry %d is %+v", i, e)
		}
		i++
	}
	if i != n {
		t.Errorf("%d entries of %d", i, n)
	}
	for range c.Entries(t.Context(), control.EntriesRequest{Item: "etc", Path: "/srv/"}) {
		break // leaving early must not hang the server
	}
	c.stop()
}
