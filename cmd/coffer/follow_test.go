package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/controltest"
)

// operator watches standard error, and acts when it sees something.
type operator struct {
	mu   sync.Mutex
	seen bytes.Buffer
	acts map[string]func()
}

func (o *operator) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen.Write(p)
	for text, act := range o.acts {
		if strings.Contains(o.seen.String(), text) {
			delete(o.acts, text)
			act()
		}
	}
	return len(p), nil
}

// at starts an agent and returns its socket.
func at(t *testing.T, b control.Backend) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "coffer") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := control.Listen(t.Context(), socket, control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	srv := control.NewServer(control.ServerConfig{
		Backend: b, Logger: slog.New(slog.DiscardHandler), Role: control.Access{UID: uint32(os.Geteuid())}.Role, Version: "0.1.0",
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-ended })
	return socket
}

// waiting is a backend whose jobs say "here" and wait.
func waiting() *controltest.Backend {
	b := world()
	b.Script = func(string, string) controltest.Play {
		return controltest.Play{
			Waits:  true,
			Events: []control.Event{{Note: &control.Note{Level: "info", Message: "here"}}},
			End:    control.Job{State: control.JobDone},
		}
	}
	return b
}

type ran struct {
	code     int
	out, err string
}

// coffer runs a command line; acts happen when standard error shows their text.
func coffer(t *testing.T, e *env, acts func(soft, hard func()) map[string]func(), args ...string) ran {
	t.Helper()
	soft, cancelSoft := context.WithCancel(t.Context())
	defer cancelSoft()
	hard, cancelHard := context.WithCancel(t.Context())
	defer cancelHard()
	o := &operator{}
	if acts != nil {
		o.acts = acts(cancelSoft, cancelHard)
	}
	var out bytes.Buffer
	e.args, e.out, e.err, e.hard, e.version, e.now = args, &out, o, hard, "0.1.0", now.UTC
	e.getenv = func(string) string { return "" }
	if e.in == nil {
		e.in = strings.NewReader("")
	}
	code := run(soft, e)
	return ran{code, out.String(), o.seen.String()}
}

// TestInterrupt: the first Ctrl-C cancels the job and waits for that.
func TestInterrupt(t *testing.T) {
	b := waiting()
	got := coffer(t, &env{}, func(soft, _ func()) map[string]func() {
		return map[string]func(){"etc: here": soft}
	}, "--socket", at(t, b), "backup", "etc")
	if got.code != control.ExitFailed || !strings.Contains(got.err, "cancelling job 118") || !strings.Contains(got.err, "job 118 was cancelled") {
		t.Errorf("%+v", got)
	}
	if j, err := b.Job(t.Context(), 118); err != nil || j.State != control.JobCancelled {
		t.Errorf("the job is %+v, %v", j, err)
	}
}

// stubborn is an agent that does not hear a cancel.
type stubborn struct{ *controltest.Backend }

func (stubborn) Cancel(context.Context, int64) error { return nil }

// TestInterruptTwice: the second Ctrl-C leaves, and the job goes on.
func TestInterruptTwice(t *testing.T) {
	b := waiting()
	got := coffer(t, &env{}, func(soft, hard func()) map[string]func() {
		return map[string]func(){"etc: here": soft, "cancelling job": hard}
	}, "--socket", at(t, stubborn{b}), "backup", "etc")
	if got.code != control.ExitFailed || !strings.Contains(got.err, "left job 118 before it ended\n  next    see how it is: coffer job show 118") {
		t.Errorf("%+v", got)
	}
	if j, err := b.Job(t.Context(), 118); err != nil || j.State.Ended() {
		t.Errorf("the job is %+v, %v", j, err)
	}
}

// TestInterruptWatch: Ctrl-C stops watching and nothing else.
func TestInterruptWatch(t *testing.T) {
	b := waiting()
	socket := at(t, b)
	if got := coffer(t, &env{}, nil, "--socket", socket, "backup", "etc", "--detach"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	got := coffer(t, &env{}, func(soft, _ func()) map[string]func() {
		return map[string]func(){"etc: here": soft}
	}, "--socket", socket, "job", "watch", "118")
	if got.code != control.ExitFailed {
		t.Errorf("%+v", got)
	}
	if j, err := b.Job(t.Context(), 118); err != nil || j.State.Ended() {
		t.Errorf("the job is %+v, %v", j, err)
	}
}

// flaky is an agent whose event streams break after each event.
type flaky struct{ *controltest.Backend }

func (f flaky) Events(ctx context.Context, id int64, after uint64) iter.Seq2[control.Event, error] {
	return func(yield func(control.Event, error) bool) {
		n := 0
		for e, err := range f.Backend.Events(ctx, id, after) {
			if !yield(e, err) || err != nil {
				return
			}
			if n++; n == 2 && e.Job == nil {
				panic(http.ErrAbortHandler)
			}
		}
	}
}

// TestReconnect: a stream of events that breaks is taken up where it broke.
func TestReconnect(t *testing.T) {
	b := waiting()
	b.Script = func(string, string) controltest.Play {
		p := controltest.Play{Waits: true}
		for _, text := range []string{"one", "two", "three"} {
			p.Events = append(p.Events, control.Event{Note: &control.Note{Level: "info", Message: text}})
		}
		return p
	}
	got := coffer(t, &env{}, func(soft, _ func()) map[string]func() {
		return map[string]func(){"three": soft}
	}, "--socket", at(t, flaky{b}), "backup", "etc")
	if got.code != control.ExitFailed || !strings.HasPrefix(got.err, "etc: one\netc: two\netc: three\ncancelling job 118") || strings.Count(got.err, "\netc: ") != 2 {
		t.Errorf("%+v", got)
	}
}

// gone is an agent that stops while a job runs.
type gone struct{ *controltest.Backend }

func (gone) Events(context.Context, int64, uint64) iter.Seq2[control.Event, error] {
	return func(func(control.Event, error) bool) { panic(http.ErrAbortHandler) }
}

func TestAgentGone(t *testing.T) {
	got := coffer(t, &env{}, nil, "--socket", at(t, gone{world()}), "backup", "etc")
	if got.code != control.ExitFailed || !strings.Contains(got.err, "follow job 118: the connection broke before the end") {
		t.Errorf("%+v", got)
	}
}

// TestStdin: what is sent is what the agent reads, and an input that cannot be read
// makes no point.
func TestStdin(t *testing.T) {
	b := world()
	socket := at(t, b)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	got := coffer(t, &env{in: bytes.NewReader(data)}, nil, "--socket", socket, "backup", "db", "--stdin")
	if got.code != 0 || !bytes.Equal(b.InputOf(118), data) {
		t.Errorf("%+v, %d bytes of %d", got, len(b.InputOf(118)), len(data))
	}
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("disk on fire")))
	got = coffer(t, &env{in: broken}, nil, "--socket", socket, "backup", "db", "--stdin")
	if got.code != control.ExitFailed || !strings.Contains(got.err, "read input: disk on fire") {
		t.Errorf("%+v", got)
	}
	if j, err := b.Job(t.Context(), 119); err != nil || j.State == control.JobDone || b.InputOf(119) != nil {
		t.Errorf("the job is %+v, %v", j, err)
	}
	if got := coffer(t, &env{inTerminal: true}, nil, "--socket", socket, "backup", "db", "--stdin"); got.code != control.ExitUsage {
		t.Errorf("%+v", got)
	}
}

// TestStdinJobFails: a job that fails ends the run though the input does not end.
func TestStdinJobFails(t *testing.T) {
	b := world()
	pr, pw := io.Pipe()
	defer pw.Close()
	got := coffer(t, &env{in: pr}, nil, "--socket", at(t, b), "backup", "locked", "--stdin")
	if got.code != control.ExitKeys || !strings.Contains(got.err, "token not present") {
		t.Errorf("%+v", got)
	}
}

// TestBar: a backup on a terminal ends as one elsewhere does, and leaves no bar.
func TestBar(t *testing.T) {
	got := coffer(t, &env{errTerminal: true}, nil, "--socket", at(t, world()), "backup", "etc")
	if got.code != control.ExitSkipped || !strings.Contains(got.out, "kept in site") || !strings.Contains(got.err, `/etc/x\x1b vanished`) {
		t.Errorf("%+v", got)
	}
}
