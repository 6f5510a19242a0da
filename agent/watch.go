package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/internal/gate"
)

// stopWait is how long jobs have to come to a safe point before their secrets go.
const stopWait = 30 * time.Second

// watch is what is known of the keys' answers and of the vaults' states. Only the
// watching loop and those who ask it to look at once change it.
type watch struct {
	deciding gate.Gate // held from the look at a vault's state until it has changed

	mu     sync.Mutex
	probes map[string]probe          // by key
	health map[string]custody.Health // by vault
}

func newWatch() *watch {
	return &watch{deciding: gate.New(), probes: make(map[string]probe), health: make(map[string]custody.Health)}
}

// answer returns why a key did not open its canary the last time; nil if it did, or
// was not asked yet.
func (w *watch) answer(key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[key].err
}

// last is when one of the keys was asked last.
func (w *watch) last(keys []string) (t time.Time) {
	for _, key := range keys {
		if p := w.probe(key); p.asked.After(t) {
			t = p.asked
		}
	}
	return t
}

func (w *watch) probe(key string) probe {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[key]
}

// custody returns the state of a vault's keys.
func (a *Agent) custody(vault string) custody.Health {
	a.watch.mu.Lock()
	defer a.watch.mu.Unlock()
	h, ok := a.watch.health[vault]
	if !ok {
		h = a.state.Health(vault)
		a.watch.health[vault] = h
	}
	return h
}

// refused returns an error if the keys of a vault were taken away, or have been so
// for too long by now: nobody waits for the watching loop to say it.
func (a *Agent) refused(vault string) error {
	h := a.custody(vault)
	h.Tick(a.Clock(), a.limits())
	wire := &control.Error{Code: control.CodeKeysInaccessible, Next: h.Next()}
	switch h.State() {
	case custody.Inaccessible:
		wire.Message = fmt.Sprintf("vault %s is inaccessible: %s", vault, h.Reason())
	case custody.RequiresRevalidation:
		wire.Message = fmt.Sprintf("vault %s is to be revalidated: %s", vault, h.Reason())
	default:
		return nil
	}
	return wire
}

// limits are the times after which states change.
func (a *Agent) limits() custody.Settings {
	return custody.Settings{Grace: time.Duration(a.settings().Custody.Grace)}
}

// watchKeys asks the keys again and again until ctx ends. What needs stores as well
// goes on beside it when it takes long: a store that is silent must not keep a
// denial from being noticed.
func (a *Agent) watchKeys(ctx context.Context) {
	f := follower{tries: make(map[string]attempt)}
	var following chan struct{} // closed when the follower has come to its end
	late := false               // it was waited for already
	for warm := true; ; warm = false {
		a.pulse.beat("keys", a.Clock(), a.beat())
		a.vaults.CloseRetired(func(vault string) bool { return a.jobs.Running(a.worksOn(vault)) })
		a.probeAll(ctx, nil)
		if following == nil {
			following = make(chan struct{})
			go func(done chan struct{}) {
				defer close(done)
				if warm {
					a.warm(ctx)
				}
				a.followVersions(ctx, &f)
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
		case <-a.After(a.beat()):
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
func (a *Agent) beat() time.Duration {
	for vault := range a.settings().Vaults {
		if a.custody(vault).State() == custody.Degraded {
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
func (a *Agent) conclude(ctx context.Context, vault string) {
	if err := a.watch.deciding.Enter(ctx); err != nil {
		return
	}
	defer a.watch.deciding.Leave()
	h := a.custody(vault)
	notices := h.Observe(a.Clock(), a.limits(), a.probesOf(ctx, vault))
	a.become(ctx, vault, h, notices)
}

// become makes next the state of a vault. What it means for those who work with the
// vault happens first, and is told after; who asked may have gone meanwhile. The
// caller holds deciding.
func (a *Agent) become(ctx context.Context, vault string, next custody.Health, notices []custody.Notice) {
	a.watch.mu.Lock()
	a.watch.health[vault] = next
	a.watch.mu.Unlock()
	switch next.State() {
	case custody.Inaccessible, custody.RequiresRevalidation:
		if a.vaults.Opened(vault) != nil || a.vaults.HasRetired(vault) {
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
			a.jobs.End(ending, a.worksOn(vault), a.refused(vault))
			cancel()
			a.vaults.Suspend(vault)
		}
	}
	if err := a.state.SetHealth(vault, next); err != nil {
		a.Log.Warn("state of a vault's keys not remembered", "vault", vault, "err", err)
	}
	a.tellKeys(vault, notices)
	for _, n := range notices {
		attrs := []any{"vault", vault, "from", n.From, "to", n.To, "says", n.Says, "next", n.Next}
		if n.To == custody.Accessible {
			a.Log.Info("keys of a vault", attrs...)
		} else {
			a.Log.Warn("keys of a vault", attrs...)
		}
		e := audit.Event{Kind: audit.StateChanged, Vault: vault, Outcome: string(n.To), Says: n.Says, Fields: map[string]string{"from": string(n.From)}}
		if n.Kind == custody.Alarm {
			e.Kind = audit.AlarmRaised
		}
		if err := a.record(ctx, e); err != nil {
			a.Log.Error("state of a vault's keys not recorded", "vault", vault, "err", err)
		}
	}
}

// worksOn tells which jobs work on a vault.
func (a *Agent) worksOn(vault string) func(control.Job) bool {
	return func(j control.Job) bool {
		return j.Vault == vault || j.Item != "" && a.settings().Items[j.Item].Vault == vault || j.Item == "" && j.Vault == ""
	}
}

// Revalidate implements control.Custody. Every version that some secret of the vault
// hangs on must open before it is used again.
func (a *Agent) Revalidate(ctx context.Context, req control.KeyRevalidate) (control.Vault, error) {
	if _, ok := a.settings().Vaults[req.Vault]; !ok {
		return control.Vault{}, fault.NotFound("vault", req.Vault, "coffer vault list")
	}
	a.probeAll(ctx, a.keyNames())
	if err := a.watch.deciding.Enter(ctx); err != nil {
		return control.Vault{}, err
	}
	err := a.revalidate(ctx, req.Vault)
	a.watch.deciding.Leave()
	if err != nil {
		return control.Vault{}, err
	}
	return a.Vault(ctx, req.Vault)
}

// revalidate makes a vault accessible whose keys all open. The caller holds deciding.
func (a *Agent) revalidate(ctx context.Context, vault string) error {
	h := a.custody(vault)
	by := control.PeerFrom(ctx).String()
	notices, err := h.Revalidate(a.Clock(), a.probesOf(ctx, vault))
	if err != nil {
		return &control.Error{Code: control.CodeKeysInaccessible, Message: fmt.Sprintf("revalidate vault %s: %v", vault, err),
			Next: "mend that key, and try again: coffer key check; one that is gone for ever has to leave the vault's keys in the config, and the agent to be restarted"}
	}
	if err := a.record(ctx, audit.Event{Kind: audit.KeyRevalidated, Vault: vault, By: by, Outcome: string(h.State())}); err != nil {
		return err
	}
	a.become(keyring.WithPurpose(ctx, keyring.Purpose{Vault: vault, By: by}), vault, h, notices)
	return nil
}
