package work

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog"
)

// scratch is where points of a vault are restored to be compared.
func (d *Desk) scratch(vault string) *proof.Scratch {
	dir, err := filepath.Abs(d.cfg.State.Dir())
	if err != nil {
		dir = d.cfg.State.Dir()
	}
	owner := sha256.Sum256([]byte(d.cfg.Host + "\x00" + dir))
	return &proof.Scratch{Dir: d.cfg.Settings().Vaults[vault].Verify.Scratch, Owner: fmt.Sprintf("%x", owner[:5]), Run: d.cfg.Process, Target: d.cfg.Target}
}

// CleanScratch removes what proofs left behind that died with the agent before this one.
func (d *Desk) CleanScratch(ctx context.Context) {
	cleaned := make(map[string]bool)
	for name := range d.cfg.Settings().Vaults {
		s := d.scratch(name)
		if cleaned[s.Dir] {
			continue
		}
		cleaned[s.Dir] = true
		if err := s.Clean(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.Warn("left over from a proof by restore; remove it by hand", "vault", name, "scratch", s.Dir, "err", err)
		}
	}
}

// prove restores a point of an item into the scratch folder and compares it.
func (w *verifier) prove(ctx context.Context, name string) error {
	it, p, err := w.cfg.Points.Open(ctx, name, w.ask.Point, "")
	if err != nil {
		return err
	}
	defer it.Close()
	if w.ask.Item != "" {
		w.job.Update(func(s *control.Job) { s.Point = p.Name.String() })
	}
	src, err := w.original(name)
	if err != nil {
		return err
	}
	scratch := w.scratch(it.Vault.Name)
	e := audit.Event{Kind: audit.RestoreStarted, Vault: it.Vault.Name, Item: name, Point: p.Name.String(), By: w.job.Snapshot().By, Job: w.job.ID(),
		Fields: map[string]string{"target": scratch.Dir, "purpose": "proof"}}
	if err := w.cfg.Record(ctx, e); err != nil {
		return err
	}
	before := w.proving.Faults.Load()
	findings, err := proof.Restore(ctx, proof.Config{Point: p, Reader: it.Reader, Scratch: scratch, Source: src, Progress: &w.proving})
	faults := int64(w.proving.Faults.Load() - before)
	e.Kind, e.Outcome = audit.RestoreDone, "done"
	if err != nil || faults > 0 {
		e.Outcome, e.Says = "failed", control.Counted(faults, "entry")+" did not come back unchanged"
		if err != nil {
			e.Says = err.Error()
		}
	}
	if err := errors.Join(err, w.cfg.Record(ctx, e)); err != nil {
		return roomFault(err, it.Vault.Name)
	}
	for _, f := range findings {
		w.fault(fmt.Sprintf("point %s %s: %v", p.Name, f.Path, f.Err))
	}
	w.faults += int(faults) - len(findings)
	return w.rememberProof(ctx, it, p, faults)
}

// original returns the source that a point is compared with: nil if it can be read only
// once.
func (w *verifier) original(name string) (source.Source, error) {
	cfg := w.cfg.Settings().Items[name]
	if cfg.Files == nil {
		return nil, nil
	}
	src, err := w.cfg.Source(cfg, "", nil)
	if err != nil {
		return nil, fmt.Errorf("item %s: %w", name, err)
	}
	return src, nil
}

// roomFault says what to do where there is no room for a proof.
func roomFault(err error, vault string) error {
	if !errors.Is(err, proof.ErrSpace) {
		return err
	}
	return &control.Error{Code: control.CodeFailed, Message: err.Error(),
		Next: fmt.Sprintf("make room there, or name a larger folder in the config: vaults.%s.verify.scratch", vault)}
}

func (w *verifier) rememberProof(ctx context.Context, it *vault.Item, p *catalog.Point, faults int64) error {
	if faults > 0 {
		if _, err := it.Look(ctx); err != nil { // only what is remembered can be noted
			return err
		}
		if err := it.Index.DamagePoints(ctx, map[catalog.PointName]bool{p.Name: true}); err != nil {
			return err
		}
	}
	newest := catalog.PointName("")
	for name, err := range it.PointNames(ctx) {
		if err != nil {
			return err
		}
		newest = name
	}
	if p.Name < newest && w.ask.Point != "" { // an old one proves nothing of today
		return nil
	}
	return w.cfg.Proofs.Change(it.Vault.Name, it.Name(), func(e *proof.Entry) {
		e.RestoreFaults = faults
		if faults == 0 {
			e.Restore = w.cfg.Clock()
		}
	})
}
