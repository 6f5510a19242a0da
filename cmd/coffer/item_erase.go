package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) itemEraseCmd() *cobra.Command {
	var req control.ItemErase
	cmd := &cobra.Command{
		Use:   "erase ITEM",
		Short: "Destroy an item's secrets, so that nothing opens its points",
		Long: `Destroy every wrapping of an item's secrets in the store: its points are noise from
then on, for ever. Then delete what the store lets go of. A copy of the store that
somebody made before is not reached. A key of the vault must open it. It asks for
the item's name; a script says it with --confirm.

What is under object lock stays until its date, and the result says so. If a key
record is among it, the item can still be opened until then, and the exit code is
3.`,
		Example: "  coffer item erase etc\n  coffer item erase etc --confirm etc --json",
		Args:    takes(1, 1, "the name of an item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Item = args[0]
			err := a.confirm(cmd.Context(), confirmation{
				verb: "item erase", what: "item", name: req.Item, given: req.Confirm,
				warn: func(ctx context.Context, p *page) error { return a.beforeErase(ctx, p, req.Item) },
			})
			if err != nil {
				return err
			}
			req.Confirm = req.Item
			done, err := a.EraseItem(cmd.Context(), req)
			if err != nil {
				return err
			}
			if done.LockedKeys > 0 {
				a.code = control.ExitSkipped
			}
			return a.print(done, func(p *page) { p.erased(done) })
		},
	}
	cmd.Flags().StringVar(&req.Confirm, "confirm", "", "the item's `name` again, where nobody is there to be asked")
	return cmd
}

// beforeErase says what is about to be lost.
func (a *app) beforeErase(ctx context.Context, p *page, name string) error {
	it, err := a.Item(ctx, name)
	if err != nil {
		return err
	}
	p.line("Item %s (%s) in vault %s: %s, the last good one %s.", safe(it.Name), safe(it.Source), safe(it.Vault),
		control.Counted(it.Points, "point"), when(it.LastGood, p.now))
	p.line("Its secrets are destroyed, and nobody restores any of it again.")
	return nil
}

func (p *page) erased(e control.ItemErased) {
	if e.LockedKeys == 0 {
		p.line("%s: erased; %s destroyed, and no key opens its points any more", safe(e.Item), control.Counted(e.Secrets, "secret"))
	} else {
		p.line("%s: not wholly erased; %s destroyed", safe(e.Item), control.Counted(e.Secrets, "secret"))
	}
	if e.Deleted > 0 {
		p.line("     %s deleted", control.Counted(e.Deleted, "object"))
	}
	until := "its date"
	if !e.LockedUntil.IsZero() {
		until = when(e.LockedUntil, p.now)
	}
	if noise := e.Locked - e.LockedKeys; noise > 0 {
		p.line("     %s under object lock until %s: noise without a secret", control.Counted(noise, "object"), until)
	}
	if e.LockedKeys == 0 {
		return
	}
	p.line("     %s under object lock until %s: whoever has the vault's key and the store", control.Counted(e.LockedKeys, "key record"), until)
	p.line("     can still open the item until then")
	p.line("  next    erase it again after that date: coffer item erase %s", safe(e.Item))
}
