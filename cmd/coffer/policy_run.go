package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) policyRunCmd() *cobra.Command {
	var req control.PolicyRun
	var detach bool
	cmd := &cobra.Command{
		Use:   "run NAME",
		Short: "Back up the items of a policy now",
		Long: `Back up the items of a policy now, outside its schedule and its windows. The
schedule goes on as it was. A backup that fails is not tried again.`,
		Example: "  coffer policy run nightly\n  coffer policy run nightly --item etc --detach",
		Args:    takes(1, 1, "the name of a policy"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			jobs, err := a.RunPolicy(cmd.Context(), req)
			if err != nil {
				return err
			}
			if detach {
				return a.print(jobs, func(p *page) { p.jobs(jobs) })
			}
			return a.all(cmd.Context(), jobs)
		},
	}
	cmd.Flags().StringVar(&req.Item, "item", "", "only this `item`")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

// all follows jobs to their ends, and shows each. It fails with the first of those
// that failed.
func (a *app) all(ctx context.Context, jobs []control.Job) error {
	var first error
	var ended []control.Job
	for _, j := range jobs {
		j, err := a.carry(ctx, j)
		if err == nil && j.State != control.JobDone {
			err = jobFault(j)
		}
		ended = append(ended, j)
		if first == nil {
			first = err
		} else if err != nil {
			a.fail(err)
		}
		if err == nil && j.Progress.Skipped > 0 {
			a.code = control.ExitSkipped
		}
		if err == nil && !a.json {
			if err := a.print(j, func(p *page) { p.result(j) }); err != nil {
				return err
			}
		}
	}
	if a.json {
		if err := writeJSON(a.out, ended); err != nil {
			return err
		}
	}
	return first
}
