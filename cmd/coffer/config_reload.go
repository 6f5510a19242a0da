package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) configReloadCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the agent read its configuration file anew",
		Long: `Have the agent read its configuration file anew. If there is a mistake in it, or
something that only a restart can take up, nothing is changed, and the exit code is
1. What runs goes on as it was begun. What may surprise is said: items that nothing
backs up any more, and points that may go.`,
		Example: "  coffer config reload",
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.Version(cmd.Context())
			if err != nil {
				return err
			}
			report, err := a.ReloadConfig(cmd.Context())
			if err != nil {
				return err
			}
			if len(report.Problems) > 0 {
				a.code = control.ExitFailed
			}
			return a.print(report, func(p *page) { p.reloaded(cmp.Or(v.Config, "the configuration"), report) })
		},
	}
}

func (p *page) reloaded(name string, r control.ConfigReport) {
	if len(r.Problems) == 0 {
		p.line("%s is what the agent goes by now: %s", safe(name), configured(r))
		for _, note := range r.Notes {
			p.line("     note: %s", safe(note))
		}
		return
	}
	p.report(name, r)
	p.line("The agent goes on with the configuration that it had: %s to mend.", control.Counted(len(r.Problems), "problem"))
}
