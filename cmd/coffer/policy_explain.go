package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) policyExplainCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "explain NAME",
		Short: "Say why each point stays, and when it goes",
		Long: `Say what a policy does next, and of every point of its items why it is kept or when
it goes. "not before" is the first day on which no rule keeps the point, if the
backups come as planned.`,
		Example: "  coffer policy explain nightly\n  coffer policy explain nightly --json | jq '.points[] | select(.keep | not)'",
		Args:    takes(1, 1, "the name of a policy"),
		RunE: showing(a, func(c *control.Client, ctx context.Context, name string) (control.Explanation, error) {
			return c.Explain(ctx, name)
		}, (*page).explained),
	}
}

func (p *page) explained(e control.Explanation) {
	p.policy(e.Policy)
	if len(e.Points) == 0 {
		p.line("")
		p.line("Its items have no points yet.")
		return
	}
	kept := int64(0)
	rows := make([][]string, len(e.Points))
	for i, f := range e.Points {
		if f.Keep {
			kept++
		}
		rows[i] = []string{f.Item, f.Point, when(f.Time, p.now), p.fate(f, e.Policy.Retention == control.KeepsEverything), strings.Join(f.Reasons, ", ")}
	}
	p.line("")
	p.table([]string{"ITEM", "POINT", "TIME", "STAYS", "BECAUSE"}, rows)
	p.line("%s: %s kept, %s to go", control.Counted(len(e.Points), "point"), control.Count(kept), control.Count(int64(len(e.Points))-kept))
}

// fate says how long a point stays; everything tells that its policy lets none go.
func (p *page) fate(f control.PointFate, everything bool) string {
	switch {
	case !f.Goes.IsZero():
		return "goes after " + when(f.Goes, p.now)
	case !f.Keep:
		return "goes with the next prunes"
	case everything:
		return "always"
	case f.Pinned:
		return "until it is released"
	case f.Expires.IsZero():
		return "until the next backups"
	}
	return "not before " + f.Expires.In(p.now.Location()).Format("2006-01-02")
}
