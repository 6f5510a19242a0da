package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// How often keys are asked.
const (
	alertEvery      = 10 * time.Second // the clock, while keys are missing
	probeEvery      = time.Minute      // a canary, at a token or a file
	probeCloudEvery = 5 * time.Minute  // at Key Vault, which counts calls
	probeWait       = 30 * time.Second // for one answer
	followWait      = 5 * time.Second  // before the keys are asked again while stores are slow
)

// probe is the last answers of a key.
type probe struct {
	answer                            // of the version in use
	older  map[kek.Fingerprint]answer // of other versions that some vault hangs on
	config config.Key                 // what the configuration said of it when it was asked
}

// answer is what one version of a key answered.
type answer struct {
	ref   kek.Ref
	err   error
	asked time.Time
}

// every is how often the key is asked.
func (p probe) every() time.Duration {
	if p.ref.Provider == kek.KeyVault {
		return probeCloudEvery
	}
	return probeEvery
}

// keyNames are the keys of the configuration and those that are linked.
func (w *Watch) keyNames() []string {
	names := slices.Collect(maps.Keys(w.cfg.Settings().Keys))
	for vault := range w.cfg.Settings().Vaults {
		names = append(names, w.cfg.Vaults.Uses(vault).Open...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Ask asks every key that is due, and those in now, due or not, and draws the conclusions
// for every vault that is made.
func (w *Watch) Ask(ctx context.Context, now []string) {
	needed := make(map[kek.Fingerprint]bool)
	for vault := range w.cfg.Settings().Vaults {
		maps.Copy(needed, w.hangsOn(vault))
	}
	var asking sync.WaitGroup
	for _, name := range w.keyNames() {
		p := w.probe(name)
		since := w.cfg.Clock().Sub(p.asked)
		if !slices.Contains(now, name) && since >= 0 && since < p.every()-time.Second && w.current(name, p) {
			continue
		}
		asking.Go(func() { w.probeKey(ctx, name, needed) })
	}
	asking.Wait()
	for _, vault := range slices.Sorted(maps.Keys(w.cfg.Settings().Vaults)) {
		if ctx.Err() != nil {
			return
		}
		if _, err := w.cfg.Vaults.Pinned(vault); err == nil {
			w.conclude(ctx, vault)
		}
	}
}

// probeKey asks the version of a key that is in use, and those that are needed
// besides, to open their canaries.
func (w *Watch) probeKey(ctx context.Context, name string, needed map[kek.Fingerprint]bool) {
	cfg := w.cfg.Settings().Keys[name]
	if cfg.Public != "" {
		return // nothing of it can be asked
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	var current answer
	older := make(map[kek.Fingerprint]answer)
	e, err := w.cfg.Keys.Entry(ctx, name)
	if err != nil {
		current = w.answered(kek.Ref{}, err)
	} else {
		inUse := e.Versions[0].Ref().Fingerprint
		if e.InUse != nil {
			inUse = e.InUse.Ref().Fingerprint
		}
		for _, k := range e.Versions {
			switch ref := k.Ref(); {
			case ref.Fingerprint == inUse:
				if current.asked.IsZero() {
					current = w.answered(ref, k.Check(ctx))
				}
			case needed[ref.Fingerprint]:
				older[ref.Fingerprint] = w.answered(ref, k.Check(ctx))
			}
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return // who asked has gone
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.probes[name]
	if current.ref == (kek.Ref{}) {
		current.ref = p.ref
	}
	p.answer, p.older, p.config = current, older, cfg
	w.probes[name] = p
}

// answered notes what a key answers.
func (w *Watch) answered(ref kek.Ref, err error) answer {
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, kek.ErrUnreachable) {
		err = fmt.Errorf("%w: %w", kek.ErrUnreachable, err)
	}
	return answer{ref, err, w.cfg.Clock()}
}

// hangsOn are the key versions that open a vault, as far as that is known: those of
// its own key's record when it was last read.
func (w *Watch) hangsOn(vault string) map[kek.Fingerprint]bool {
	if v := w.cfg.Vaults.Opened(vault); v != nil {
		w.learn(vault, v.Catalog)
	}
	out := make(map[kek.Fingerprint]bool)
	for _, text := range w.cfg.State.Openers(vault) {
		if f, err := kek.ParseFingerprint(text); err == nil {
			out[f] = true
		}
	}
	return out
}

// learn remembers which keys open a vault.
func (w *Watch) learn(name string, v *catalog.Vault) {
	var texts []string
	for _, f := range v.Openers() {
		texts = append(texts, f.String())
	}
	if err := w.cfg.State.SetOpeners(name, texts); err != nil {
		w.cfg.Log.Warn("keys that open a vault not remembered", "vault", name, "err", err)
	}
}

// probesOf are the last answers of the keys that open a vault, version by version. A
// key that opens nothing in it does not count: it neither keeps a vault open whose
// own keys were taken away, nor closes one whose own keys are there. Only while it is
// not known which keys those are does every one count.
func (w *Watch) probesOf(ctx context.Context, vault string) []custody.Probe {
	ours, others := w.sortProbes(vault)
	opens := func(p custody.Probe) bool { return p.Err == nil }
	if !slices.ContainsFunc(ours, opens) && slices.ContainsFunc(others, opens) && w.relearn(ctx, vault, slices.DeleteFunc(slices.Clone(others), func(p custody.Probe) bool { return p.Err != nil })) {
		ours, others = w.sortProbes(vault)
	}
	if len(ours) == 0 {
		return others
	}
	return ours
}

// sortProbes returns the last answers of the keys that a vault hangs on, and those of
// its other keys.
func (w *Watch) sortProbes(vault string) (ours, others []custody.Probe) {
	u, hangs := w.cfg.Vaults.Uses(vault), w.hangsOn(vault)
	for _, name := range slices.Concat(u.Keys, u.Open) {
		p := w.probe(name)
		if w.cfg.Settings().Keys[name].Public != "" || p.asked.IsZero() {
			continue
		}
		as := func(a answer) custody.Probe {
			return custody.Probe{Key: name, Ref: a.ref, Err: a.err, Asked: a.asked, Every: p.every()}
		}
		own := hangs[p.ref.Fingerprint]
		if p.ref == (kek.Ref{}) { // it was never open since the agent began
			own = slices.ContainsFunc(w.cfg.State.Used(name), func(v keyring.Version) bool {
				f, err := kek.ParseFingerprint(v.Fingerprint)
				return err == nil && hangs[f]
			})
		}
		if own {
			ours = append(ours, as(p.answer))
		} else {
			others = append(others, as(p.answer))
		}
		for _, f := range slices.SortedFunc(maps.Keys(p.older), func(x, y kek.Fingerprint) int { return slices.Compare(x[:], y[:]) }) {
			if hangs[f] {
				ours = append(ours, as(p.older[f]))
			}
		}
	}
	return ours, others
}

// relearn reads a vault's own key record again, with keys that were not known to open
// it: another host may have rotated it, or the configuration names other keys now. It
// tells whether one of them does open it.
func (w *Watch) relearn(ctx context.Context, name string, opening []custody.Probe) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	if v := w.cfg.Vaults.Opened(name); v != nil {
		for _, err := range v.Catalog.KeyRecords(ctx) { // the vault's own is the first
			return err == nil
		}
	}
	id, err := w.cfg.Vaults.Pinned(name)
	if err != nil {
		return false
	}
	var names []string
	for _, p := range opening {
		names = append(names, p.Key)
	}
	st, err := w.cfg.Store(ctx, w.cfg.Settings().Vaults[name])
	if err != nil {
		return false
	}
	defer vault.CloseStore(st, name, w.cfg.Log)
	floors, err := w.cfg.State.Floors(id, w.cfg.Log)
	if err != nil {
		return false
	}
	ring, _ := w.cfg.Keys.Ring(ctx, keyring.Use{Open: names})
	v, err := catalog.Open(keyring.WithPurpose(ctx, keyring.Purpose{Vault: name, By: audit.ByAgent}), st, catalog.OpenOptions{ID: id, Ring: ring, Floors: floors})
	if err != nil {
		return false
	}
	defer v.Close()
	w.learn(name, v)
	return true
}
