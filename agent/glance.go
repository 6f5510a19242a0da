package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/tell"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// glance is how long a status waits for stores and keys, all of them together.
// Jobs are far more patient.
const glance = 10 * time.Second

// overdue returns err, or that what was asked is too slow for a glance: silent says
// who. The caller's own end stays what it is.
func overdue(ctx, glancing context.Context, err, silent error) error {
	if err == nil || glancing.Err() == nil || ctx.Err() != nil {
		return err
	}
	return fault.Of(fmt.Errorf("%w within %s: %v", silent, glance, err))
}

// Of few items, whoever asks has all looked at. Of many, that would be a listing and a
// key operation for each: the agent looks at them in turns, each once an hour, and who
// asks is told what is remembered since. What changes with a job is looked at anew.

// turns is in how many looks of the agent at itself each of many items has its turn.
const turns = int(vault.OthersOnce / tell.LookEvery)

// looks is how items are looked at.
type looks struct {
	// glancing is how long an item of a vault is waited for; done ends it.
	glancing func(vault string) (_ context.Context, done func())
	// late is what is said of an item when that is over before its turn; nil: that its
	// store is silent.
	late func(item string) error
	// will tells whether what is remembered of an item will do; nil: never.
	will func(i int, g vault.Glance) bool
}

// Items implements control.Items.
func (a *Agent) Items(ctx context.Context) ([]control.Item, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	l := looks{glancing: func(string) (context.Context, func()) { return glancing, func() {} }}
	if len(a.settings().Items) > vault.FewItems {
		l.will = func(int, vault.Glance) bool { return true }
		l.late = func(item string) error {
			return &control.Error{Code: control.CodeBusy, Message: fmt.Sprintf("there are many items, and this one was not reached within %s", glance),
				Next: "see it alone: coffer item show " + item + "; or wait until the agent has looked at all"}
		}
	}
	return a.items(ctx, l)
}

// watched returns the status for the agent's own looks at itself, one after the other.
func (a *Agent) watched() func(ctx context.Context) (control.Status, error) {
	turn := 0
	return func(ctx context.Context) (control.Status, error) {
		turn++
		return a.status(ctx, func(ctx context.Context) ([]control.Item, error) { return a.watchItems(ctx, turn) })
	}
}

// watchItems is Items for the agent's own look at itself, which keeps what is remembered
// up to date. It takes its time, but for vaults whose store or keys are silent. Of many
// items, those have their turn whose turn it is.
func (a *Agent) watchItems(ctx context.Context, turn int) ([]control.Item, error) {
	silent := make(map[string]context.Context) // vaults of which no other item is waited for
	l := looks{glancing: func(in string) (context.Context, func()) {
		a.pulse.beat("telling", a.Clock(), tell.LookEvery)
		if g, ok := silent[in]; ok {
			return g, func() {}
		}
		g, cancel := context.WithTimeout(ctx, glance)
		return g, func() {
			if g.Err() != nil {
				silent[in] = g
			}
			cancel()
		}
	}}
	if len(a.settings().Items) > vault.FewItems {
		l.will = func(i int, g vault.Glance) bool {
			age := a.Clock().Sub(g.At).Abs()
			return !g.Old && age < vault.OthersOnce && (age < tell.LookEvery || i%turns != turn%turns)
		}
	}
	return a.items(ctx, l)
}

// items describes all items.
func (a *Agent) items(ctx context.Context, l looks) ([]control.Item, error) {
	cfg := a.settings()
	out := make([]control.Item, 0, len(cfg.Items))
	for i, name := range slices.Sorted(maps.Keys(cfg.Items)) {
		in := cfg.Items[name].Vault
		it, err := a.item(ctx, name, func(out *control.Item) error {
			if g, ok := a.remembered(in, name); ok && l.will != nil && l.will(i, g) {
				retold(g, out)
				return nil
			}
			looking, done := l.glancing(in)
			defer done()
			if l.late != nil && looking.Err() != nil && ctx.Err() == nil {
				return l.late(name)
			}
			return overdue(ctx, looking, a.glanceAt(looking, name, out), store.ErrUnavailable)
		})
		if control.CodeOf(err) == control.CodeNotFound {
			continue // a reload has just taken it out
		}
		if err != nil {
			return nil, err
		}
		out = append(out, it)
	}
	return out, nil
}

// Item implements control.Items.
func (a *Agent) Item(ctx context.Context, name string) (control.Item, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	return a.item(ctx, name, func(out *control.Item) error {
		return overdue(ctx, glancing, a.glanceAt(glancing, name, out), store.ErrUnavailable)
	})
}

// item describes an item. see fills in what there is to say of its points.
func (a *Agent) item(ctx context.Context, name string, see func(*control.Item) error) (control.Item, error) {
	cfg, ok := a.settings().Items[name]
	if !ok {
		return control.Item{}, fault.NotFound("item", name, "coffer item list")
	}
	kind, from := sourceOf(cfg)
	out := control.Item{Name: name, Vault: cfg.Vault, Kind: kind, Source: from}
	var due time.Time
	out.Policy, out.Next, due = a.plan.Planned(name)
	out.Overdue = !due.IsZero()
	out.Proof = a.proofs.Entry(cfg.Vault, name).Proof()
	if err := see(&out); err != nil && !neverBackedUp(err) {
		out.Error = control.AsError(err)
	}
	return out, ctx.Err()
}

// neverBackedUp tells whether an item could not be looked at because it has no points.
func neverBackedUp(err error) bool {
	return errors.Is(err, catalog.ErrNoItem) || control.CodeOf(err) == control.CodeNotFound
}

// retold fills in what was seen before.
func retold(g vault.Glance, out *control.Item) {
	s := g.Seen
	out.Points, out.StoredBytes, out.Warnings = s.Points, s.StoredBytes, s.Warnings
	out.LastPoint, out.LastGood, out.SourceBytes = s.LastPoint, s.LastGood, s.SourceBytes
}

// remembered returns what the last look at an item found. It is forgotten with the open
// vault: nothing is told of one that has closed.
func (a *Agent) remembered(in, name string) (vault.Glance, bool) {
	if a.watch.Refused(in) != nil {
		return vault.Glance{}, false
	}
	v := a.vaults.Opened(in)
	if v == nil {
		return vault.Glance{}, false
	}
	return v.Glance(name)
}

// glanceAt fills in what there is to say of an item's points, and remembers it unless
// something has changed meanwhile.
func (a *Agent) glanceAt(ctx context.Context, name string, out *control.Item) error {
	v, err := a.vaults.Open(ctx, out.Vault)
	if err != nil {
		return err
	}
	return v.Remember(name, out, func() error { return a.lookAt(ctx, name, out) })
}

// changedBy has the items looked at anew that a job may have changed: its own at once,
// and those of a job for all of them as their turns come.
func (a *Agent) changedBy(j control.Job) {
	if !slices.Contains([]string{control.KindBackup, control.KindVerify, control.KindPrune}, j.Kind) {
		return
	}
	in := j.Vault
	if j.Item != "" {
		in = a.settings().Items[j.Item].Vault
	}
	for name := range a.settings().Vaults {
		if v := a.vaults.Opened(name); v != nil && (in == "" || in == name) {
			v.Changed(j.Item)
		}
	}
}
