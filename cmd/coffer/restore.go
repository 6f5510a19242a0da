package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) restoreCmd() *cobra.Command {
	var req control.RestoreRequest
	var detach bool
	overwrite := string(control.OverwriteIfDifferent)
	cmd := &cobra.Command{
		Use:   "restore ITEM[@POINT] TARGET",
		Short: "Write a point back to a folder",
		Long: `Write a point back to a folder on the agent's machine, under the paths that it
was kept with: /etc/fstab comes back as TARGET/etc/fstab. With / as the target
everything goes where it came from.

What is there already is compared, by size and time or, with --overwrite always,
by content, and only what differs is written. A file appears under its name only
when it is complete, and nothing is ever written outside TARGET. Ctrl-C asks the
agent to cancel; running the same command again goes on from there.`,
		Example: `  coffer restore etc /srv/restored
  coffer restore etc@2026-09-02 /srv/restored --path /etc/ssh --path /etc/fstab
  coffer restore src / --pattern '*.go' --overwrite never
  coffer restore etc / --delete --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && args[0] != "" && args[1] == "" { // not the folder that coffer was started in
				return &usageError{"the target is empty", "name a folder: coffer restore " + args[0] + " /srv/restored"}
			}
			return takes(2, 2, "an item and a target")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Item, req.Point, err = splitPoint(args[0]); err != nil {
				return err
			}
			if req.Target, err = filepath.Abs(args[1]); err != nil {
				return fmt.Errorf("find the target: %w", err)
			}
			req.Overwrite = control.Overwrite(overwrite)
			switch req.Overwrite {
			case control.OverwriteIfDifferent, control.OverwriteNever, control.OverwriteAlways:
			default:
				return &usageError{fmt.Sprintf("--overwrite %q is not known", overwrite), "use if-different, never or always"}
			}
			j, err := a.Restore(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.through(cmd.Context(), j, detach)
		},
	}
	cmd.Flags().StringArrayVar(&req.Paths, "path", nil, "only this `path` and what is below it; may be repeated")
	cmd.Flags().StringArrayVar(&req.Patterns, "pattern", nil, "only what matches this `glob`; may be repeated")
	cmd.Flags().StringVar(&overwrite, "overwrite", overwrite, "`how` files that are there are taken: if-different, never, always")
	cmd.Flags().BoolVar(&req.Delete, "delete", false, "remove what the point does not have, below the folders that it has as a whole")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().BoolVar(&req.NumericOwner, "numeric-owner", false, "restore user and group ids as they are, without looking up names")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

func (p *page) restored(j control.Job, r control.RestoreResult) {
	verb := "restored to"
	if r.DryRun {
		verb = "would be restored to"
	}
	p.line("%s: point %s %s %s", safe(j.Item), safe(j.Point), verb, safe(r.Target))
	text := fmt.Sprintf("%s, %s; %s written, %s; %s right already",
		control.Counted(r.Files, "file"), control.Size(r.Bytes), control.Count(r.Files-r.Unchanged-r.Kept), control.Size(r.WrittenBytes), control.Count(r.Unchanged))
	if r.Kept > 0 {
		text += "; " + control.Count(r.Kept) + " left as they are"
	}
	if r.Deleted > 0 {
		removed := " removed"
		if r.DryRun {
			removed = " would be removed"
		}
		text += "; " + control.Count(r.Deleted) + removed
	}
	p.line("     %s; %s", text, lasting(seconds(r.Seconds)))
}
