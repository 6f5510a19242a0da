//go:build linux

package agent_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/backup/source"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/backup/source/stream"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/escrow"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/restore/target"
	targetfiles "github.com/cofferbackup/coffer/restore/target/files"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
)

// clock is a clock that a test moves. Who waits on After is woken when the time has
// come.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	waiting []waiter
	rests   int // how often the watching loop went to wait
}

type waiter struct {
	at time.Time
	c  chan time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d == time.Minute || d == 10*time.Second { // all well, or not
		c.rests++
	}
	w := waiter{c.now.Add(d), make(chan time.Time, 1)}
	c.waiting = append(c.waiting, w)
	return w.c
}

// advance moves the clock by d and wakes who has waited long enough.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	var still []waiter
	for _, w := range c.waiting {
		if w.at.After(c.now) {
			still = append(still, w)
		} else {
			w.c <- c.now
		}
	}
	c.waiting = still
}

// rested is how often the watching loop has gone to wait.
func (c *clock) rested() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rests
}

// bench is an agent in a folder of a test's own.
type bench struct {
	testing.TB
	dir      string
	clock    *clock
	keys     *provider
	settings *config.Config
	around   func(store.Store) store.Store // what the agent has of a store; nil: all of it
	indexed  func(vault.Index) vault.Index // what it has of an index on disk; nil: all of it
	*control.Client
	stop func()
}

// newBench starts an agent with a configuration in which $DIR is its folder.
func newBench(t testing.TB, text string) *bench {
	t.Helper()
	folder, err := os.MkdirTemp("", "ca")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	b := &bench{TB: t, dir: folder, clock: newClock(), keys: &provider{broken: make(map[string]error), versions: make(map[string][]string),
		facts: make(map[string]kek.Facts), held: make(map[string]chan struct{})}}
	b.keys.now = b.clock.Now
	b.configure(text)
	t.Cleanup(func() {
		if b.stop != nil {
			b.stop()
		}
	})
	return b
}

func (b *bench) path(name ...string) string {
	return filepath.Join(append([]string{b.dir}, name...)...)
}

func (b *bench) configure(text string) {
	b.Helper()
	settings, err := config.Parse("coffer.yaml", []byte(strings.ReplaceAll(text, "$DIR", b.dir)))
	if err != nil {
		b.Fatal(err)
	}
	b.settings = settings
}

// start starts the agent.
func (b *bench) start() {
	b.Helper()
	l, err := net.Listen("unix", b.path("s"))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.NewTextHandler(b.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	access, err := control.LocalAccess(control.ListenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	ended, n := make(chan error, 1), b.clock.rested()
	go func() {
		ended <- agent.Run(ctx, agent.Config{Settings: b.settings, Load: func() (*config.Config, error) { return b.settings, nil }, Parts: b.parts(log), Clock: b.clock.Now, After: b.clock.After,
			Log: log, Program: control.Version{Version: "test"}}, l, access)
	}()
	b.Client = control.NewClient(control.ClientConfig{Socket: b.path("s")})
	b.stop = func() {
		b.stop = nil
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("the agent ended with %v", err)
		}
	}
	b.rest(n)
}

// rest returns when the watching loop has gone to wait more than so many times.
func (b *bench) rest(times int) {
	b.Helper()
	late := time.After(time.Minute)
	for b.clock.rested() <= times {
		select {
		case <-late:
			b.Fatal("the agent never came to rest")
		case <-time.After(time.Millisecond):
		}
	}
}

// pass lets minutes pass, one at a time.
func (b *bench) pass(minutes int) {
	b.Helper()
	for range minutes {
		n := b.clock.rested()
		b.clock.advance(time.Minute)
		b.rest(n)
	}
}

// until lets time pass until something is so, however much of it that takes: how long the
// agent works is not up to the clock.
func (b *bench) until(what string, so func() bool) {
	b.Helper()
	for began := time.Now(); !so(); {
		if time.Since(began) > 3*time.Minute {
			b.Fatalf("it never came to be that %s", what)
		}
		b.pass(15)
	}
}

func (b *bench) parts(log *slog.Logger) agent.Parts {
	open := func(_ context.Context, vault config.Vault) (store.Store, error) {
		root, err := dir.ParseURL(vault.Store)
		if err != nil {
			return nil, err
		}
		st, err := dir.Open(root)
		if err != nil || b.around == nil {
			return st, err
		}
		return b.around(st), nil
	}
	return agent.Parts{
		Store: open,
		MakeStore: func(ctx context.Context, vault config.Vault) (store.Store, error) {
			root, err := dir.ParseURL(vault.Store)
			if err == nil {
				err = dir.Create(root)
			}
			if err != nil {
				return nil, err
			}
			return open(ctx, vault)
		},
		Secret: func(ref string) ([]byte, error) { return os.ReadFile(strings.TrimPrefix(ref, "file:")) },
		Key:    b.keys.open,
		Escrow: func(ctx context.Context, name string, key config.Key) (kek.Wrapper, error) {
			return escrow.Open(ctx, name, key.Public)
		},
		MakeKey: func(ctx context.Context, name string, key config.Key, opts agent.MakeKeyOptions) (kek.Ref, error) {
			if err := software.Create(ctx, key.URI, software.CreateOptions{Bits: opts.Bits, Hybrid: opts.Hybrid}); err != nil {
				return kek.Ref{}, err
			}
			k, err := software.Open(ctx, name, key.URI)
			if err != nil {
				return kek.Ref{}, err
			}
			return k.Ref(), k.Close()
		},
		CheckKey: func(ctx context.Context, _ string, key config.Key) []kek.Step { return software.Check(ctx, key.URI) },
		Source: func(item config.Item, name string, data agent.Stream) (source.Source, error) {
			if data != nil {
				return stream.New(stream.Config{Name: name, Reader: data, Clock: b.clock.Now})
			}
			return sourcefiles.New(sourcefiles.Config{Paths: item.Files.Paths, Clock: b.clock.Now})
		},
		Target: func(path string) (target.Target, error) { return targetfiles.New(targetfiles.Config{Path: path}) },
		Index: func(ctx context.Context, path string) (vault.Index, error) {
			ix, err := sqlite.Open(ctx, sqlite.Config{Path: path, Logger: log})
			if err != nil || path == "" || b.indexed == nil {
				return ix, err
			}
			return b.indexed(ix), nil
		},
		RemoveIndex: sqlite.Remove,
	}
}

// wait follows a job to its end.
func (b *bench) wait(j control.Job, err error) control.Job {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	return b.follow(j.ID)
}

func (b *bench) follow(id int64) control.Job {
	b.Helper()
	var last control.Job
	for e, err := range b.Events(context.Background(), id, 0) {
		if err != nil {
			b.Fatal(err)
		}
		if e.Job != nil {
			last = *e.Job
		}
	}
	return last
}

// done wants a job to have ended well.
func (b *bench) done(j control.Job, err error) control.Job {
	b.Helper()
	j = b.wait(j, err)
	if j.State != control.JobDone {
		b.Fatalf("%s %s: %s: %+v", j.Kind, j.Item, j.State, j.Error)
	}
	return j
}

// idle returns when no job is left.
func (b *bench) idle() {
	b.Helper()
	jobs, err := b.Jobs(context.Background(), control.JobFilter{})
	if err != nil {
		b.Fatal(err)
	}
	for _, j := range jobs {
		b.follow(j.ID)
	}
}

// listed are the points of an item, or of all if it is "".
func (b *bench) listed(item string) ([]control.Point, error) {
	var out []control.Point
	for p, err := range b.Points(context.Background(), control.PointsRequest{Item: item}) {
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	return out, nil
}

// state is the state of a vault's keys.
func (b *bench) state(vault string) control.KeyState {
	b.Helper()
	v, err := b.Vault(context.Background(), vault)
	if err != nil {
		b.Fatal(err)
	}
	return v.State
}

// refused wants an error of that code.
func (b *bench) refused(err error, code control.Code) {
	b.Helper()
	if control.CodeOf(err) != code {
		b.Errorf("got %v (%s), want %s", err, control.CodeOf(err), code)
	}
}
