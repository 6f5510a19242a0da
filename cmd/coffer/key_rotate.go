package main

import (
	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyRotateCmd() *cobra.Command {
	var req control.KeyRotate
	var detach bool
	cmd := &cobra.Command{
		Use:   "rotate VAULT",
		Short: "Wrap a vault's secrets with the keys in use now",
		Long: `Wrap every secret of a vault with the keys, and the versions of them, that the
configuration has, as the agent last read it: a change counts from coffer config
reload on. No pack is touched. What was broken off goes on where it stopped, with
the same command. An old version stays linked until nothing needs it: coffer key
usage says when.

With --new-version the provider first makes a new version of the primary key. With
--new-generation every item also gets a new secret, for what is backed up from now
on: for when an old key is in other hands. That key still opens what is there
already, and the result says what that is.`,
		Example: `  coffer key rotate site
  coffer key rotate site --new-version
  coffer key rotate site --new-generation`,
		Args: takes(1, 1, "the name of a vault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Vault = args[0]
			j, err := a.RotateKeys(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.through(cmd.Context(), j, detach)
		},
	}
	cmd.Flags().BoolVar(&req.NewVersion, "new-version", false, "first make a new version of the primary key")
	cmd.Flags().BoolVar(&req.NewGeneration, "new-generation", false, "also give every item a new secret")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

// rewrapped says what a rotation did, and what it could not do.
func (p *page) rewrapped(r control.RekeyResult) {
	if r.Rewrapped == 0 {
		p.line("%s: none of %s needed a new wrapping; %s", safe(r.Vault), control.Counted(r.Secrets, "secret"), lasting(seconds(r.Seconds)))
	} else {
		p.line("%s: %s of %s wrapped anew; %s", safe(r.Vault), control.Count(int64(r.Rewrapped)), control.Counted(r.Secrets, "secret"), lasting(seconds(r.Seconds)))
	}
	if r.Rewrapped == 0 && r.Made == 0 {
		p.line("     the configuration counts as the agent last read it; if it was changed since: coffer config reload")
	}
	p.line("     %s to providers, %s written, no pack touched", control.Counted(r.Unwraps, "call"), control.Size(r.Bytes))
	if r.Made > 0 {
		p.line("     %s made, for what is backed up from now on", control.Counted(r.Made, "new generation"))
	}
	if r.Mode != "" {
		p.line("     the vault is %s", safe(r.Mode))
	}
	if len(r.Coverage) > 0 {
		p.line("")
		p.coverage(r.Coverage)
	}
	if len(r.Opens) == 0 {
		return
	}
	p.line("")
	p.line("What an old key still opens, and what not:")
	for _, what := range r.Opens {
		p.line("  %s", safe(what))
	}
}
