package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
)

// Version implements control.System.
func (a *Agent) Version(context.Context) (control.Version, error) { return a.Program, nil }

// Status implements control.System.
func (a *Agent) Status(ctx context.Context) (control.Status, error) {
	s := control.Status{Version: a.Program, Host: a.host, Started: a.started, Jobs: []control.Job{}, Problems: []control.Problem{}}
	var err error
	if s.Vaults, err = a.Vaults(ctx); err != nil {
		return s, err
	}
	if s.Items, err = a.Items(ctx); err != nil {
		return s, err
	}
	for _, j := range a.jobs.list(control.JobFilter{Limit: remembered}) {
		if !j.State.Ended() {
			s.Jobs = append(s.Jobs, j)
		}
	}
	for _, v := range s.Vaults {
		switch {
		case v.State == control.StateAbsent:
			s.Problems = append(s.Problems, control.Problem{Subject: "vault " + v.Name, Message: "it is not made yet", Next: "make it: coffer vault create " + v.Name})
		case v.Error != nil:
			s.Problems = append(s.Problems, control.Problem{Subject: "vault " + v.Name, Message: v.Error.Message, Next: v.Error.Next})
		}
	}
	for _, it := range s.Items {
		switch {
		case it.Error != nil && !vaultFaulty(s.Vaults, it.Vault):
			s.Problems = append(s.Problems, control.Problem{Subject: "item " + it.Name, Message: it.Error.Message, Next: it.Error.Next})
		case it.Points == 0 && !vaultFaulty(s.Vaults, it.Vault):
			s.Problems = append(s.Problems, control.Problem{Subject: "item " + it.Name, Message: "it has no point yet", Next: "make one: coffer backup " + it.Name})
		}
	}
	return s, nil
}

func vaultFaulty(vaults []control.Vault, name string) bool {
	for _, v := range vaults {
		if v.Name == name {
			return v.Error != nil || v.State == control.StateAbsent
		}
	}
	return true
}

// CheckConfig implements control.System.
func (a *Agent) CheckConfig(_ context.Context, req control.ConfigCheck) (control.ConfigReport, error) {
	parsed, err := config.Parse(req.Name, []byte(req.Text))
	var wrong *config.Error
	if errors.As(err, &wrong) {
		report := control.ConfigReport{}
		for _, p := range wrong.Problems {
			report.Problems = append(report.Problems, control.ConfigProblem{Line: p.Line, Column: p.Column, Field: p.Field, Message: p.Message, Next: p.Next})
		}
		return report, nil
	}
	if err != nil {
		return control.ConfigReport{}, fmt.Errorf("check config: %w", err)
	}
	return control.ConfigReport{Vaults: len(parsed.Vaults), Items: len(parsed.Items)}, nil
}
