package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) pointCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "point", Short: "Look into recovery points, hold and forget them", RunE: group}
	cmd.AddCommand(a.pointListCmd(), a.pointShowCmd(), a.pointLsCmd(), a.pointDiffCmd(), a.pointHoldCmd(), a.pointReleaseCmd(), a.pointForgetCmd())
	return cmd
}

func (a *app) pointListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list [ITEM]",
		Short:   "List the points of an item, or of all",
		Example: "  coffer point list\n  coffer point list etc",
		Args:    takes(0, 1, "one item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			item := strings.Join(args, "")
			points, err := a.Points(cmd.Context(), item)
			if err != nil {
				return err
			}
			return a.print(points, func(p *page) { p.points(item, points) })
		},
	}
}

func (p *page) points(item string, points []control.Point) {
	if len(points) == 0 && item != "" {
		p.line("%s has no points. Make one: coffer backup %s", safe(item), safe(item))
		return
	}
	if len(points) == 0 {
		p.line("There are no points.")
		return
	}
	rows := make([][]string, len(points))
	for i, pt := range points {
		skipped := ""
		if pt.Stats.Skipped > 0 {
			skipped = count(pt.Stats.Skipped)
		}
		rows[i] = []string{
			pt.Item, pt.ID, when(pt.Time, p.now), count(pt.Stats.Files), size(pt.Stats.SourceBytes),
			size(pt.Stats.NewBytes), size(pt.Stats.StoredBytes), skipped, strings.Join(pt.Tags, ","), p.pointState(pt),
		}
	}
	p.table([]string{"ITEM", "POINT", "TIME", ">FILES", ">SOURCE", ">NEW", ">STORED", ">SKIPPED", "TAGS", "STATE"}, rows)
}

// pointState says what is to be known of a point besides what it holds.
func (p *page) pointState(pt control.Point) string {
	var s []string
	if pt.Damaged {
		s = append(s, "damaged")
	}
	if len(pt.Holds) > 0 {
		s = append(s, "held")
	}
	if !pt.Goes.IsZero() {
		s = append(s, "goes after "+when(pt.Goes, p.now))
	}
	return strings.Join(s, ", ")
}

func (a *app) pointShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "show ITEM[@POINT]",
		Short:   "Show a point",
		Example: "  coffer point show etc@latest",
		Args:    takes(1, 1, "an item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			item, point, err := splitPoint(args[0])
			if err != nil {
				return err
			}
			pt, err := a.Point(cmd.Context(), item, point)
			if err != nil {
				return err
			}
			return a.print(pt, func(p *page) { p.point(pt) })
		},
	}
}

func (p *page) point(pt control.Point) {
	s := pt.Stats
	p.fact("point", pt.ID)
	p.fact("item", pt.Item)
	p.fact("vault", pt.Vault)
	p.fact("time", when(pt.Time, p.now))
	p.fact("host", pt.Host)
	p.fact("kind", pt.Kind)
	p.fact("tags", strings.Join(pt.Tags, ", "))
	p.fact("roots", strings.Join(pt.Roots, ", "))
	p.fact("holds", counted(s.Files, "file")+" and "+counted(s.Dirs, "directory")+", "+size(s.SourceBytes))
	p.fact("changed", counted(s.Changed, "file")+", "+size(s.ReadBytes)+" read")
	p.fact("new", size(s.NewBytes)+", "+size(s.StoredBytes)+" stored")
	if s.Changing > 0 {
		p.fact("not still", counted(s.Changing, "file"))
	}
	if s.Skipped > 0 {
		p.fact("skipped", counted(s.Skipped, "entry"))
	}
	p.fact("took", lasting(seconds(s.Seconds)))
	if pt.Damaged {
		p.fact("damaged", "a verify found that it does not restore as a whole: coffer verify "+pt.Item+"@"+pt.ID)
	}
	if !pt.Goes.IsZero() {
		p.fact("goes", "after "+when(pt.Goes, p.now))
	}
	for _, h := range pt.Holds {
		p.fact("held", fmt.Sprintf("for %s since %s: %s (%s)", h.Owner, when(h.Since, p.now), h.Reason, h.ID))
	}
}

// entryTime writes a time in one width, whatever its distance.
func entryTime(t time.Time, now time.Time) string {
	return t.In(now.Location()).Format("2006-01-02 15:04:05")
}
