package plan

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/schedule"
)

var _ control.Policies = (*Plan)(nil)

// upcoming is how many of a policy's next runs are told.
const upcoming = 5

// Policies implements control.Policies.
func (p *Plan) Policies(context.Context) ([]control.Policy, error) {
	cfg := p.cfg.Settings()
	out := []control.Policy{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Policies)) {
		out = append(out, p.describePolicy(cfg, name))
	}
	return out, nil
}

// describePolicy says how a policy stands.
func (p *Plan) describePolicy(cfg *config.Config, name string) control.Policy {
	of := cfg.Policies[name]
	out := control.Policy{Name: name, Schedule: of.Schedule, Timezone: of.Timezone, Retention: control.KeepsEverything}
	if r, ok := of.Keeps(); ok {
		out.Retention = retentionWords(r)
	}
	for _, item := range of.Items {
		t := p.backupTask(cfg, name, item)
		t.Blocked = p.blocked(cfg.Items[item].Vault)
		s := p.runner.State(t)
		it := control.PolicyItem{Item: item, Last: s.Last, Next: s.Next, Failures: s.Failures, Job: s.Job, Paused: s.Paused}
		if j, err := p.cfg.Jobs.Get(s.Job); err == nil && s.Failures > 0 {
			it.Error = j.Snapshot().Error
		}
		out.Items = append(out.Items, it)
		if runs, err := t.Spec.Schedule(); err == nil && runs != nil {
			out.Next = append(out.Next, runs.Runs(p.cfg.Clock(), upcoming)...)
		}
	}
	slices.SortFunc(out.Next, time.Time.Compare)
	out.Next = slices.CompactFunc(out.Next, time.Time.Equal)
	out.Next = out.Next[:min(len(out.Next), upcoming)]
	return out
}

// noPolicy says that the configuration has no such policy.
func noPolicy(name string) error { return fault.NotFound("policy", name, "coffer policy list") }

// Explain implements control.Policies.
func (p *Plan) Explain(ctx context.Context, name string) (control.Explanation, error) {
	cfg := p.cfg.Settings()
	of, ok := cfg.Policies[name]
	if !ok {
		return control.Explanation{}, noPolicy(name)
	}
	out := control.Explanation{Policy: p.describePolicy(cfg, name), Points: []control.PointFate{}}
	for _, item := range of.Items {
		fates, err := p.cfg.Explain(ctx, item)
		if control.CodeOf(err) == control.CodeNotFound {
			continue // nothing there yet
		}
		if err != nil {
			return out, err
		}
		out.Points = append(out.Points, fates...)
	}
	slices.SortStableFunc(out.Points, func(x, y control.PointFate) int { return x.Time.Compare(y.Time) })
	return out, nil
}

// retentionWords says what is kept; "" if there is no rule.
func retentionWords(r policy.Retention) string {
	var words []string
	for _, f := range []struct {
		name string
		n    int
	}{
		{"last", r.Last}, {"hourly", r.Hourly}, {"daily", r.Daily}, {"weekly", r.Weekly}, {"monthly", r.Monthly}, {"yearly", r.Yearly},
	} {
		if f.n > 0 {
			words = append(words, fmt.Sprintf("%s %d", f.name, f.n))
		}
	}
	if r.Within > 0 {
		words = append(words, "within "+policy.Span(r.Within))
	}
	if len(r.Tags) > 0 {
		words = append(words, "tags "+strings.Join(r.Tags, " "))
	}
	if r.Minimum > 1 {
		words = append(words, fmt.Sprintf("minimum %d", r.Minimum))
	}
	return strings.Join(words, ", ")
}

// RunPolicy implements control.Policies. What it starts is beside the schedule: it
// changes nothing about when the policy runs next.
func (p *Plan) RunPolicy(ctx context.Context, req control.PolicyRun) ([]control.Job, error) {
	cfg := p.cfg.Settings()
	of, ok := cfg.Policies[req.Name]
	if !ok {
		return nil, noPolicy(req.Name)
	}
	items := of.Items
	if req.Item != "" {
		if !slices.Contains(items, req.Item) {
			return nil, &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("policy %s has no item %q", req.Name, req.Item),
				Next: "see what it has: coffer policy show " + req.Name}
		}
		items = []string{req.Item}
	}
	var out []control.Job
	for _, item := range items {
		j, err := p.ask(p.backupTask(cfg, req.Name, item), control.PeerFrom(ctx).String())
		if err != nil {
			return out, err
		}
		out = append(out, j)
	}
	return out, nil
}

// ask starts a run that somebody asks for, or returns the one that has not ended.
func (p *Plan) ask(t schedule.Task, by string) (control.Job, error) {
	for {
		id, begun, err := p.runner.Ask(t, by)
		if err != nil {
			return control.Job{}, err
		}
		j, err := p.cfg.Jobs.Get(id)
		if err != nil {
			return control.Job{}, err
		}
		s := j.Snapshot()
		if begun || !s.State.Ended() {
			return s, nil
		}
		p.runner.Ended(t, id, outcome(s)) // it did just now, and nobody has said so yet
	}
}
