package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make and list keys", RunE: group}
	cmd.AddCommand(a.keyCreateCmd(), a.keyListCmd())
	return cmd
}

func (a *app) keyCreateCmd() *cobra.Command {
	var bits int
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key where the configuration says that it is",
		Long: `Make a key where the configuration says that it is. In an HSM it is made inside,
cannot be taken out, and can do nothing but decrypt. A file is written with mode
0600, and never over another.`,
		Example: "  coffer key create main\n  coffer key create main --bits 4096",
		Args:    takes(1, 1, "the name of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := a.CreateKey(cmd.Context(), control.KeyCreate{Name: args[0], Bits: bits})
			if err != nil {
				return err
			}
			return a.print(k, func(p *page) {
				p.line("%s: key made, RSA of %d bits", safe(keyLabel(k)), k.Bits)
				p.fact("  uri", k.URI)
				p.fact("  fingerprint", k.Fingerprint)
			})
		},
	}
	cmd.Flags().IntVar(&bits, "bits", 0, "`size` of the key: 2048, 3072 or 4096 (default: the agent's)")
	return cmd
}

func (a *app) keyListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys",
		Example: "  coffer key list",
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := a.Keys(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(keys, func(p *page) {
				if len(keys) == 0 {
					p.line("The configuration names no keys.")
					return
				}
				p.keys(keys)
			})
		},
	}
}

func (p *page) keys(keys []control.Key) {
	rows := make([][]string, len(keys))
	for i, k := range keys {
		bits, print := "", k.Fingerprint
		if k.Bits > 0 {
			bits = "RSA " + strconv.Itoa(k.Bits)
		}
		if len(print) > 16 {
			print = print[:16]
		}
		state := "answers"
		if k.Error != nil {
			state = k.Error.Message
		}
		rows[i] = []string{keyLabel(k), bits, k.Algorithm, print, k.URI, state}
	}
	p.table([]string{"KEY", "KIND", "WRAPS WITH", "FINGERPRINT", "WHERE", "STATE"}, rows)
	for _, k := range keys {
		if k.Error != nil && k.Error.Next != "" {
			p.line("%s: next  %s", safe(k.Name), safe(k.Error.Next))
		}
	}
}
