package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) pruneCmd() *cobra.Command {
	var req control.PruneRequest
	var detach bool
	cmd := &cobra.Command{
		Use:   "prune [ITEM]",
		Short: "Remove what no policy keeps any more",
		Long: `Mark the points that no policy keeps and the data that nothing needs, and remove
what was marked longer ago than the grace time of its vault, of one item or of all.
Backups go on meanwhile. With --dry-run nothing is marked or removed: it says what
would be, and how much that frees.

A policy that keeps nothing of an item is refused without --allow-empty.`,
		Example: "  coffer prune --dry-run\n  coffer prune etc",
		Args:    takes(0, 1, "one item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Item = strings.Join(args, "")
			j, err := a.Prune(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.through(cmd.Context(), j, detach)
		},
	}
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().BoolVar(&req.AllowEmpty, "allow-empty", false, "also if an item has no point left")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

func (p *page) pruned(j control.Job, r control.PruneResult) {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	verdict := "nothing to do"
	if r.MarkedPoints+r.MarkedPacks+r.RemovedPoints+r.RemovedPacks+r.RepackedPacks > 0 {
		verdict = control.Size(r.FreedBytes) + " " + would + "freed"
	}
	p.line("%s: %s; %s read, %s", safe(jobLabel(j)), verdict, control.Size(r.ReadBytes), lasting(seconds(r.Seconds)))
	if r.RemovedPoints+r.RemovedPacks > 0 {
		p.line("     %sremoved: %s, %s", would, control.Counted(r.RemovedPoints, "point"), control.Counted(r.RemovedPacks, "pack"))
	}
	if r.MarkedPoints+r.MarkedPacks > 0 {
		goes := ""
		if !r.Goes.IsZero() {
			goes = ", to go after " + when(r.Goes, p.now)
		}
		p.line("     %smarked: %s, %s, %s%s", would, control.Counted(r.MarkedPoints, "point"), control.Counted(r.MarkedPacks, "pack"), control.Size(r.MarkedBytes), goes)
	}
	if r.RepackedPacks > 0 {
		p.line("     %srewritten: %s of which little was needed, %s", would, control.Counted(r.RepackedPacks, "pack"), control.Size(r.RepackedBytes))
	}
	if r.RescuedPacks > 0 {
		p.line("     kept after all: %s that newer points need", control.Counted(r.RescuedPacks, "pack"))
	}
	if r.Locked > 0 {
		until := ""
		if !r.LockedUntil.IsZero() {
			until = " until " + when(r.LockedUntil, p.now)
		}
		p.line("     locked by the store%s: %s", until, control.Counted(r.Locked, "object"))
	}
	if r.Waiting > 0 {
		p.line("     waiting: %s not ended; what was marked before stays until then", has(r.Waiting, "backup"))
	}
	for _, it := range r.Items {
		if it.Says != "" {
			p.line("     %s: %s", safe(it.Item), safe(it.Says))
		}
		if it.Error != nil {
			p.line("     %s: %s", safe(it.Item), safe(said(it.Error.Message, "")))
			p.detail("next", it.Error.Next)
		}
	}
}

// has writes how many things have done something: "1 backup has", "2 backups have".
func has(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing + " has"
	}
	return control.Counted(n, thing) + " have"
}
