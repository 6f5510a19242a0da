//go:build linux

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/backup/source"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/retry"
	"github.com/cofferbackup/coffer/store/storetest"
)

// hostClock is the clock of the simulated hosts, which is set wrong at times, and the
// true time, which is the store's and what waiting goes by.
type hostClock struct {
	mu        sync.Mutex
	now, true time.Time
	waiting   []waiter             // by the true time
	began     map[string]time.Time // when the scheduler of a host began its last look, by the true time
	looked    map[string]time.Time // when the last look began that it has ended
}

func newHostClock() *hostClock {
	start := time.Date(2026, 11, 22, 0, 0, 30, 0, time.UTC)
	return &hostClock{now: start, true: start, began: make(map[string]time.Time), looked: make(map[string]time.Time)}
}

func (c *hostClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// of is Now for a host.
func (c *hostClock) of(host string) func() time.Time {
	return func() time.Time {
		looks := calledBy("schedule.(*Runner).Look")
		c.mu.Lock()
		defer c.mu.Unlock()
		if looks {
			c.began[host] = c.true
		}
		return c.now
	}
}

// True is the time by a clock that is right.
func (c *hostClock) True() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.true
}

// advance lets time pass.
func (c *hostClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.true = c.now.Add(d), c.true.Add(d)
	var still []waiter
	for _, w := range c.waiting {
		if w.at.After(c.true) {
			still = append(still, w)
		} else {
			w.c <- c.now
		}
	}
	c.waiting = still
}

// jump sets the clock. Nobody who waits wakes earlier or later for it.
func (c *hostClock) jump(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// after is time.After for a host.
func (c *hostClock) after(host string) func(time.Duration) <-chan time.Time {
	return func(d time.Duration) <-chan time.Time {
		scheduler := calledBy("schedule.(*Runner).Run")
		c.mu.Lock()
		defer c.mu.Unlock()
		w := waiter{c.true.Add(d), make(chan time.Time, 1)}
		if scheduler { // time may have passed since it looked, which it would not see
			c.looked[host] = c.began[host]
			w.at = c.began[host].Add(d)
		}
		if w.at.After(c.true) {
			c.waiting = append(c.waiting, w)
		} else {
			w.c <- c.now
		}
		return w.c
	}
}

func (c *hostClock) lastLook(host string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looked[host]
}

// calledBy tells whether the caller of the caller is a function.
func calledBy(name string) bool {
	callers := make([]uintptr, 4)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, name) {
			return true
		}
		if !more {
			return false
		}
	}
}

// sky is what the way to the store is like.
type sky struct {
	clock *hostClock

	mu     sync.Mutex
	rng    *rand.Rand
	away   bool    // the store answers nobody
	flaky  float64 // how many of its operations go wrong
	slow   bool
	faults int // operations that went wrong
	delays int // operations that took long
}

func (s *sky) set(change func(*sky)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// fault says how an operation goes.
func (s *sky) fault(l *life, op storetest.Op) storetest.Fault {
	if l.dead.Load() {
		return storetest.Fault{Err: store.ErrUnavailable}
	}
	s.mu.Lock()
	p, applied, lag := s.rng.Float64(), s.rng.IntN(2) == 0, time.Duration(s.rng.IntN(1500))*time.Millisecond
	away, slow, flaky := s.away, s.slow, s.flaky
	s.mu.Unlock()
	if op.Kind == storetest.List {
		flaky /= 20 // it is asked for each object
	}
	f := storetest.Fault{}
	switch {
	case l.left.Add(-1) == 0:
		l.dead.Store(true)
		l.cancel()
		f = storetest.Fault{Err: store.ErrUnavailable, Applied: applied}
	case away:
		f = storetest.Fault{Err: store.ErrUnavailable}
	case p < flaky:
		f = storetest.Fault{Err: store.ErrUnavailable, Applied: applied}
	case slow && op.Kind != storetest.List:
		s.clock.advance(lag)
		s.set(func(s *sky) { s.delays++ })
	}
	if f.Err != nil {
		s.set(func(s *sky) { s.faults++ })
	}
	return f
}

// life is one run of an agent, from its start to its end or death.
type life struct {
	dead   atomic.Bool
	left   atomic.Int64 // operations of the store until it dies; 0 or less: it does not
	cancel context.CancelFunc
	ended  chan error
}

// host is a machine with an agent.
type host struct {
	*bench
	w    *world
	name string
	life *life // nil: the agent does not run
	seen map[int64]bool
	digest
}

// newHost makes a machine with files, and no agent yet.
func newHost(w *world, name string) *host {
	w.Helper()
	folder, err := os.MkdirTemp("", "cs")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { os.RemoveAll(folder) })
	h := &host{bench: &bench{TB: w.TB, dir: folder, clock: newClock(), keys: w.keys}, w: w, name: name, seen: make(map[int64]bool)}
	if err := os.Mkdir(h.path("docs"), 0o700); err != nil {
		w.Fatal(err)
	}
	return h
}

// begin starts the agent.
func (h *host) begin() {
	h.Helper()
	h.configure(h.w.config())
	l, err := net.Listen("unix", h.path("s"))
	if err != nil {
		h.Fatal(err)
	}
	access, err := control.LocalAccess(control.ListenOptions{})
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.life = &life{cancel: cancel, ended: make(chan error, 1)}
	cfg := agent.Config{Settings: h.settings, Load: func() (*config.Config, error) { return h.settings, nil }, Parts: h.parts(h.life),
		Clock: h.w.clock.of(h.name), After: h.w.clock.after(h.name), Log: slog.New(&journal{w: h.w, host: h.name}), Program: control.Version{Version: "test"}}
	began := h.w.clock.True()
	go func(l net.Listener, ended chan error) { ended <- agent.Run(ctx, cfg, l, access) }(l, h.life.ended)
	h.Client = control.NewClient(control.ClientConfig{Socket: h.path("s")})
	h.await(began)
}

// end ends the agent, in order or, if it is dead, as nobody wishes for.
func (h *host) end() {
	h.Helper()
	if h.life == nil {
		return
	}
	h.life.cancel()
	if err := <-h.life.ended; err != nil {
		h.Errorf("%s: the agent of %s ended with %v", h.w, h.name, err)
	}
	h.life = nil
}

// lives tells whether the agent runs.
func (h *host) lives() bool { return h.life != nil && !h.life.dead.Load() }

// parts are those of a bench, but for the store and the sources.
func (h *host) parts(l *life) agent.Parts {
	p := h.bench.parts(slog.New(&journal{w: h.w, host: h.name}))
	p.Store = func(context.Context, config.Vault) (store.Store, error) {
		var tries atomic.Int64 // a fault lasts for three tries, whoever makes them
		return retry.New(storetest.NewFaulty(h.w.store, func(op storetest.Op) storetest.Fault { return h.w.sky.fault(l, op) }), retry.Config{
			Total: 3 * time.Second, Now: func() time.Time { return time.Unix(tries.Add(1), 0) },
			Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		}), nil
	}
	p.MakeStore = p.Store
	p.Source = func(item config.Item, _ string, _ agent.Stream) (source.Source, error) {
		return sourcefiles.New(sourcefiles.Config{Paths: item.Files.Paths, Clock: h.w.clock.Now})
	}
	return p
}

// await returns when the scheduler has looked at the clock since, or the agent is dead.
func (h *host) await(since time.Time) {
	h.Helper()
	for late := time.After(time.Minute); h.lives() && h.w.clock.lastLook(h.name).Before(since); {
		select {
		case <-late:
			stacks := make([]byte, 1<<20)
			h.Fatalf("%s: %s never came to rest\n%s", h.w, h.name, stacks[:runtime.Stack(stacks, true)])
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// settle returns when no job is left that was due, or the agent is dead.
func (h *host) settle(since time.Time) {
	h.Helper()
	h.await(since)
	for h.lives() {
		left := 0
		for _, state := range []control.JobState{control.JobQueued, control.JobRunning} {
			jobs, err := h.Jobs(context.Background(), control.JobFilter{State: state})
			if err != nil && h.lives() {
				h.Fatalf("%s: jobs of %s: %v", h.w, h.name, err)
			}
			for _, j := range jobs {
				left++
				h.see(j.ID)
			}
		}
		if left == 0 {
			return
		}
	}
}

// see follows a job to its end. It returns false if the agent died before.
func (h *host) see(id int64) (last control.Job, ok bool) {
	h.Helper()
	for e, err := range h.Events(context.Background(), id, 0) {
		if err != nil {
			if h.lives() {
				h.Fatalf("%s: job %d of %s: %v", h.w, id, h.name, err)
			}
			return last, false
		}
		if e.Job != nil {
			last = *e.Job
		}
	}
	return last, last.State.Ended()
}

// news returns the jobs that ended since it was asked last.
func (h *host) news() []control.Job {
	h.Helper()
	if !h.lives() {
		return nil
	}
	jobs, err := h.Jobs(context.Background(), control.JobFilter{Limit: 50})
	if err != nil && h.lives() {
		h.Fatalf("%s: jobs of %s: %v", h.w, h.name, err)
	}
	jobs = slices.DeleteFunc(jobs, func(j control.Job) bool { return !j.State.Ended() || h.seen[j.ID] })
	for _, j := range jobs {
		h.seen[j.ID] = true
	}
	return jobs
}

// forget loses the state of the agent, which does not run.
func (h *host) forget() {
	h.Helper()
	if err := os.RemoveAll(h.path("state")); err != nil {
		h.Fatal(err)
	}
	clear(h.seen)
}

// clone makes the state of the agent that of another host's, neither of which runs.
func (h *host) clone(from *host) {
	h.Helper()
	h.forget()
	if err := os.CopyFS(h.path("state"), os.DirFS(from.path("state"))); err != nil {
		h.Fatal(err)
	}
	for id := range from.seen {
		h.seen[id] = true
	}
}

// restore restores a point and returns the digest of what came back.
func (h *host) restore(point string) (digest, error) {
	h.Helper()
	back := h.path("back")
	defer os.RemoveAll(back)
	j, err := h.Restore(context.Background(), control.RestoreRequest{Item: "docs", Point: point, Target: back})
	if err != nil {
		return digest{}, err
	}
	j, _ = h.see(j.ID)
	if h.seen[j.ID] = true; j.State != control.JobDone {
		return digest{}, fmt.Errorf("restore ended as %s: %w", j.State, errors.Join(j.Error))
	}
	for _, host := range []*host{h.w.one, h.w.twin} {
		if root := filepath.Join(back, host.path("docs")); exists(root) {
			return digestOf(root)
		}
	}
	return digest{}, errors.New("nothing came back")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// journal is a log in which nothing may be of what no fault explains.
type journal struct {
	w    *world
	host string
}

func (l *journal) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (l *journal) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *journal) WithGroup(string) slog.Handler                    { return l }

// Handle implements slog.Handler.
func (l *journal) Handle(_ context.Context, r slog.Record) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s %s: %s", l.w.clock.Now().Format("01-02 15:04"), l.host, r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&text, " %s", a)
		return true
	})
	l.w.note(r.Level, r.Message, text.String())
	return nil
}
