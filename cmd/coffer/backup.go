package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) backupCmd() *cobra.Command {
	var req control.BackupRequest
	var stdin, detach bool
	var name string
	cmd := &cobra.Command{
		Use:   "backup ITEM",
		Short: "Make a point of an item now",
		Long: `Make a point of an item now, and wait for it. Files that look unchanged since the
last point are not read.

With --stdin the data of an item of kind stream comes from standard input.
The end of a pipe is taken for the end of the data, even if the program in front of
it died; where that matters, let the item's stream run the command: then its exit
code decides. If coffer itself dies, there is no point.

Ctrl-C asks the agent to cancel; what was stored already is used by the next
backup. A second Ctrl-C leaves the job to the agent.`,
		Example: `  coffer backup etc
  coffer backup etc --detach
  pg_dumpall | coffer backup db --stdin --name all.sql`,
		Args: takes(1, 1, "the name of an item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Item = args[0]
			switch {
			case !stdin && name != "":
				return &usageError{"--name is the name of what --stdin reads", "add --stdin"}
			case stdin && detach:
				return &usageError{"--stdin and --detach do not go together", "leave --detach out: somebody has to send the data"}
			case stdin && a.inTerminal:
				return &usageError{"standard input is the terminal", "redirect it: coffer backup " + req.Item + " --stdin < dump"}
			case stdin:
				req.Input = &control.BackupInput{Name: name}
			}
			j, err := a.Backup(cmd.Context(), req)
			if err != nil {
				return err
			}
			if stdin {
				return a.carryInput(cmd.Context(), j)
			}
			return a.through(cmd.Context(), j, detach)
		},
	}
	cmd.Flags().BoolVar(&stdin, "stdin", false, "read the data from standard input")
	cmd.Flags().StringVar(&name, "name", "", "with --stdin: the `name` of the file in the point")
	cmd.Flags().StringArrayVar(&req.Tags, "tag", nil, "a `word` to find the point by; may be repeated")
	cmd.Flags().BoolVar(&req.FullRead, "full-read", false, "read files that look unchanged too")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

// carryInput sends standard input to a job and follows it to its end. What the job
// says decides, unless the data could not be read here.
func (a *app) carryInput(ctx context.Context, j control.Job) error {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	sent := make(chan error, 1)
	go func() {
		err := a.Input(sending, j.ID, a.in)
		if err != nil && sending.Err() == nil {
			// The job may be waiting for what will not come.
			err = errors.Join(err, a.Cancel(sending, j.ID))
		}
		sent <- err
	}()
	end, err := a.carry(ctx, j)
	stop()
	inputErr := <-sent
	if err != nil {
		return err
	}
	if end.State != control.JobDone && ctx.Err() == nil && inputErr != nil && control.CodeOf(inputErr) == control.CodeFailed {
		return inputErr
	}
	return a.finish(end)
}

func (p *page) backedUp(pt control.Point) {
	s := pt.Stats
	p.line("%s: point %s kept in %s", safe(pt.Item), safe(pt.ID), safe(pt.Vault))
	p.line("     %s, %s; %s changed, %s read; %s new, %s stored; %s", control.Counted(s.Files, "file"), control.Size(s.SourceBytes),
		control.Count(s.Changed), control.Size(s.ReadBytes), control.Size(s.NewBytes), control.Size(s.StoredBytes), lasting(seconds(s.Seconds)))
	if s.Changing > 0 {
		p.line("     %s would not hold still: find them with coffer point ls", control.Counted(s.Changing, "file"))
	}
}
