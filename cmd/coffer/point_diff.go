package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) pointDiffCmd() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "diff ITEM@FROM [TO]",
		Short: "List what differs between two points",
		Long: `List what differs between two points of an item; TO is the latest if it is left
out. + was added, - was removed, M was changed, and how. With --json each
difference is one line.`,
		Example: `  coffer point diff etc@2026-09-02
  coffer point diff etc@2026-09-02 2026-09-03 --path /etc/ssh`,
		Args: takes(1, 2, "an item with a point, and another point"),
		RunE: func(cmd *cobra.Command, args []string) error {
			item, from, err := splitPoint(args[0])
			if err != nil {
				return err
			}
			if from == "" {
				return &usageError{"point diff needs a point to compare with", "write it behind the item: " + item + "@2026-09-02"}
			}
			req := control.DiffRequest{Item: item, From: from, To: "latest", Path: path}
			if len(args) == 2 {
				req.To = strings.TrimPrefix(args[1], item+"@")
			}
			if _, err := control.ParseSelector(req.To, time.UTC); err != nil {
				return &usageError{fmt.Sprintf("%q is %v", req.To, err), "coffer point list " + item + " shows what there is"}
			}
			n := map[control.Change]int64{}
			err = list(a, a.Diff(cmd.Context(), req), func(w io.Writer, e control.DiffEntry) {
				n[e.Change]++
				diffLine(w, e)
			})
			if err != nil || a.json {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s added, %s removed, %s changed\n", control.Count(n[control.Added]), control.Count(n[control.Removed]), control.Count(n[control.Changed]))
			return err
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "only this `path` and what is below it")
	return cmd
}

func diffLine(w io.Writer, e control.DiffEntry) {
	mark, more := "M", ""
	switch e.Change {
	case control.Added:
		mark = "+"
	case control.Removed:
		mark = "-"
	}
	if len(e.What) > 0 {
		more = "  (" + safe(strings.Join(e.What, ", ")) + ")"
	}
	if e.Change == control.Changed && e.OldSize != e.NewSize {
		more = "  (" + safe(strings.Join(append(e.What, control.Size(e.OldSize)+" -> "+control.Size(e.NewSize)), ", ")) + ")"
	}
	fmt.Fprintf(w, "%s %s%s\n", mark, safe(e.Path), more)
}
