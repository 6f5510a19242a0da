package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) policyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Show, explain and run policies", RunE: group}
	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the policies",
		Example: "  coffer policy list",
		Args:    takes(0, 0, ""),
		RunE:    listing(a, (*control.Client).Policies, "The configuration names no policies.", (*page).policies),
	}, &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a policy and how its items stand",
		Example: "  coffer policy show nightly",
		Args:    takes(1, 1, "the name of a policy"),
		RunE:    showing(a, policyOf, (*page).policy),
	}, a.policyExplainCmd(), a.policyRunCmd())
	return cmd
}

// policyOf asks for one policy.
func policyOf(c *control.Client, ctx context.Context, name string) (control.Policy, error) {
	all, err := c.Policies(ctx)
	if err != nil {
		return control.Policy{}, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return control.Policy{}, &control.Error{
		Code: control.CodeNotFound, Message: fmt.Sprintf("there is no policy %q", name), Next: "list what there is: coffer policy list",
	}
}

func (p *page) policies(all []control.Policy) {
	rows := make([][]string, len(all))
	for i, pl := range all {
		var items []string
		failing := 0
		for _, it := range pl.Items {
			items = append(items, it.Item)
			if it.Failures > 0 {
				failing++
			}
		}
		state := ""
		if failing > 0 {
			state = control.Counted(failing, "item") + " failing"
		}
		rows[i] = []string{pl.Name, strings.Join(items, ", "), schedule(pl), p.first(pl.Next), pl.Retention, state}
	}
	p.table([]string{"POLICY", "ITEMS", "SCHEDULE", "NEXT", "KEEPS", "STATE"}, rows)
}

// schedule says when a policy runs.
func schedule(pl control.Policy) string {
	s := cmp.Or(pl.Schedule, "when asked")
	if pl.Timezone != "" {
		s += " (" + pl.Timezone + ")"
	}
	return s
}

// first is the first of some times, if there is one.
func (p *page) first(times []time.Time) string {
	if len(times) == 0 {
		return ""
	}
	return when(times[0], p.now)
}

func (p *page) policy(pl control.Policy) {
	p.fact("policy", pl.Name)
	p.fact("schedule", schedule(pl))
	var next []string
	for _, t := range pl.Next {
		next = append(next, when(t, p.now))
	}
	p.fact("next", strings.Join(next, "; "))
	p.fact("keeps", pl.Retention)
	if len(pl.Items) == 0 {
		return
	}
	p.line("")
	rows := make([][]string, len(pl.Items))
	for i, it := range pl.Items {
		state := it.Paused
		if it.Failures > 0 {
			state = control.Counted(it.Failures, "failure")
			if it.Error != nil {
				state += ": " + said(it.Error.Message, "")
			}
		}
		job, next := "", ""
		if it.Job > 0 {
			job = fmt.Sprint(it.Job)
		}
		if !it.Next.IsZero() {
			next = when(it.Next, p.now)
		}
		rows[i] = []string{it.Item, when(it.Last, p.now), next, job, state}
	}
	p.table([]string{"ITEM", "LAST RUN", "NEXT", "JOB", "STATE"}, rows)
}
