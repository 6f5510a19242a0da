// Package watch asks the keys of the configuration again and again, and has the vaults follow
// what they answer: one whose keys were taken away is closed when its time is up. When that
// is, package custody decides and nothing else.
package watch

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/internal/gate"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// stopWait is how long jobs have to come to a safe point before their secrets go.
const stopWait = 30 * time.Second

// Config of a watch: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	State    *state.Folder
	Keys     *keyring.Keyring
	Vaults   *vault.Set
	Store    func(ctx context.Context, vault config.Vault) (store.Store, error)
	Jobs     *queue.Queue // those of a vault that is closed are ended
	// Follow is called beside every round. It may take long: the next call waits for it,
	// and the keys do not.
	Follow func(ctx context.Context)
	// Round is told how long the watch sleeps before the next round.
	Round func(sleep time.Duration)
	// Tell is told what has become of a vault's keys.
	Tell func(vault string, notices []custody.Notice)
	// Record has an event in the audit log.
	Record func(ctx context.Context, e audit.Event) error
	Clock  func() time.Time
	After  func(time.Duration) <-chan time.Time
	Log    *slog.Logger
}

// Watch is what is known of the keys' answers and of the vaults' states. Only its loop
// and those who ask it to look at once change it. It is safe for concurrent use.
type Watch struct {
	cfg      Config
	deciding gate.Gate // held from the look at a vault's state until it has changed

	mu     sync.Mutex
	probes map[string]probe          // by key
	health map[string]custody.Health // by vault
}

// New returns a watch that has asked nobody yet.
func New(cfg Config) *Watch {
	return &Watch{cfg: cfg, deciding: gate.New(), probes: make(map[string]probe), health: make(map[string]custody.Health)}
}

// Answer returns why a key did not open its canary the last time; nil if it did, or
// was not asked yet.
func (w *Watch) Answer(key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[key].err
}

// Last is when one of the keys, as the configuration has them now, was asked last.
func (w *Watch) Last(keys []string) (t time.Time) {
	for _, key := range keys {
		if p := w.probe(key); p.asked.After(t) && w.current(key, p) {
			t = p.asked
		}
	}
	return t
}

// current tells whether a key was asked as the configuration has it now.
func (w *Watch) current(key string, p probe) bool {
	return reflect.DeepEqual(p.config, w.cfg.Settings().Keys[key])
}

func (w *Watch) probe(key string) probe {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[key]
}

// Health returns the state of a vault's keys.
func (w *Watch) Health(vault string) custody.Health {
	w.mu.Lock()
	defer w.mu.Unlock()
	h, ok := w.health[vault]
	if !ok {
		h = w.cfg.State.Health(vault)
		w.health[vault] = h
	}
	return h
}

// Refused returns an error if the keys of a vault were taken away, or have been so
// for too long by now: nobody waits for the watching loop to say it.
func (w *Watch) Refused(vault string) error {
	why := w.Health(vault).Refused(w.cfg.Clock(), w.limits())
	if why == nil {
		return nil
	}
	return &control.Error{Code: control.CodeKeysInaccessible, Message: fmt.Sprintf("vault %s is %s", vault, why.Says), Next: why.Next}
}

// limits are the times after which states change.
func (w *Watch) limits() custody.Settings {
	return custody.Settings{Grace: time.Duration(w.cfg.Settings().Custody.Grace)}
}

// Run asks the keys again and again until ctx ends. What needs stores as well
// goes on beside it when it takes long: a store that is silent must not keep a
// denial from being noticed.
func (w *Watch) Run(ctx context.Context) {
	var following chan struct{} // closed when the follower has come to its end
	late := false               // it was waited for already
	for {
		w.cfg.Round(w.beat())
		w.cfg.Vaults.CloseRetired(func(vault string) bool { return w.cfg.Jobs.Running(w.worksOn(vault)) })
		w.Ask(ctx, nil)
		if following == nil {
			following = make(chan struct{})
			go func(done chan struct{}) {
				defer close(done)
				w.cfg.Follow(ctx)
			}(following)
		}
		patience := followWait
		if late {
			patience = 0
		}
		if late = !ends(ctx, following, patience); !late {
			following = nil
		}
		select {
		case <-w.cfg.After(w.beat()):
		case <-ctx.Done():
			if following != nil {
				<-following
			}
			return
		}
	}
}

// beat is how long the loop may sleep. While something is wrong with keys it looks at
// the clock more often than at the keys, so that a vault closes when its time is up.
func (w *Watch) beat() time.Duration {
	for vault := range w.cfg.Settings().Vaults {
		if w.Health(vault).State() == custody.Degraded {
			return alertEvery
		}
	}
	return probeEvery
}

// ends tells whether done is closed before long.
func ends(ctx context.Context, done <-chan struct{}, long time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// conclude changes the state of a vault by what its keys have answered, and does
// what that means.
func (w *Watch) conclude(ctx context.Context, vault string) {
	if err := w.deciding.Enter(ctx); err != nil {
		return
	}
	defer w.deciding.Leave()
	h := w.Health(vault)
	notices := h.Observe(w.cfg.Clock(), w.limits(), w.probesOf(ctx, vault))
	w.become(ctx, vault, h, notices)
}

// become makes next the state of a vault. What it means for those who work with the
// vault happens first, and is told after; who asked may have gone meanwhile. The
// caller holds deciding.
func (w *Watch) become(ctx context.Context, vault string, next custody.Health, notices []custody.Notice) {
	w.mu.Lock()
	w.health[vault] = next
	w.mu.Unlock()
	switch next.State() {
	case custody.Inaccessible, custody.RequiresRevalidation:
		if w.cfg.Vaults.Opened(vault) != nil || w.cfg.Vaults.HasRetired(vault) {
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
			w.cfg.Jobs.End(ending, w.worksOn(vault), w.Refused(vault))
			cancel()
			w.cfg.Vaults.Suspend(vault)
		}
	}
	if err := w.cfg.State.SetHealth(vault, next); err != nil {
		w.cfg.Log.Warn("state of a vault's keys not remembered", "vault", vault, "err", err)
	}
	w.cfg.Tell(vault, notices)
	for _, n := range notices {
		attrs := []any{"vault", vault, "from", n.From, "to", n.To, "says", n.Says, "next", n.Next}
		if n.To == custody.Accessible {
			w.cfg.Log.Info("keys of a vault", attrs...)
		} else {
			w.cfg.Log.Warn("keys of a vault", attrs...)
		}
		e := audit.Event{Kind: audit.StateChanged, Vault: vault, Outcome: string(n.To), Says: n.Says, Fields: map[string]string{"from": string(n.From)}}
		if n.Kind == custody.Alarm {
			e.Kind = audit.AlarmRaised
		}
		if err := w.cfg.Record(ctx, e); err != nil {
			w.cfg.Log.Error("state of a vault's keys not recorded", "vault", vault, "err", err)
		}
	}
}

// worksOn tells which jobs work on a vault.
func (w *Watch) worksOn(vault string) func(control.Job) bool {
	return func(j control.Job) bool {
		return j.Vault == vault || j.Item != "" && w.cfg.Settings().Items[j.Item].Vault == vault || j.Item == "" && j.Vault == ""
	}
}

// Revalidate makes a vault accessible again. Every version that some secret of the vault
// hangs on must open before it is used again.
func (w *Watch) Revalidate(ctx context.Context, vault string) error {
	w.Ask(ctx, w.keyNames())
	if err := w.deciding.Enter(ctx); err != nil {
		return err
	}
	defer w.deciding.Leave()
	return w.revalidate(ctx, vault)
}

// Failed returns why a version of a key did not open its canary the last time; nil if it
// did, or was not asked.
func (w *Watch) Failed(key string, version kek.Fingerprint) error {
	p := w.probe(key)
	if version == p.ref.Fingerprint {
		return p.err
	}
	return p.older[version].err
}

// revalidate makes a vault accessible whose keys all open. The caller holds deciding.
func (w *Watch) revalidate(ctx context.Context, vault string) error {
	h := w.Health(vault)
	by := control.PeerFrom(ctx).String()
	notices, err := h.Revalidate(w.cfg.Clock(), w.probesOf(ctx, vault))
	if err != nil {
		return &control.Error{Code: control.CodeKeysInaccessible, Message: fmt.Sprintf("revalidate vault %s: %v", vault, err),
			Next: "mend that key, and try again: coffer key check; one that is gone for ever has to leave the vault's keys in the config, and the agent to be restarted"}
	}
	if err := w.cfg.Record(ctx, audit.Event{Kind: audit.KeyRevalidated, Vault: vault, By: by, Outcome: string(h.State())}); err != nil {
		return err
	}
	w.become(keyring.WithPurpose(ctx, keyring.Purpose{Vault: vault, By: by}), vault, h, notices)
	return nil
}
