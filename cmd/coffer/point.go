package main

import (
	"fmt"
	"io"
	"iter"
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
	var req control.PointsRequest
	cmd := &cobra.Command{
		Use:     "list [ITEM]",
		Short:   "List the points of an item, or of all",
		Long:    "List the points of an item, the oldest first, or those of all items, item by item.",
		Example: "  coffer point list\n  coffer point list etc --last 5",
		Args:    takes(0, 1, "one item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("last") && (req.Last < 1 || req.Last > control.MaxLast) {
				return &usageError{fmt.Sprintf("--last takes 1 to %d, and is %d", control.MaxLast, req.Last), "leave it out to see all"}
			}
			req.Item = strings.Join(args, "")
			points := a.Points(cmd.Context(), req)
			if a.json {
				return array(a.out, points)
			}
			return a.points(req.Item, points)
		},
	}
	cmd.Flags().IntVar(&req.Last, "last", 0, "only the newest `N` of each item")
	return cmd
}

// pointRows is how many points are gathered before they are shown.
const pointRows = 1000

// points shows points as they come.
func (a *app) points(item string, points iter.Seq2[control.Point, error]) error {
	t := newTable([]string{"ITEM", "POINT", "TIME", ">FILES", ">SOURCE", ">NEW", ">STORED", ">SKIPPED", "TAGS", "STATE"})
	var rows [][]string
	p := &page{now: a.now()}
	show := func() error {
		if len(rows) > 0 {
			t.add(p, rows)
		}
		_, err := io.WriteString(a.out, p.String())
		rows = rows[:0]
		p.Reset()
		return unwritten(err)
	}
	for pt, err := range points {
		if err != nil {
			show() //nolint:errcheck // there is an error already
			return err
		}
		if rows = append(rows, p.pointRow(pt)); len(rows) == pointRows {
			if err := show(); err != nil {
				return err
			}
		}
	}
	switch none := len(rows) == 0 && !t.begun; {
	case none && item != "":
		p.line("%s has no points. Make one: coffer backup %s", safe(item), safe(item))
	case none:
		p.line("There are no points.")
	}
	return show()
}

func (p *page) pointRow(pt control.Point) []string {
	skipped := ""
	if pt.Stats.Skipped > 0 {
		skipped = control.Count(pt.Stats.Skipped)
	}
	return []string{
		pt.Item, pt.ID, when(pt.Time, p.now), control.Count(pt.Stats.Files), control.Size(pt.Stats.SourceBytes),
		control.Size(pt.Stats.NewBytes), control.Size(pt.Stats.StoredBytes), skipped, strings.Join(pt.Tags, ","), p.pointState(pt),
	}
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
	p.fact("holds", control.Counted(s.Files, "file")+" and "+control.Counted(s.Dirs, "directory")+", "+control.Size(s.SourceBytes))
	p.fact("changed", control.Counted(s.Changed, "file")+", "+control.Size(s.ReadBytes)+" read")
	p.fact("new", control.Size(s.NewBytes)+", "+control.Size(s.StoredBytes)+" stored")
	if s.Changing > 0 {
		p.fact("not still", control.Counted(s.Changing, "file"))
	}
	if s.Skipped > 0 {
		p.fact("skipped", control.Counted(s.Skipped, "entry"))
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
