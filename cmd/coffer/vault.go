package main

import (
	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) vaultCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "vault", Short: "Make and show vaults", RunE: group}
	cmd.AddCommand(a.vaultCreateCmd(), a.vaultListCmd(), a.vaultShowCmd(), a.vaultModeCmd())
	return cmd
}

func (a *app) vaultCreateCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "create NAME",
		Short: "Make a vault that the configuration names",
		Long: `Make a vault in the store, and under the keys, that the configuration names.

It prints the vault's id and a recovery sheet. Put the sheet where you find it
when this machine is gone; it holds no secret. The agent remembers the id; put it
into the configuration as well, to pin the vault where there is no state yet.`,
		Example: `  coffer vault create site
  coffer vault create site --json | jq -r .recovery_sheet | lp`,
		Args: takes(1, 1, "the name of a vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := a.CreateVault(cmd.Context(), control.VaultCreate{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(v, func(p *page) {
				p.line("%s: vault %s made in %s", safe(v.Name), safe(v.ID), safe(v.Store))
				for _, w := range v.Warnings {
					p.line("  warning  %s", safe(said(w, "vault "+v.Name)))
				}
				p.line("")
				p.line("%s", safeText(v.RecoverySheet))
			})
		},
	}
}

func (a *app) vaultListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the vaults",
		Example: "  coffer vault list",
		Args:    takes(0, 0, ""),
		RunE:    listing(a, (*control.Client).Vaults, "The configuration names no vaults.", (*page).vaults),
	}
}

func (a *app) vaultShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a vault and its keys",
		Example: "  coffer vault show site",
		Args:    takes(1, 1, "the name of a vault"),
		RunE:    showing(a, (*control.Client).Vault, (*page).vault),
	}
}

func (p *page) vault(v control.Vault) {
	p.fact("vault", v.Name)
	p.fact("id", v.ID)
	p.fact("store", v.Store)
	p.fact("keys are", p.state(v))
	if !v.Since.IsZero() && v.State != control.StateAccessible {
		p.fact("since", when(v.Since, p.now))
	}
	if v.Error != nil {
		e := *v.Error
		e.Message = said(e.Message, "vault "+v.Name)
		p.fault(&e)
	}
	p.fact("mode", v.Mode)
	if len(v.Owed) > 0 {
		p.fact("owed to", owed(v))
	}
	if !v.Created.IsZero() {
		p.fact("made", when(v.Created, p.now))
	}
	if len(v.Keys) > 0 {
		p.line("")
		p.keys(v.Keys)
	}
	if len(v.Coverage) > 0 {
		p.line("")
		p.coverage(v.Coverage)
	}
	if len(v.Warnings) > 0 {
		p.line("")
	}
	for _, w := range v.Warnings {
		p.line("warning: %s: %s", safe(w.Subject), safe(w.Message))
		if w.Next != "" {
			p.line("  next    %s", safe(w.Next))
		}
	}
}
