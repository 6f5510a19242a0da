package retention

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
)

// Prune implements control.Retention.
func (w *Warden) Prune(ctx context.Context, req control.PruneRequest) (control.Job, error) {
	cfg := w.cfg.Settings()
	p := pruning{PruneRequest: req, items: []string{req.Item}}
	if _, ok := cfg.Items[req.Item]; req.Item != "" && !ok {
		return control.Job{}, fault.NotFound("item", req.Item, "coffer item list")
	}
	if req.Item == "" {
		p.items, p.vaults = slices.Sorted(maps.Keys(cfg.Items)), slices.Sorted(maps.Keys(cfg.Vaults))
	}
	state := control.Job{Kind: control.KindPrune, Item: req.Item}
	return w.startPruning(control.PeerFrom(ctx).String(), state, p).Snapshot(), nil
}

// StartPrune starts the prune of a vault by its schedule.
func (w *Warden) StartPrune(by, vault string) *queue.Job {
	p := pruning{vaults: []string{vault}}
	for name, cfg := range w.cfg.Settings().Items {
		if cfg.Vault == vault {
			p.items = append(p.items, name)
		}
	}
	slices.Sort(p.items)
	return w.startPruning(by, control.Job{Kind: control.KindPrune, Vault: vault, Priority: queue.Behind}, p)
}

// pruning is what a prune job is to do.
type pruning struct {
	control.PruneRequest
	items  []string
	vaults []string // whose records are looked at too
}

func (w *Warden) startPruning(by string, state control.Job, ask pruning) *queue.Job {
	return w.cfg.Start(by, state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		p := &pruner{Warden: w, ask: ask, job: j, by: by, began: w.cfg.Clock(), out: control.PruneResult{DryRun: ask.DryRun}}
		j.Follow(p.progress)
		for _, name := range ask.items {
			err := p.item(ctx, name)
			if control.CodeOf(err) == control.CodeNotFound && ask.Item == "" {
				continue // nothing there yet
			}
			if err := p.settle(ctx, name, err); err != nil {
				return nil, err
			}
		}
		for _, name := range ask.vaults {
			err := p.records(ctx, name)
			if control.CodeOf(err) == control.CodeNotFound {
				continue // it is not made yet
			}
			if err := p.settle(ctx, vaultSubject+name, err); err != nil {
				return nil, err
			}
		}
		return p.end()
	})
}

// pruner is a prune job under way.
type pruner struct {
	*Warden
	ask   pruning
	job   *queue.Job
	by    string
	began time.Time

	done   prune.Progress
	out    control.PruneResult
	failed []control.ItemPrune
}

func (p *pruner) progress() control.Progress {
	return control.Progress{Phase: "pruning", Bytes: p.done.Read.Load(), Entries: p.done.Points.Load()}
}

// settle takes down what is wrong with one item, which does not keep others from being
// pruned. It returns an error if the job itself was ended.
func (p *pruner) settle(ctx context.Context, name string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	p.cfg.Log.Warn("not pruned", "subject", name, "err", err)
	about := fault.Names{Item: name}
	if v, ok := strings.CutPrefix(name, vaultSubject); ok {
		about = fault.Names{Vault: v}
	}
	failed := control.ItemPrune{Item: name, Error: control.AsError(about.Of(err))}
	p.failed = append(p.failed, failed)
	p.out.Items = append(p.out.Items, failed)
	return nil
}

// end says what came of it all.
func (p *pruner) end() (*control.JobResult, error) {
	p.out.ReadBytes, p.out.Seconds = p.done.Read.Load(), p.cfg.Clock().Sub(p.began).Seconds()
	result := &control.JobResult{Prune: &p.out}
	if len(p.failed) == 0 {
		return result, nil
	}
	first := p.failed[0]
	out := *first.Error
	if p.ask.Item == "" {
		out.Message = first.Item + ": " + out.Message
	}
	if n := len(p.failed); n > 1 {
		out.Message = fmt.Sprintf("%s; and %d more could not be pruned", out.Message, n-1)
	}
	return result, &out
}

// item prunes one item.
func (p *pruner) item(ctx context.Context, name string) error {
	it, err := p.cfg.Vaults.Existing(ctx, name)
	if err != nil {
		return err
	}
	defer it.Close()
	ended, err := it.Removing(ctx)
	if err != nil {
		return err
	}
	defer ended()
	cfg, err := p.pruneConfig(it)
	if err != nil {
		return err
	}
	cfg.Allow, cfg.DryRun, cfg.Progress = policy.Allow{Empty: p.ask.AllowEmpty}, p.ask.DryRun, &p.done
	if r := cfg.Retention; r != nil && p.ask.AllowEmpty && r.Minimum == 1 { // which is what the config has if it says nothing
		r.Minimum = 0
	}
	watch := holdsWatch{item: it}
	cfg.Removing = func(ctx context.Context, point catalog.PointName) error { return p.removing(ctx, &watch, point) }
	done, err := prune.Run(ctx, cfg)
	err = it.Hiding(ctx, it.DamagedHold(ctx, err))
	says := p.add(done, cfg)
	if err != nil {
		return err
	}
	if done.Nothing {
		p.job.Note("warning", fmt.Sprintf("the retention keeps no point of %s; to keep one, hold it before it goes: coffer point hold", name))
	}
	p.out.Items = append(p.out.Items, control.ItemPrune{Item: name, Says: says})
	return nil
}

// records prunes what belongs to no item of a vault that is there: key records that
// others have taken the place of, and what an erasure had to leave.
func (p *pruner) records(ctx context.Context, name string) error {
	v, err := p.cfg.Vaults.Open(ctx, name)
	if err != nil {
		return err
	}
	configured, ok := p.cfg.Settings().Vaults[name]
	if !ok {
		return fault.NotFound("vault", name, "coffer vault list")
	}
	done, err := prune.Vault(ctx, prune.VaultConfig{Vault: v.Catalog, Store: v.Store, Grace: time.Duration(configured.Prune.Grace),
		DryRun: p.ask.DryRun, Clock: p.cfg.Clock, Log: p.cfg.Log})
	p.out.FreedBytes += done.FreedBytes
	p.addLocked(done.Locked, done.LockedUntil)
	if n := done.Records + done.Swept; n > 0 && err == nil {
		says := fmt.Sprintf("%s and %s of erased items removed", control.Counted(done.Records, "old key record"), control.Counted(done.Swept, "object"))
		if p.ask.DryRun {
			says = control.Counted(done.Records, "old key record") + " would be removed"
		}
		p.out.Items = append(p.out.Items, control.ItemPrune{Item: vaultSubject + name, Says: says})
	}
	return err
}

// vaultSubject is how the results of a vault begin among those of items: no item has a
// space in its name.
const vaultSubject = "vault "

// pruneConfig is what every prune of an item has in common.
func (w *Warden) pruneConfig(it *vault.Item) (prune.Config, error) {
	settings := w.cfg.Settings()
	configured, ok := settings.Vaults[it.Vault.Name]
	if !ok { // any more: nobody says how long the grace time is
		return prune.Config{}, fault.NotFound("vault", it.Vault.Name, "coffer vault list")
	}
	vault := configured.Prune
	cfg := prune.Config{
		Item: it.Item, Store: it.Vault.Store, Index: it.Shared(),
		SyncPoints: it.LookAgain,
		Grace:      time.Duration(vault.Grace), Abandon: time.Duration(vault.Abandon), RepackMost: int64(vault.RepackMost),
		Lock: w.cfg.Vaults.Retention(it.Vault.Name), Host: w.cfg.Host, Clock: w.cfg.Clock, Log: w.cfg.Log,
	}
	if vault.RepackBelow != nil && configured.Lock == nil { // what is locked would be stored twice until its time comes
		cfg.RepackBelow = *vault.RepackBelow
	}
	_, of := settings.PolicyOf(it.Name())
	if keeps, ok := of.Keeps(); ok {
		cfg.Retention = &keeps
	}
	return cfg, nil
}

// removing has it in the audit log that a point goes, unless somebody holds it since
// it was let go.
func (p *pruner) removing(ctx context.Context, watch *holdsWatch, point catalog.PointName) error {
	it := watch.item
	it.Leave(point)
	held, err := watch.holds(ctx, point)
	if err == nil && held {
		err = fmt.Errorf("point %s of %s: %w since it was let go", point, it.Name(), prune.ErrHeld)
	}
	if err == nil {
		err = p.cfg.Record(ctx, audit.Event{Kind: audit.PointRemoved, Vault: it.Vault.Name, Item: it.Name(), Point: point.String(), By: p.by, Job: p.job.ID()})
	}
	if err != nil {
		it.Stay(point)
	}
	return err
}

// add adds what was done to an item, and says it for people.
func (p *pruner) add(r prune.Result, cfg prune.Config) string {
	o := &p.out
	o.MarkedPoints += r.MarkedPoints
	o.MarkedPacks += r.MarkedPacks
	o.MarkedBytes += r.MarkedBytes
	o.RemovedPoints += r.RemovedPoints
	o.RemovedPacks += r.RemovedPacks
	o.FreedBytes += r.FreedBytes
	o.RescuedPacks += r.RescuedPacks
	o.RepackedPacks += r.RepackedPacks
	o.RepackedBytes += r.RepackedBytes
	o.Waiting += int64(r.Waiting)
	p.addLocked(r.Locked, r.LockedUntil)
	if !r.Goes.IsZero() && (o.Goes.IsZero() || r.Goes.Before(o.Goes)) {
		o.Goes = r.Goes
	}
	says := []string{control.Counted(r.Kept, "point") + " kept"}
	if cfg.Retention == nil {
		says[0] += " (no retention)"
	}
	removed, marked := "%d removed", "%d marked to go"
	if cfg.DryRun {
		removed, marked = "%d would be removed", "%d would be marked to go"
	}
	for _, f := range []struct {
		n    int64
		what string
	}{
		{r.RemovedPoints, removed}, {r.MarkedPoints, marked}, {int64(r.Pending), "marks whose time has not come: %d"},
		{int64(r.Waiting), "backups under way that are waited for: %d"}, {r.Locked, "objects that the store does not let go yet: %d"},
	} {
		if f.n > 0 {
			says = append(says, fmt.Sprintf(f.what, f.n))
		}
	}
	return strings.Join(says, ", ")
}

func (p *pruner) addLocked(n int64, until time.Time) {
	p.out.Locked += n
	if until.After(p.out.LockedUntil) {
		p.out.LockedUntil = until
	}
}
