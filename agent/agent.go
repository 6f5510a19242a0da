// Package agent is the service: it holds the vaults and keys of the configuration
// open, runs jobs, and answers the control socket.
//
// Invariants:
//   - One agent per state folder.
//   - What is done with keys is in the audit log before it has an effect.
//   - Vaults whose keys were taken away refuse all work, and their secrets are
//     zeroed; when, is decided by package custody and by nothing else.
//   - A key or store that does not answer is an alarm in the status, never a reason
//     not to start.
//   - Vault ids come from the configuration or the agent's own state; without one,
//     nothing in a store is trusted.
//   - State is what can be lost: ids apart, all of it is rebuilt from the vault.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/internal/gate"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/store"
)

// Config of an agent: the operator's configuration, and the implementations to
// use for what it names.
type Config struct {
	Settings *config.Config
	Program  control.Version
	Parts    Parts
	Clock    func() time.Time
	// After is time.After, or a test's.
	After func(time.Duration) <-chan time.Time
	Sinks []audit.Sink // where the audit log goes besides its folder
	Log   *slog.Logger
}

// Parts opens what a configuration names.
type Parts struct {
	// Store opens a store; MakeStore first makes it where that can be done. A store
	// that is an io.Closer is closed.
	Store, MakeStore func(ctx context.Context, url string) (store.Store, error)
	// Key opens all versions of a key, the newest first; Escrow the public half of an
	// escrow key. MakeKey makes a key, or a new version, and returns its reference.
	// CheckKey goes through all that a key needs.
	Key      func(ctx context.Context, name string, key config.Key) ([]kek.Key, error)
	Escrow   func(ctx context.Context, name string, key config.Key) (kek.Wrapper, error)
	MakeKey  func(ctx context.Context, name string, key config.Key, opts MakeKeyOptions) (kek.Ref, error)
	CheckKey func(ctx context.Context, name string, key config.Key) []kek.Step
	// Source makes an item's source; data, if not nil, is a caller's stream to read
	// instead, to be called name.
	Source func(item config.Item, name string, data Stream) (source.Source, error)
	// Target makes the target for a folder of this host.
	Target func(path string) (target.Target, error)
	// Index opens the local index kept at path.
	Index func(ctx context.Context, path string) (Index, error)
}

// MakeKeyOptions of a new key. The zero value is a plain RSA key of the usual size.
type MakeKeyOptions struct {
	Bits   int
	Hybrid bool // with a post-quantum second half
}

// Stream is a caller's data.
type Stream = io.Reader

// Index is the local index of an item.
type Index interface {
	backup.Index
	Close() error
}

// Agent is a running service. It implements control.Backend.
type Agent struct {
	Config
	host    string
	started time.Time
	jobs    *jobs
	state   *state
	audit   *audit.Log
	keys    *keyring.Keyring
	watch   *watch

	opening map[string]gate.Gate // by vault; held while it is opened

	mu     sync.Mutex
	vaults map[string]*vault // open vaults, by name
	away   map[string]string // key that a drill does without, by vault
}

var _ control.Backend = (*Agent)(nil)

// Run runs the agent until ctx ends, answering on l, which it closes. It returns
// nil after an orderly end.
func Run(ctx context.Context, cfg Config, l net.Listener, access control.Access) error {
	a, err := open(ctx, cfg)
	if err != nil {
		l.Close()
		return err
	}
	server := control.NewServer(control.ServerConfig{Backend: a, Logger: cfg.Log, Role: access.Role, Version: cfg.Program.Version})
	tasks, tctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return server.Serve(tctx, l) })
	tasks.Go(func() error { a.watchKeys(tctx); return nil })
	cfg.Log.Info("agent started", "version", cfg.Program.Version, "state", cfg.Settings.Agent.State, "vaults", len(cfg.Settings.Vaults), "items", len(cfg.Settings.Items))
	err = tasks.Wait()
	a.close()
	cfg.Log.Info("agent stopped")
	return err
}

// ErrStateBusy: another agent uses the state folder.
var ErrStateBusy = errors.New("another agent uses the state folder")

// open takes the state folder.
func open(ctx context.Context, cfg Config) (*Agent, error) {
	dir := cfg.Settings.Agent.State
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	st, err := openState(dir)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%w: %s: stop that one first, or give this one an agent.state of its own", ErrStateBusy, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	q, err := openJobs(filepath.Join(dir, "jobs"), cfg.Clock, cfg.Log)
	if err != nil {
		st.close()
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	log, err := audit.Open(audit.Config{Dir: st.path("audit"), MaxSize: int64(cfg.Settings.Audit.MaxSize), Clock: cfg.Clock, Log: cfg.Log, Sinks: cfg.Sinks})
	if err != nil {
		st.close()
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	jctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	q.stop, q.halt = jctx, cancel
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	a := &Agent{Config: cfg, host: host, started: cfg.Clock(), jobs: q, state: st, audit: log, watch: newWatch(),
		opening: make(map[string]gate.Gate), vaults: make(map[string]*vault), away: make(map[string]string)}
	for name := range cfg.Settings.Vaults {
		a.opening[name] = gate.New()
	}
	a.keys = keyring.New(keyring.Config{Keys: cfg.Settings.Keys, Open: cfg.Parts.Key, Escrow: cfg.Parts.Escrow,
		Memory: st, Record: log.Record, Clock: cfg.Clock, Log: cfg.Log})
	return a, nil
}

// warm opens the vaults, so that their state is known before anybody asks.
func (a *Agent) warm(ctx context.Context) {
	var opening sync.WaitGroup
	for name := range a.Settings.Vaults {
		opening.Go(func() {
			if _, err := a.vault(ctx, name); err != nil && ctx.Err() == nil && control.CodeOf(err) != control.CodeNotFound {
				a.Log.Warn("vault not open", "vault", name, "err", err)
			}
		})
	}
	opening.Wait()
}

// close ends all jobs at a safe point and zeroes all secrets.
func (a *Agent) close() {
	a.jobs.halt(errStopping)
	a.jobs.wg.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range a.vaults {
		v.close(a.Log)
	}
	if err := a.keys.Close(); err != nil {
		a.Log.Warn("keys not closed", "err", err)
	}
	if err := a.audit.Close(); err != nil {
		a.Log.Warn("audit log not closed", "err", err)
	}
	a.state.close()
}
