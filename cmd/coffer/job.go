package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) jobCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "Show, follow and cancel jobs", RunE: group}
	cmd.AddCommand(a.jobListCmd(), a.jobShowCmd(), a.jobWatchCmd(), a.jobCancelCmd())
	return cmd
}

// jobOf asks for the job that an argument is the number of.
func jobOf(c *control.Client, ctx context.Context, arg string) (control.Job, error) {
	id, err := strconv.ParseInt(strings.TrimPrefix(arg, "#"), 10, 64)
	if err != nil || id <= 0 {
		return control.Job{}, &usageError{fmt.Sprintf("%q is not the number of a job", arg), "coffer job list shows them"}
	}
	return c.Job(ctx, id)
}

func (a *app) jobListCmd() *cobra.Command {
	var f control.JobFilter
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List jobs, the newest first",
		Example: "  coffer job list\n  coffer job list --item etc --state failed",
		Args:    takes(0, 0, ""),
		RunE: listing(a, func(c *control.Client, ctx context.Context) ([]control.Job, error) {
			if err := jobFilter(f); err != nil {
				return nil, err
			}
			return c.Jobs(ctx, f)
		}, "There are no such jobs.", (*page).jobs),
	}
	cmd.Flags().StringVar(&f.Item, "item", "", "only of this `item`")
	cmd.Flags().StringVar((*string)(&f.State), "state", "", "only in this `state`: queued, running, done, failed, cancelled")
	cmd.Flags().IntVar(&f.Limit, "limit", 0, "at most `N` of them")
	return cmd
}

// jobFilter refuses what no job could be.
func jobFilter(f control.JobFilter) error {
	states := []control.JobState{control.JobQueued, control.JobRunning, control.JobDone, control.JobFailed, control.JobCancelled}
	switch {
	case f.State != "" && !slices.Contains(states, f.State):
		return &usageError{fmt.Sprintf("--state %q is not known", string(f.State)), "use queued, running, done, failed or cancelled"}
	case f.Limit < 0:
		return &usageError{fmt.Sprintf("--limit %d makes no sense", f.Limit), "use 1 or more"}
	}
	return nil
}

func (p *page) jobs(jobs []control.Job) {
	rows := make([][]string, len(jobs))
	for i, j := range jobs {
		policy := j.Policy
		if j.Try > 1 {
			policy += fmt.Sprintf(", try %d", j.Try)
		}
		rows[i] = []string{strconv.FormatInt(j.ID, 10), j.Kind, j.Item, j.Vault, policy, p.jobState(j), when(j.Queued, p.now), p.jobTime(j)}
	}
	p.table([]string{"JOB", "KIND", "ITEM", "VAULT", "POLICY", "STATE", "ASKED FOR", ">TOOK"}, rows)
}

// jobState says how a job is in a few words.
func (p *page) jobState(j control.Job) string {
	s := string(j.State)
	if done, total := share(j.Progress); j.State == control.JobRunning && total > 0 {
		s += fmt.Sprintf(", %d %%", done*100/total)
	}
	if j.Progress.Skipped > 0 {
		s += ", " + control.Count(j.Progress.Skipped) + " skipped"
	}
	return s
}

func (p *page) jobTime(j control.Job) string {
	switch {
	case j.Started.IsZero():
		return ""
	case j.Ended.IsZero():
		return lasting(p.now.Sub(j.Started))
	}
	return lasting(j.Ended.Sub(j.Started))
}

func (a *app) jobShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "show JOB",
		Short:   "Show a job, and the entries that it skipped",
		Example: "  coffer job show 118",
		Args:    takes(1, 1, "the number of a job"),
		RunE:    showing(a, jobOf, (*page).job),
	}
}

func (p *page) job(j control.Job) {
	p.fact("job", strconv.FormatInt(j.ID, 10))
	p.fact("kind", j.Kind)
	p.fact("item", j.Item)
	p.fact("vault", j.Vault)
	p.fact("point", j.Point)
	p.fact("state", p.jobState(j))
	p.fact("asked for", when(j.Queued, p.now))
	p.fact("by", j.By)
	p.fact("policy", j.Policy)
	if j.Try > 0 {
		p.fact("try", strconv.Itoa(j.Try))
	}
	if j.Priority != 0 {
		p.fact("priority", strconv.Itoa(j.Priority))
	}
	p.fact("took", p.jobTime(j))
	p.fault(j.Error)
	if j.Result != nil {
		p.line("")
		p.result(control.Job{ID: j.ID, Item: j.Item, Vault: j.Vault, Kind: j.Kind, Point: j.Point, Result: j.Result})
	}
	if j.Output != "" {
		p.line("")
		p.line("its hooks printed:")
		for l := range strings.Lines(j.Output) {
			p.line("  %s", safe(strings.TrimRight(l, "\r\n")))
		}
	}
	if len(j.Skips) == 0 {
		return
	}
	p.line("")
	p.line("skipped:")
	for _, s := range j.Skips {
		p.line("  %s: %s", safe(s.Path), safe(s.Reason))
	}
	if more := j.Progress.Skipped - int64(len(j.Skips)); more > 0 {
		p.line("  and %s more, in the agent's log", control.Count(more))
	}
}

func (a *app) jobWatchCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "watch JOB",
		Short: "Follow a job to its end",
		Long: `Follow a job to its end, with its exit code. Ctrl-C stops watching; the job goes
on.`,
		Example: "  coffer job watch 118",
		Args:    takes(1, 1, "the number of a job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			j, err := jobOf(a.Client, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			d := a.newDrawer(j)
			j, err = a.follow(cmd.Context(), j, d)
			d.close()
			if err != nil {
				return err
			}
			return a.finish(j)
		},
	}
}

func (a *app) jobCancelCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "cancel JOB",
		Short:   "Ask a job to stop",
		Example: "  coffer job cancel 118",
		Args:    takes(1, 1, "the number of a job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			j, err := jobOf(a.Client, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.Cancel(cmd.Context(), j.ID); err != nil {
				return err
			}
			if j, err = a.Job(cmd.Context(), j.ID); err != nil {
				return err
			}
			return a.print(j, func(p *page) { p.line("job %d is %s", j.ID, j.State) })
		},
	}
}
