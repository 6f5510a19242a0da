package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyLinkCmd() *cobra.Command {
	var restoreOnly bool
	cmd := &cobra.Command{
		Use:   "link VAULT URI --restore-only",
		Short: "Open a vault with one more key, to restore",
		Long: `Open a vault with one more key: an old one that points still need, or one that
came back. The key only opens; nothing new is wrapped with it. It stays until it
is unlinked. URI is as in the configuration, and has no PIN or passphrase in it.`,
		Example: `  coffer key link site 'file:///root/escrow.pem?passphrase-source=file:/root/pass' --restore-only
  coffer key link site https://corp.vault.azure.net/keys/backup/0123abcd --restore-only`,
		Args: takes(2, 2, "a vault and the uri of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !restoreOnly {
				return &usageError{
					"key link is for keys that only open: what new secrets are wrapped with, the configuration alone says",
					"add --restore-only, or name the key in the configuration, under keys and under the vault's keys",
				}
			}
			return a.link(cmd.Context(), control.KeyLink{Vault: args[0], URI: args[1], RestoreOnly: true},
				"linked: asked to open, and never to wrap, until it is unlinked")
		},
	}
	cmd.Flags().BoolVar(&restoreOnly, "restore-only", false, "open with it, and never wrap; it must be said")
	return cmd
}

func (a *app) keyUnlinkCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "unlink VAULT URI",
		Short: "Open a vault no more with a key that was linked",
		Long: `Open a vault no more with a key that was linked, by the same uri. Before, see what
that loses: coffer key usage.`,
		Example: "  coffer key unlink site https://corp.vault.azure.net/keys/backup/0123abcd",
		Args:    takes(2, 2, "a vault and the uri of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.link(cmd.Context(), control.KeyLink{Vault: args[0], URI: args[1], Unlink: true}, "unlinked; this key opens it no more")
		},
	}
}

// link links or unlinks a key, and shows the keys that the vault has then.
func (a *app) link(ctx context.Context, req control.KeyLink, done string) error {
	v, err := a.LinkKey(ctx, req)
	if err != nil {
		return err
	}
	return a.print(v, func(p *page) {
		p.line("%s: %s", safe(v.Name), done)
		if len(v.Keys) > 0 {
			p.line("")
			p.keys(v.Keys)
		}
	})
}
