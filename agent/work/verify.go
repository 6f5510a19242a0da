package work

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Verify implements control.Work.
func (d *Desk) Verify(ctx context.Context, req control.VerifyRequest) (control.Job, error) {
	if err := checkVerify(req); err != nil {
		return control.Job{}, err
	}
	if req.Item != "" {
		if _, ok := d.cfg.Settings().Items[req.Item]; !ok {
			return control.Job{}, fault.NotFound("item", req.Item, "coffer item list")
		}
	}
	state := control.Job{Kind: control.KindVerify, Item: req.Item, Point: req.Point}
	v := verifying{VerifyRequest: req, items: []string{req.Item}}
	if req.Item == "" {
		v.items = slices.Sorted(maps.Keys(d.cfg.Settings().Items))
	}
	return d.startVerifying(control.PeerFrom(ctx).String(), state, v).Snapshot(), nil
}

func checkVerify(req control.VerifyRequest) error {
	wrong := ""
	switch {
	case req.Level != "" && req.Level != control.VerifyData && req.Level != control.VerifyStructure:
		wrong = fmt.Sprintf("level %q is not data or structure", req.Level)
	case req.Part < 0 || req.Part > 100:
		wrong = fmt.Sprintf("a part of %d percent is not from 1 to 100", req.Part)
	case req.Part != 0 && (req.Level == control.VerifyStructure || req.Point != "" || req.Repair || req.Restore):
		wrong = "a part is of all data of an item: it goes with no level, point, repair or restore"
	case req.Repair && req.Item == "":
		wrong = "a repair is of one item"
	case req.Repair && (req.Point != "" || req.Level == control.VerifyStructure || req.Restore):
		wrong = "a repair looks at all data of all points of an item: it goes with no level, point or restore"
	case req.Restore && req.Level != "":
		wrong = "a restore compares everything: it has no level"
	default:
		return nil
	}
	return &control.Error{Code: control.CodeBadRequest, Message: wrong, Next: "see how it is asked for: coffer verify --help"}
}

// StartVerify starts a verification of a vault by its schedule: of the structure of all
// its items; of the packs whose time has come; or a proof by restore of the item whose
// last one is the oldest.
func (d *Desk) StartVerify(by, vault string, depth proof.Depth) *queue.Job {
	v := verifying{scheduled: true}
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Settings().Items)) {
		if d.cfg.Settings().Items[name].Vault == vault {
			v.items = append(v.items, name)
		}
	}
	switch depth {
	case proof.Structure:
		v.Level = control.VerifyStructure
	case proof.Restored:
		v.Restore = true
		slices.SortStableFunc(v.items, func(x, y string) int {
			return d.cfg.Proofs.Entry(vault, x).Restore.Compare(d.cfg.Proofs.Entry(vault, y).Restore)
		})
	}
	return d.startVerifying(by, control.Job{Kind: control.KindVerify, Vault: vault, Priority: queue.Behind}, v)
}

// verifying is what a verify job is to do.
type verifying struct {
	control.VerifyRequest
	items     []string
	scheduled bool // by the vault's schedule
}

func (d *Desk) startVerifying(by string, state control.Job, v verifying) *queue.Job {
	return d.cfg.Start(by, state, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		w := &verifier{Desk: d, ask: v, job: j, began: d.cfg.Clock(), checked: make(map[string]bool), gone: make(map[string][]catalog.PointName)}
		j.Follow(w.progress)
		for _, name := range v.items {
			err := w.item(ctx, name)
			if errors.Is(err, catalog.ErrNoItem) || control.CodeOf(err) == control.CodeNotFound {
				if v.Item == "" {
					continue // nothing there yet
				}
			}
			if err != nil {
				return nil, fault.Names{Item: name}.Of(err)
			}
			if v.Restore && v.scheduled {
				break // each run another item
			}
		}
		return w.end()
	})
}

// verifier is a verify job under way.
type verifier struct {
	*Desk
	ask     verifying
	job     *queue.Job
	began   time.Time
	checked map[string]bool // vaults whose records have been looked at
	done    restore.VerifyProgress
	proving proof.Progress
	out     control.VerifyResult
	skipped atomic.Int64 // entries that a repair could not read again
	faults  int
	lost    []catalog.PointName            // that a repair could not make whole
	gone    map[string][]catalog.PointName // by item: deleted behind the agent's back
	missing int                            // faults that are points which are gone
	hidden  bool                           // a delete marker hides something that is missing
}

func (w *verifier) progress() control.Progress {
	if w.ask.Restore {
		return control.Progress{Phase: "restoring", Bytes: int64(w.proving.Restored.Written.Load() + w.proving.Bytes.Load()),
			Entries: int64(w.proving.Compared.Load()), Faults: int64(w.proving.Faults.Load())}
	}
	return control.Progress{Phase: "checking", Bytes: int64(w.done.Bytes.Load()), Entries: int64(w.done.Packs.Load()),
		Skipped: w.skipped.Load(), Faults: int64(w.done.Damaged.Load())}
}

// item verifies one item.
func (w *verifier) item(ctx context.Context, name string) error {
	if err := w.records(ctx, w.cfg.Settings().Items[name].Vault); err != nil {
		return err
	}
	if w.ask.Restore {
		return w.prove(ctx, name)
	}
	it, err := w.cfg.Vaults.Existing(ctx, name)
	if err != nil {
		return err
	}
	defer it.Close()
	if w.ask.Repair {
		if err := w.repair(ctx, it); err != nil {
			return err
		}
		return w.missed(ctx, it)
	}
	cfg := restore.VerifyConfig{Structure: w.ask.Level == control.VerifyStructure}
	if w.ask.Point != "" {
		p, notes, err := w.cfg.Points.Pick(ctx, it, w.ask.Point, "")
		if err != nil {
			return err
		}
		for _, n := range notes {
			w.job.Note("warning", n)
		}
		cfg.Points = []catalog.PointName{p.Name}
	}
	before := w.done.Damaged.Load()
	report, err := w.check(ctx, it, cfg)
	if err != nil {
		return err
	}
	w.unveil(ctx, it, report.Findings)
	w.found(report.Findings, w.done.Damaged.Load()-before)
	if cfg.Points == nil {
		if err := w.missed(ctx, it); err != nil {
			return err
		}
	}
	for _, f := range report.Spare {
		w.job.Note("info", "no point is harmed by this: "+lineOf(f))
	}
	return nil
}

// unveil has the first findings about objects that are gone say what hides them.
func (w *verifier) unveil(ctx context.Context, it *vault.Item, findings []restore.Finding) {
	asked := 0
	for i := range findings {
		f := &findings[i]
		if asked == vault.MaxNamed || !errors.Is(f.Err, store.ErrNotExist) {
			continue
		}
		asked++
		if _, why := vault.Hidden(ctx, it.Vault.Store, []store.Key{f.Object}); why != nil {
			f.Err, w.hidden = why, true
		}
	}
}

// missed finds the points that are gone: they are not among those that were checked.
func (w *verifier) missed(ctx context.Context, it *vault.Item) error {
	synced, err := it.Look(ctx)
	if err != nil || synced.Lost == 0 {
		return err
	}
	w.gone[it.Name()] = synced.Gone
	for _, name := range synced.Gone {
		says := fmt.Errorf("%w: deleted behind the agent's back", catalog.ErrPointGone)
		if _, why := vault.Hidden(ctx, it.Vault.Store, []store.Key{it.PointKey(name)}); why != nil {
			says, w.hidden = fmt.Errorf("%w; %w", says, why), true
		}
		w.fault(fmt.Sprintf("point %s@%s: %s", it.Name(), name, oneLine(says)))
	}
	w.faults += synced.Lost - len(synced.Gone)
	w.missing += synced.Lost
	return nil
}

// records checks the key records of a vault, once.
func (w *verifier) records(ctx context.Context, vault string) error {
	if w.checked[vault] {
		return nil
	}
	w.checked[vault] = true
	v, err := w.cfg.Vaults.Open(ctx, vault)
	if err != nil {
		return err
	}
	findings, err := restore.VerifyRecords(ctx, v.Catalog)
	if err != nil {
		return err
	}
	w.found(findings, 0)
	return nil
}

// check verifies an item and remembers what came of it.
func (w *verifier) check(ctx context.Context, it *vault.Item, cfg restore.VerifyConfig) (restore.Report, error) {
	readings := proof.NewReadings(it.Index, w.cfg.Clock)
	cfg.Item, cfg.Objects, cfg.Reader, cfg.Progress, cfg.Checked, cfg.Knows = it.Item, it.Vault.Store, it.Reader, &w.done, readings.Checked(ctx), it.Index.HasPack
	if w.ask.scheduled || w.ask.Part != 0 {
		if err := w.sample(ctx, it, &cfg); err != nil {
			return restore.Report{}, err
		}
	}
	before := w.done.Damaged.Load()
	report, err := restore.Verify(ctx, cfg)
	if err != nil || cfg.Points != nil {
		return report, err
	}
	if _, err := it.Look(ctx); err != nil { // only what is remembered can be noted
		return report, err
	}
	depth := proof.Data
	if cfg.Structure {
		depth = proof.Structure
	}
	if err := readings.Settle(ctx, report, depth); err != nil {
		return report, err
	}
	return report, w.remember(ctx, it, cfg, int64(w.done.Damaged.Load()-before))
}

// sample chooses the packs whose time has come.
func (w *verifier) sample(ctx context.Context, it *vault.Item, cfg *restore.VerifyConfig) error {
	if cfg.Structure {
		return nil
	}
	packs, damaged, err := proof.Packs(ctx, it.Index)
	if err != nil {
		return err
	}
	plan := w.plan(it.Vault.Name)
	if err := proof.Meet(ctx, it.Index, packs, plan); err != nil {
		return err
	}
	chosen := damaged // they are looked at every time: perhaps they were put back
	for _, id := range proof.Choose(packs, plan) {
		chosen[id] = struct{}{}
	}
	cfg.Read = func(id pack.ID) bool {
		_, ok := chosen[id]
		return ok
	}
	return nil
}

// plan says how much a run reads.
func (w *verifier) plan(vault string) proof.Plan {
	cfg := w.cfg.Settings().Vaults[vault].Verify
	plan := proof.Plan{Now: w.cfg.Clock(), Every: time.Duration(cfg.Every), Part: w.ask.Part}
	if s, err := policy.ParseSchedule(cfg.Data, policy.Options{}); err == nil { // else there is none
		plan.Interval = proof.Interval(s, plan.Now)
	}
	return plan
}

// remember keeps what a check of all points of an item found.
func (w *verifier) remember(ctx context.Context, it *vault.Item, cfg restore.VerifyConfig, faults int64) error {
	packs, _, err := proof.Packs(ctx, it.Index)
	if err != nil {
		return err
	}
	return w.cfg.Proofs.Change(it.Vault.Name, it.Name(), func(e *proof.Entry) {
		e.StructureFaults = faults
		if faults == 0 {
			e.Structure = w.cfg.Clock()
		}
		if !cfg.Structure {
			e.DataFaults, e.Data = faults, proof.Oldest(packs)
		}
	})
}
