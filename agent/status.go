package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/doctor"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/store"
)

// Version implements control.System.
func (a *Agent) Version(context.Context) (control.Version, error) { return a.Program, nil }

// Status implements control.System.
func (a *Agent) Status(ctx context.Context) (control.Status, error) { return a.status(ctx, a.Items) }

// status is the status with the items as look finds them.
func (a *Agent) status(ctx context.Context, look func(context.Context) ([]control.Item, error)) (control.Status, error) {
	s := control.Status{Version: a.Program, Host: a.host, Started: a.started, Jobs: []control.Job{}, Problems: []control.Problem{}}
	var err error
	if s.Vaults, err = a.Vaults(ctx); err != nil {
		return s, err
	}
	if s.Items, err = look(ctx); err != nil {
		return s, err
	}
	for _, j := range a.jobs.List(control.JobFilter{Limit: math.MaxInt}) {
		if !j.State.Ended() {
			s.Jobs = append(s.Jobs, j)
		}
	}
	if refused := a.reloadFault(); refused != nil {
		s.Problems = append(s.Problems, *refused)
	}
	for _, c := range doctor.Room(a.state.Dir()) {
		if c.Outcome == control.CheckBad {
			s.Problems = append(s.Problems, control.Problem{Subject: state.Subject, Message: a.state.Dir() + ": " + c.Says, Next: c.Next})
		}
	}
	s.Problems = append(s.Problems, a.state.Aside()...)
	s.Problems = append(s.Problems, a.tell.Problems()...)
	s.Problems = append(s.Problems, a.wrong(s).Problems()...)
	return s, nil
}

// Vaults implements control.Vaults.
func (a *Agent) Vaults(ctx context.Context) ([]control.Vault, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var out []control.Vault
	for _, name := range slices.Sorted(maps.Keys(a.settings().Vaults)) {
		v, err := a.describeVault(ctx, glancing, name)
		if control.CodeOf(err) == control.CodeNotFound {
			continue // a reload has just taken it out
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Vault implements control.Vaults.
func (a *Agent) Vault(ctx context.Context, name string) (control.Vault, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	return a.describeVault(ctx, glancing, name)
}

// describeVault describes a vault, with what can be learned of it while glancing
// lasts.
func (a *Agent) describeVault(ctx, glancing context.Context, name string) (control.Vault, error) {
	cfg, ok := a.settings().Vaults[name]
	if !ok {
		return control.Vault{}, fault.NotFound("vault", name, "coffer vault list")
	}
	out := control.Vault{Name: name, Store: cfg.Store, State: control.StateAccessible}
	if id, err := a.vaults.Pinned(name); err == nil {
		out.ID = id.String()
	} else if cfg.ID == "" {
		out.State = control.StateAbsent
	}
	for _, key := range cfg.Keys {
		keys, err := a.describeKey(ctx, glancing, key)
		if err != nil {
			return control.Vault{}, err
		}
		out.Keys = append(out.Keys, keys...)
	}
	for _, uri := range a.state.Links(name) {
		out.Keys = append(out.Keys, a.describeLink(glancing, uri))
	}
	if out.State == control.StateAbsent {
		if err := a.vaults.Unpinned(glancing, name); err != nil {
			out.State, out.Error = control.StateUnknown, control.AsError(err)
		}
		return out, nil
	}
	h := a.watch.Health(name)
	out.Checked, out.Since = a.watch.Last(cfg.Keys), h.Since()
	v, err := a.vaults.Open(glancing, name)
	err = overdue(ctx, glancing, err, store.ErrUnavailable)
	if err != nil {
		out.Error = control.AsError(err)
		if out.State = control.StateUnknown; out.Error.Code == control.CodeKeysInaccessible {
			out.State = control.StateInaccessible
		}
		if s := h.State(); s == custody.RequiresRevalidation {
			out.State = control.KeyState(s)
		}
		if out.State != control.KeyState(h.State()) { // nobody knows since when
			out.Since = time.Time{}
		}
		return out, nil
	}
	describeOpened(&out, v, h)
	return out, nil
}

// describeOpened fills in what is known of a vault that is open.
func describeOpened(out *control.Vault, v *vault.Vault, h custody.Health) {
	out.Mode, out.Created = v.Catalog.Mode().String(), v.Catalog.Created()
	view := v.View()
	out.Coverage = view.Coverage
	for _, c := range view.Coverage {
		if c.Owed > 0 {
			out.Owed = append(out.Owed, c.Key)
		}
	}
	for _, f := range view.Findings {
		out.Warnings = append(out.Warnings, control.Problem{Subject: f.Subject, Message: f.Says, Next: f.Next})
	}
	switch s := h.State(); s {
	case custody.Accessible, custody.Unknown: // it opened just now
		if err := v.Lacks(); err != nil {
			out.State, out.Error, out.Since = control.StateDegraded, control.AsError(fault.Of(err)), time.Time{}
		}
	default:
		out.State = control.KeyState(s)
		out.Error = &control.Error{Code: control.CodeKeysInaccessible, Message: h.Reason(), Next: h.Next()}
	}
}

// CheckConfig implements control.System.
func (a *Agent) CheckConfig(_ context.Context, req control.ConfigCheck) (control.ConfigReport, error) {
	parsed, err := config.Parse(req.Name, []byte(req.Text))
	var wrong *config.Error
	if errors.As(err, &wrong) {
		return wireReport(wrong), nil
	}
	if err != nil {
		return control.ConfigReport{}, fmt.Errorf("check config: %w", err)
	}
	return control.ConfigReport{Vaults: len(parsed.Vaults), Items: len(parsed.Items), Policies: len(parsed.Policies)}, nil
}

func wireReport(wrong *config.Error) control.ConfigReport {
	var report control.ConfigReport
	for _, p := range wrong.Problems {
		report.Problems = append(report.Problems, control.ConfigProblem{Line: p.Line, Column: p.Column, Field: p.Field, Message: p.Message, Next: p.Next})
	}
	return report
}
