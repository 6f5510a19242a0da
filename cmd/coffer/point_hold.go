package main

import (
	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) pointHoldCmd() *cobra.Command {
	var req control.PointHold
	cmd := &cobra.Command{
		Use:   "hold ITEM@POINT --owner WHO --reason WHY",
		Short: "Keep a point until it is released",
		Long: `Put a hold on a point: no policy and no prune lets it go, and nobody can erase its
item, until the hold is released. A point may have several holds. A point that is
marked to go stays.`,
		Example: `  coffer point hold etc@2026-09-02 --owner legal --reason "case 4711"`,
		Args:    takes(1, 1, "a point"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Item, req.Point, err = namedPoint(args[0]); err != nil {
				return err
			}
			if req.Owner == "" || req.Reason == "" {
				return &usageError{
					"a hold needs --owner and --reason: whoever finds it in years must know whom to ask",
					"say both: coffer point hold " + args[0] + ` --owner legal --reason "case 4711"`,
				}
			}
			h, err := a.HoldPoint(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.print(h, func(p *page) {
				point := safe(req.Item) + "@" + safe(h.Point)
				p.line("%s: held for %s: %s", point, safe(h.Owner), safe(h.Reason))
				p.line("     release it with: coffer point release %s --hold %s", point, safe(h.ID))
			})
		},
	}
	cmd.Flags().StringVar(&req.Owner, "owner", "", "`who` answers for it: a person, a department")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "`why`: a case, a contract")
	return cmd
}

// namedPoint reads ITEM@POINT, where the point must be there: what changes a point is
// not done to whichever is the latest just then.
func namedPoint(arg string) (item, point string, err error) {
	item, point, err = splitPoint(arg)
	if err == nil && point == "" {
		err = &usageError{"which point of " + item + " is not said", "name it, " + item + "@POINT: coffer point list " + item + " shows them"}
	}
	return item, point, err
}
