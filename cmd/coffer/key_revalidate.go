package main

import (
	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyRevalidateCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "revalidate VAULT",
		Short: "Use a vault again whose keys were away too long",
		Long: `Use a vault again whose keys were denied or gone for more than 30 minutes. Each key
version in use is tried first. Before, find out why access was taken away: somebody
may have meant it.`,
		Example: "  coffer key revalidate site",
		Args:    takes(1, 1, "the name of a vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := a.Revalidate(cmd.Context(), control.KeyRevalidate{Vault: args[0]})
			if err != nil {
				return err
			}
			return a.print(v, func(p *page) {
				p.line("%s: confirmed; its keys are %s", safe(v.Name), safe(p.state(v)))
				p.fault(v.Error)
			})
		},
	}
}
