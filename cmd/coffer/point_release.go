package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) pointReleaseCmd() *cobra.Command {
	var req control.PointRelease
	var all bool
	cmd := &cobra.Command{
		Use:   "release ITEM@POINT [--hold ID | --all]",
		Short: "Take a hold from a point",
		Long: `Take a hold from a point. From then on it stays or goes by its policy. If it has
several holds, --hold says which one is meant, or --all that all of them are.`,
		Example: "  coffer point release etc@2026-09-02\n  coffer point release etc@2026-09-02 --hold h7",
		Args:    takes(1, 1, "a point"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Item, req.Point, err = namedPoint(args[0]); err != nil {
				return err
			}
			if all && req.Hold != "" {
				return &usageError{"--hold and --all do not go together", "leave out one of them"}
			}
			before, err := a.Point(cmd.Context(), req.Item, req.Point)
			if err != nil {
				return err
			}
			req.Point = before.ID // the same point, whatever happens meanwhile
			if len(before.Holds) > 1 && !all && req.Hold == "" {
				return &usageError{
					fmt.Sprintf("%s@%s has %s, and which one is meant is not said", req.Item, req.Point, control.Counted(len(before.Holds), "hold")),
					"see them: coffer point show " + req.Item + "@" + req.Point + "; then add --hold ID, or --all",
				}
			}
			after, err := a.ReleasePoint(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.print(after, func(p *page) { p.released(after, len(before.Holds)-len(after.Holds)) })
		},
	}
	cmd.Flags().StringVar(&req.Hold, "hold", "", "the hold with this `id`, as coffer point show has it")
	cmd.Flags().BoolVar(&all, "all", false, "all holds")
	return cmd
}

func (p *page) released(pt control.Point, n int) {
	p.line("%s@%s: %s released", safe(pt.Item), safe(pt.ID), control.Counted(n, "hold"))
	p.holds(pt.Holds)
	switch {
	case len(pt.Holds) > 0:
	case !pt.Goes.IsZero():
		p.line("     it goes after %s; to keep it: coffer point hold %s@%s", when(pt.Goes, p.now), safe(pt.Item), safe(pt.ID))
	default:
		p.line("     it stays or goes by its policy now")
	}
}

// holds says who keeps a point.
func (p *page) holds(holds []control.Hold) {
	for _, h := range holds {
		p.line("     still held for %s since %s: %s (%s)", safe(h.Owner), when(h.Since, p.now), safe(h.Reason), safe(h.ID))
	}
}
