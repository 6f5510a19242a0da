package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) vaultModeCmd() *cobra.Command {
	var given string
	var detach bool
	cmd := &cobra.Command{
		Use:   "mode NAME [customer-managed]",
		Short: "Show a vault's mode, or raise it for ever",
		Long: `Show a vault's mode, or raise it from software to customer-managed: then no key in
a file can be among its keys again, every item gets a new secret, and there is no
way back. Name keys in an HSM or Key Vault for the vault in the configuration
first. It asks for the vault's name; a script says it with --confirm.`,
		Example: `  coffer vault mode site
  coffer vault mode site customer-managed
  coffer vault mode site customer-managed --confirm site`,
		Args: takes(1, 2, "a vault and a mode"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.showMode(cmd.Context(), args[0])
			}
			switch req := (control.VaultMode{Vault: args[0], Mode: args[1]}); req.Mode {
			case control.ModeCustomerManaged:
				return a.raiseMode(cmd.Context(), req, given, detach)
			case control.ModeSoftware:
				return &usageError{"a vault's mode is never lowered", "for keys in files, make another vault: coffer vault create"}
			}
			return &usageError{fmt.Sprintf("mode %q is not known", args[1]), "the one that a vault can be raised to is " + control.ModeCustomerManaged}
		},
	}
	cmd.Flags().StringVar(&given, "confirm", "", "the vault's `name` again, where nobody is there to be asked")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

func (a *app) showMode(ctx context.Context, name string) error {
	v, err := a.Vault(ctx, name)
	if err != nil {
		return err
	}
	return a.print(control.VaultMode{Vault: v.Name, Mode: v.Mode}, func(p *page) {
		switch v.Mode {
		case control.ModeCustomerManaged:
			p.line("%s is customer-managed, for ever: no key in a file can be among its keys", safe(v.Name))
		case control.ModeSoftware:
			p.line("%s is software: keys in files can be among its keys", safe(v.Name))
			p.line("  raise it, for ever: coffer vault mode %s customer-managed", safe(v.Name))
		case "":
			p.line("%s: its mode is not known; its keys are %s", safe(v.Name), safe(p.state(v)))
		default:
			p.line("%s is %s", safe(v.Name), safe(v.Mode))
		}
	})
}

func (a *app) raiseMode(ctx context.Context, req control.VaultMode, given string, detach bool) error {
	err := a.confirm(ctx, confirmation{
		verb: "vault mode", what: "vault", name: req.Vault, given: given,
		warn: func(ctx context.Context, p *page) error {
			v, err := a.Vault(ctx, req.Vault)
			if err != nil {
				return err
			}
			if v.Mode == control.ModeCustomerManaged {
				return &control.Error{
					Code: control.CodeConflict, Message: "vault " + req.Vault + " is customer-managed already", Next: "see it: coffer vault show " + req.Vault,
				}
			}
			p.line("Vault %s becomes customer-managed, for ever: no key in a file can be among its keys", safe(req.Vault))
			p.line("again, and every item gets a new secret. There is no way back.")
			return nil
		},
	})
	if err != nil {
		return err
	}
	j, err := a.RaiseMode(ctx, req)
	if err != nil {
		return err
	}
	return a.through(ctx, j, detach)
}
