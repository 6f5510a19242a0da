package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyDrillCmd() *cobra.Command {
	var req control.KeyDrill
	var detach bool
	cmd := &cobra.Command{
		Use:   "drill VAULT",
		Short: "Prove that a vault can do without its primary key",
		Long: `Do without a vault's primary key for a while: open every secret with the other
keys, make a point of one item and read it back. Nothing is changed in the
provider, and the key is back when the drill has ended, however it ends.`,
		Example: "  coffer key drill site\n  coffer key drill site --item etc",
		Args:    takes(1, 1, "the name of a vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Vault = args[0]
			j, err := a.DrillKeys(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.through(cmd.Context(), j, detach)
		},
	}
	cmd.Flags().StringVar(&req.Item, "item", "", "the `item` to back up and read back (default: the vault's first)")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

func (p *page) drilled(r control.DrillResult) {
	p.line("%s: all goes on without %s; %s", safe(r.Vault), safe(r.Without), lasting(seconds(r.Seconds)))
	p.line("     %s opened with %s", control.Counted(r.Secrets, "secret"), safe(strings.Join(r.With, ", ")))
	if r.Point != "" {
		p.line("     point %s made, and %s read back from it", safe(r.Point), control.Size(r.Bytes))
	}
}
