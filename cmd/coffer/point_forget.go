package main

import (
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) pointForgetCmd() *cobra.Command {
	var req control.PointForget
	cmd := &cobra.Command{
		Use:   "forget ITEM@ID...",
		Short: "Ask for points to go before their policy lets them",
		Long: `Ask for points of one item to go, whatever its policy says. They stay for the grace
time of their vault and are removed by the first prune after it; until then a hold
keeps them. A point that is held is refused, and so is the last point of an item
without --allow-empty.

Each point is named by its whole id, as coffer point list shows it. A date, latest or
the beginning of an id is refused: the answer names the point that it picks.`,
		Example: "  coffer point forget etc@2026-09-02T02:00:00Z-a1b2",
		Args:    takes(1, math.MaxInt, "at least one point"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				if req.Item != "" && !strings.Contains(arg, "@") {
					return &usageError{"which point is meant by " + strconv.Quote(arg) + " is not said: each has its item", "write " + req.Item + "@" + arg}
				}
				item, point, err := namedPoint(arg)
				if err != nil {
					return err
				}
				if req.Item != "" && req.Item != item {
					return &usageError{
						"points of " + req.Item + " and of " + item + " are not forgotten in one go",
						"run it once for each item",
					}
				}
				req.Item, req.Points = item, append(req.Points, point)
			}
			gone, err := a.ForgetPoints(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.print(gone, func(p *page) { p.forgotten(gone) })
		},
	}
	cmd.Flags().BoolVar(&req.AllowEmpty, "allow-empty", false, "also if the item has no point left")
	return cmd
}

func (p *page) forgotten(points []control.Point) {
	for _, pt := range points {
		if pt.Goes.IsZero() { // nothing marks it to go: it is not there
			p.line("%s@%s: it was gone before, and is forgotten now", safe(pt.Item), safe(pt.ID))
			continue
		}
		p.line("%s@%s: goes after %s; to keep it: coffer point hold %[1]s@%[2]s", safe(pt.Item), safe(pt.ID), when(pt.Goes, p.now))
	}
}
