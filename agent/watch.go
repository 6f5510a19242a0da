package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/kek"
)

// How often keys are asked.
const (
	probeEvery      = time.Minute      // a canary, at a token or a file
	probeCloudEvery = 5 * time.Minute  // at Key Vault, which counts calls
	versionsEvery   = 15 * time.Minute // for new versions
	probeWait       = 30 * time.Second // for one answer
	stopWait        = 30 * time.Second // for jobs to come to a safe point before their secrets go
)

// watch is what is known of the keys' answers and of the vaults' states. Only the
// watching loop and those who ask it to look at once change it.
type watch struct {
	mu     sync.Mutex
	probes map[string]probe          // by key
	health map[string]custody.Health // by vault
}

// probe is the last answer of a key.
type probe struct {
	ref   kek.Ref
	err   error
	asked time.Time
	found time.Time // when its versions were last looked for
}

func newWatch() *watch {
	return &watch{probes: make(map[string]probe), health: make(map[string]custody.Health)}
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
		h = a.state.health(vault)
		a.watch.health[vault] = h
	}
	return h
}

// refused returns an error if the keys of a vault were taken away.
func (a *Agent) refused(vault string) error {
	h := a.custody(vault)
	switch h.State() {
	case custody.Inaccessible, custody.RequiresRevalidation:
		return &control.Error{Code: control.CodeKeysInaccessible, Next: h.Next(),
			Message: fmt.Sprintf("vault %s: its keys are %s since %s: %s", vault, words(h.State()), h.Since().Format("2006-01-02 15:04:05Z07:00"), h.Reason())}
	}
	return nil
}

func words(s custody.State) string {
	if s == custody.RequiresRevalidation {
		return "to be revalidated"
	}
	return string(s)
}

// limits are the times after which states change.
func (a *Agent) limits() custody.Settings {
	return custody.Settings{Grace: time.Duration(a.Settings.Custody.Grace)}
}

// watchKeys asks the keys again and again until ctx ends.
func (a *Agent) watchKeys(ctx context.Context) {
	for {
		a.probeAll(ctx, nil)
		a.followVersions(ctx)
		select {
		case <-a.After(probeEvery):
		case <-ctx.Done():
			return
		}
	}
}

// probeAll asks every key that is due, or those in now, and draws the conclusions
// for every vault that is made.
func (a *Agent) probeAll(ctx context.Context, now []string) {
	var asking sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(a.Settings.Keys)) {
		p := a.watch.probe(name)
		every := probeEvery
		if p.ref.Provider == kek.KeyVault {
			every = probeCloudEvery
		}
		since := a.Clock().Sub(p.asked)
		if !slices.Contains(now, name) && since >= 0 && since < every-time.Second {
			continue
		}
		asking.Go(func() { a.probeKey(ctx, name) })
	}
	asking.Wait()
	for _, vault := range slices.Sorted(maps.Keys(a.Settings.Vaults)) {
		if ctx.Err() != nil {
			return
		}
		if _, err := a.pinned(vault); err == nil {
			a.conclude(ctx, vault)
		}
	}
}

// probeKey asks one key to open its canary.
func (a *Agent) probeKey(ctx context.Context, name string) {
	if a.Settings.Keys[name].Public != "" {
		return // nothing of it can be asked
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	e, err := a.keys.Entry(ctx, name)
	var ref kek.Ref
	if err == nil {
		for _, k := range e.Versions {
			if err == nil && (e.InUse == nil || k.Ref().Fingerprint == e.InUse.Ref().Fingerprint) {
				ref = k.Ref()
				err = k.Check(ctx)
				break
			}
		}
	}
	if errors.Is(err, context.Canceled) {
		return // the agent stops
	}
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, kek.ErrUnreachable) {
		err = fmt.Errorf("%w: %w", kek.ErrUnreachable, err)
	}
	a.watch.mu.Lock()
	defer a.watch.mu.Unlock()
	p := a.watch.probes[name]
	if ref == (kek.Ref{}) {
		ref = p.ref
	}
	p.ref, p.err, p.asked = ref, err, a.Clock()
	a.watch.probes[name] = p
}

// probesOf are the last answers of the keys that open a vault.
func (a *Agent) probesOf(vault string) []custody.Probe {
	u := a.uses(vault)
	var out []custody.Probe
	for _, name := range slices.Concat(u.Keys, u.Open) {
		if a.Settings.Keys[name].Public != "" {
			continue
		}
		p := a.watch.probe(name)
		if p.asked.IsZero() {
			continue
		}
		every := probeEvery
		if p.ref.Provider == kek.KeyVault {
			every = probeCloudEvery
		}
		out = append(out, custody.Probe{Key: name, Ref: p.ref, Err: p.err, Asked: p.asked, Every: every})
	}
	return out
}

// conclude changes the state of a vault by what its keys have answered, and does
// what that means.
func (a *Agent) conclude(ctx context.Context, vault string) {
	h := a.custody(vault)
	notices := h.Observe(a.Clock(), a.limits(), a.probesOf(vault))
	a.become(ctx, vault, h, notices)
}

// become makes next the state of a vault. What it means for those who work with the
// vault happens first, and is told after.
func (a *Agent) become(ctx context.Context, vault string, next custody.Health, notices []custody.Notice) {
	a.watch.mu.Lock()
	a.watch.health[vault] = next
	a.watch.mu.Unlock()
	switch next.State() {
	case custody.Inaccessible, custody.RequiresRevalidation:
		if a.opened(vault) != nil {
			ending, cancel := context.WithTimeout(ctx, stopWait)
			a.jobs.end(ending, a.worksOn(vault), a.refused(vault))
			cancel()
			a.suspend(vault)
		}
	}
	if err := a.state.setHealth(vault, next); err != nil {
		a.Log.Warn("state of a vault's keys not remembered", "vault", vault, "err", err)
	}
	for _, n := range notices {
		attrs := []any{"vault", vault, "from", n.From, "to", n.To, "says", n.Says, "next", n.Next}
		if n.To == custody.Accessible {
			a.Log.Info("keys of a vault", attrs...)
		} else {
			a.Log.Warn("keys of a vault", attrs...)
		}
		err := a.record(ctx, audit.Event{Kind: audit.StateChanged, Vault: vault, Outcome: string(n.To), Says: n.Says,
			Fields: map[string]string{"from": string(n.From), "kind": string(n.Kind)}})
		if err != nil {
			a.Log.Error("state of a vault's keys not recorded", "vault", vault, "err", err)
		}
	}
}

// worksOn tells which jobs work on a vault.
func (a *Agent) worksOn(vault string) func(control.Job) bool {
	return func(j control.Job) bool {
		return j.Vault == vault || j.Item != "" && a.Settings.Items[j.Item].Vault == vault || j.Item == "" && j.Vault == ""
	}
}

// Revalidate implements control.Custody. Every version that some secret of the vault
// hangs on must open before it is used again.
func (a *Agent) Revalidate(ctx context.Context, req control.KeyRevalidate) (control.Vault, error) {
	if _, ok := a.Settings.Vaults[req.Vault]; !ok {
		return control.Vault{}, notFound("vault", req.Vault, "coffer vault list")
	}
	a.probeAll(ctx, slices.Collect(maps.Keys(a.Settings.Keys)))
	h := a.custody(req.Vault)
	by := control.PeerFrom(ctx).String()
	notices, err := h.Revalidate(a.Clock(), a.probesOf(req.Vault))
	if err != nil {
		return control.Vault{}, &control.Error{Code: control.CodeKeysInaccessible, Message: fmt.Sprintf("revalidate vault %s: %v", req.Vault, err), Next: "mend that key, and try again: coffer key check"}
	}
	if err := a.record(ctx, audit.Event{Kind: audit.KeyRevalidated, Vault: req.Vault, By: by, Outcome: string(h.State())}); err != nil {
		return control.Vault{}, err
	}
	a.become(keyring.WithPurpose(ctx, keyring.Purpose{Vault: req.Vault, By: by}), req.Vault, h, notices)
	return a.Vault(ctx, req.Vault)
}
