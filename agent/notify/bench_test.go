package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// clock is a clock that a test moves.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	waiting map[chan time.Time]time.Time
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), waiting: make(map[chan time.Time]time.Time)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := make(chan time.Time, 1)
	c.waiting[w] = c.now.Add(d)
	return w
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for w, at := range c.waiting {
		if !at.After(c.now) {
			w <- c.now
			delete(c.waiting, w)
		}
	}
}

// bench is a notifier with a webhook to a server of the test's own.
type bench struct {
	*testing.T
	*notify.Notifier
	clock    *clock
	path     string
	channels atomic.Pointer[map[string]config.Notify]
	got      chan message.Notice
	answer   atomic.Int64 // HTTP status
	log      *lockedBuffer
	stop     func()
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, clock: newClock(), path: filepath.Join(t.TempDir(), "notify.json"), got: make(chan message.Notice, 1000), log: new(lockedBuffer)}
	b.answer.Store(http.StatusOK)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m message.Notice
		status := int(b.answer.Load())
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		if status == http.StatusOK {
			b.got <- m
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	b.use(map[string]config.Notify{"hook": {Webhook: &config.Webhook{URL: server.URL}, On: everything()}})
	t.Cleanup(func() {
		if b.stop != nil {
			b.stop()
		}
	})
	return b
}

func everything() []string { return []string{"failure", "alarm", "recovery", "success"} }

func (b *bench) use(channels map[string]config.Notify) { b.channels.Store(&channels) }

func (b *bench) start() {
	b.Notifier = notify.Open(notify.Config{Path: b.path, Host: "web1", Channels: func() map[string]config.Notify { return *b.channels.Load() },
		Secret: readSecret, Clock: b.clock.Now, After: b.clock.After, Log: slog.New(slog.NewTextHandler(b.log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.Notifier.Run(ctx) })
	b.stop = func() { cancel(); running.Wait(); b.stop = nil }
}

func readSecret(ref string) ([]byte, error) {
	path, ok := strings.CutPrefix(ref, "file:")
	if !ok {
		return nil, errors.New("not a reference to a secret")
	}
	return os.ReadFile(path)
}

// told is what was told since the last time: what is told last is a mark of its own.
func (b *bench) told() (got []string) {
	b.Helper()
	b.Tell(message.Notice{Kind: message.Success, Subject: "mark"})
	for {
		select {
		case m := <-b.got:
			if m.Subject == "mark" {
				return got
			}
			got = append(got, fmt.Sprintf("%s %s x%d", m.Kind, m.Subject, m.Count))
		case <-time.After(20 * time.Second):
			b.Fatalf("told %q, and no more", got)
		}
	}
}

// expect says what was told since the last time, and nothing else.
func (b *bench) expect(want ...string) {
	b.Helper()
	if got := b.told(); !slices.Equal(got, want) {
		b.Errorf("told %q, want %q", got, want)
	}
}

func (b *bench) fail(about string, how notify.How) {
	b.Report(notify.Report{About: about, How: how, Notice: message.Notice{Kind: message.Failure, Subject: about, Message: "it failed", Item: "etc"}})
}

func (b *bench) well(about string) { b.Clear(about, message.Notice{Subject: about}) }

func (b *bench) channel(name string) notify.Channel {
	for _, c := range b.Channels() {
		if c.Name == name {
			return c
		}
	}
	return notify.Channel{}
}

// until waits for something that happens beside the test.
func (b *bench) until(so func() bool) {
	b.Helper()
	late := time.After(20 * time.Second)
	for !so() {
		select {
		case <-late:
			b.Fatalf("it did not happen; log: %s", b.log)
		case <-time.After(time.Millisecond):
		}
	}
}
