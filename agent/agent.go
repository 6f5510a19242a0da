// Package agent is the service: it makes its parts known to each other, runs them, and
// answers the control socket through them. What is done is done in the packages beneath.
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
//   - State is what can be lost: what is gone with it the runbook says; no point is.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/agent/plan"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/rekey"
	"github.com/cofferbackup/coffer/agent/retention"
	"github.com/cofferbackup/coffer/agent/ruling"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/tell"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/agent/watch"
	"github.com/cofferbackup/coffer/agent/work"
	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/store"
)

// Config of an agent: the operator's configuration, and the implementations to
// use for what it names.
type Config struct {
	Settings *config.Config // at the start; Load reads it anew
	Load     func() (*config.Config, error)
	Program  control.Version
	// Access says who may do what by the roles of a configuration that is read anew; nil:
	// it stays as it was at the start.
	Access func(config.Agent) (control.Access, error)
	Parts  Parts
	Clock  func() time.Time
	// After is time.After, or a test's.
	After func(time.Duration) <-chan time.Time
	Sinks []audit.Sink // where the audit log goes besides its folder
	// Supervisor is told how the agent does; nil: nobody asks.
	Supervisor Supervisor
	// Reload asks for the configuration to be read anew, as SIGHUP does.
	Reload <-chan os.Signal
	Log    *slog.Logger
}

// Parts opens what a configuration names.
type Parts struct {
	// Store opens the store of a vault; MakeStore first makes it where that can be
	// done. All stores of one URL keep to its limits together, as they were said last.
	// A store that is an io.Closer is closed.
	Store, MakeStore func(ctx context.Context, vault config.Vault) (store.Store, error)
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
	// Retries is how often operations of the stores of a vault's URL were tried again;
	// nil: nobody counts. It does not wait.
	Retries func(vault config.Vault) int64
	// Secret reads a secret that the configuration names, file:/path or env:NAME, as it
	// is now. What it returns is the caller's, who zeroes it.
	Secret func(ref string) ([]byte, error)
	// Target makes the target for a folder of this host.
	Target func(path string) (target.Target, error)
	// Index opens the local index kept at path, or one in memory if that is "". What the
	// disk does not do, then and later, is a durable.Fault.
	Index func(ctx context.Context, path string) (vault.Index, error)
	// RemoveIndex removes the local index kept at path, which is not open, and all that
	// lies beside it.
	RemoveIndex func(path string) error
}

// openStore opens the store of a vault.
type openStore = func(ctx context.Context, vault config.Vault) (store.Store, error)

// MakeKeyOptions of a new key. The zero value is a plain RSA key of the usual size.
type MakeKeyOptions struct {
	Bits   int
	Hybrid bool // with a post-quantum second half
}

// Stream is a caller's data.
type Stream = io.Reader

// Agent is a running service. It implements control.Backend, much of it by what it embeds.
type Agent struct {
	Config
	control.Work      // desk
	control.Retention // warden
	policies          // plan
	custodian         // keeper

	desk   *work.Desk
	warden *retention.Warden
	plan   *plan.Plan
	keeper *rekey.Keeper

	host    string
	started time.Time
	jobs    *queue.Queue
	state   *state.Folder
	audit   *audit.Log
	keys    *keyring.Keyring
	vaults  *vault.Set
	points  *point.Book
	rules   *ruling.Judge
	watch   *watch.Watch
	proofs  *proof.Book
	process string // tells what this process left behind from what others did
	pulse   pulse
	tell    *tell.Teller
	counts  *metrics.Metrics

	openStore, makeStore openStore // as Parts do, with their faults counted

	current  atomic.Pointer[config.Config]
	access   atomic.Pointer[control.Access]
	reloads  sync.Mutex                      // held while the configuration is changed
	unloaded atomic.Pointer[control.Problem] // why the last reload changed nothing
}

var _ control.Backend = (*Agent)(nil)

// policies is embedded under a name of its own, since a method has the other.
type policies = control.Policies

// custodian is what of control.Keys, Custody and Vaults package rekey does.
type custodian interface {
	KeyUsage(ctx context.Context, req control.KeyUsageRequest) (control.KeyUsage, error)
	RotateKeys(ctx context.Context, req control.KeyRotate) (control.Job, error)
	RaiseMode(ctx context.Context, req control.VaultMode) (control.Job, error)
	DrillKeys(ctx context.Context, req control.KeyDrill) (control.Job, error)
}

// Run runs the agent until ctx ends, answering on l, which it closes. It returns
// nil after an orderly end.
func Run(ctx context.Context, cfg Config, l net.Listener, access control.Access) error {
	a, err := open(ctx, cfg)
	if err != nil {
		l.Close()
		return err
	}
	a.access.Store(&access)
	server := control.NewServer(control.ServerConfig{Backend: a, Logger: cfg.Log, Version: cfg.Program.Version,
		Role: func(p control.Peer) control.Role { return a.access.Load().Role(p) }})
	tasks, tctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return server.Serve(tctx, l) })
	tasks.Go(func() error { a.watch.Run(tctx); return nil })
	tasks.Go(func() error { a.plan.Run(tctx); return nil })
	tasks.Go(func() error { a.tell.Run(tctx); return nil })
	tasks.Go(func() error { a.serveMetrics(tctx); return nil })
	tasks.Go(func() error { a.desk.CleanScratch(tctx); return nil })
	if cfg.Supervisor != nil {
		tasks.Go(func() error { a.supervised(tctx); return nil })
	}
	tasks.Go(func() error { a.reloadOnRequest(tctx); return nil })
	a.Supervisor.Ready(a.headline())
	cfg.Log.Info("agent started", "version", cfg.Program.Version, "state", cfg.Settings.Agent.State, "vaults", len(cfg.Settings.Vaults), "items", len(cfg.Settings.Items))
	<-tctx.Done()
	a.Supervisor.Stopping()
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
	st, err := state.Open(dir, cfg.Log)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%w: %s: stop that one first, or give this one an agent.state of its own", ErrStateBusy, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	a := new(Agent)
	jobs, err := queue.Open(ctx, queue.Config{Dir: st.Path("jobs"), Clock: cfg.Clock, Log: cfg.Log, Slots: cfg.Settings.Agent.Jobs,
		Ended: func(j control.Job) { a.tell.JobEnded(j) }})
	if err != nil {
		st.Close()
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	log, err := audit.Open(audit.Config{Dir: st.Path("audit"), MaxSize: int64(cfg.Settings.Audit.MaxSize), Clock: cfg.Clock, Log: cfg.Log, Sinks: cfg.Sinks})
	if err != nil {
		st.Close()
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	*a = Agent{Config: cfg, host: host, started: cfg.Clock(), jobs: jobs, state: st, audit: log}
	if a.Supervisor == nil {
		a.Supervisor = nobody{}
	}
	if a.proofs, err = proof.Open(st.Path("proofs.json")); err != nil {
		cfg.Log.Warn("what was proved of backups is not known any more", "err", err)
	}
	a.process = strings.ToLower(rand.Text()[:10])
	a.current.Store(cfg.Settings)
	a.assemble()
	return a, nil
}

// warm opens the vaults, so that their state is known before anybody asks.
func (a *Agent) warm(ctx context.Context) {
	var opening sync.WaitGroup
	for name := range a.settings().Vaults {
		opening.Go(func() {
			if _, err := a.vaults.Open(ctx, name); err != nil && ctx.Err() == nil && control.CodeOf(err) != control.CodeNotFound {
				a.Log.Warn("vault not open", "vault", name, "err", err)
			}
		})
	}
	opening.Wait()
}

// settings is the configuration as it is now. Who needs it to stay the same from one
// step to the next keeps what this returns, which is never changed.
func (a *Agent) settings() *config.Config { return a.current.Load() }

// close ends all jobs at a safe point and zeroes all secrets. A job that does not come
// to one in time, because its source hangs in the kernel, goes with the process, as in
// a crash.
func (a *Agent) close() {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		a.jobs.Stop()
	}()
	select {
	case <-stopped:
	case <-a.After(jobsWait):
		a.Log.Error("jobs did not come to a safe point in time; they end with the process", "waited", jobsWait)
	}
	a.vaults.Close()
	if err := a.keys.Close(); err != nil {
		a.Log.Warn("keys not closed", "err", err)
	}
	if err := a.audit.Close(); err != nil {
		a.Log.Warn("audit log not closed", "err", err)
	}
	a.state.Close()
}
