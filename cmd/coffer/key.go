package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make, check, rotate and show keys", RunE: group}
	cmd.AddCommand(
		a.keyCreateCmd(), a.keyListCmd(), a.keyShowCmd(), a.keyCheckCmd(), a.keyUsageCmd(), a.keyLinkCmd(), a.keyUnlinkCmd(),
		a.keyRotateCmd(), a.keyRevalidateCmd(), a.keyDrillCmd(),
	)
	return cmd
}

func (a *app) keyCreateCmd() *cobra.Command {
	var req control.KeyCreate
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key where the configuration says that it is",
		Long: `Make a key where the configuration says that it is. In an HSM it is made inside,
cannot be taken out, and can do nothing but decrypt. Where there is one already, an
HSM or Key Vault gets a new version of it. A file is written with mode 0600, and
never over another.

With --hybrid a key in a file gets a second half, ML-KEM-768, and both are needed
to open what is wrapped with it: against somebody who keeps what is stored today,
to open it with a quantum computer later.`,
		Example: "  coffer key create main\n  coffer key create main --bits 4096\n  coffer key create main --hybrid",
		Args:    takes(1, 1, "the name of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			switch req.Bits {
			case 0, 2048, 3072, 4096:
			default:
				return &usageError{fmt.Sprintf("--bits %d is not the size of a key", req.Bits), "use 2048, 3072 or 4096"}
			}
			k, err := a.CreateKey(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.print(k, func(p *page) {
				p.line("%s: key made, RSA of %d bits", safe(keyLabel(k)), k.Bits)
				p.detail("uri", k.URI)
				p.detail("version", k.Version)
				p.detail("wraps with", k.Algorithm)
				p.detail("fingerprint", k.Fingerprint)
			})
		},
	}
	cmd.Flags().IntVar(&req.Bits, "bits", 0, "`size` of the key: 2048, 3072 or 4096 (default 3072)")
	cmd.Flags().BoolVar(&req.Hybrid, "hybrid", false, "add a post-quantum half; only for a key in a file")
	return cmd
}

func (a *app) keyListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys",
		Example: "  coffer key list",
		Args:    takes(0, 0, ""),
		RunE:    listing(a, (*control.Client).Keys, "The configuration names no keys.", (*page).keys),
	}
}

func (p *page) keys(keys []control.Key) {
	rows := make([][]string, len(keys))
	for i, k := range keys {
		bits := ""
		if k.Bits > 0 {
			bits = "RSA " + strconv.Itoa(k.Bits)
		}
		state := keyState(k)
		if k.Error != nil {
			state = "not well"
		}
		rows[i] = []string{keyLabel(k), bits, brief(k.Fingerprint), state, where(k.URI)}
	}
	p.table([]string{"KEY", "KIND", "FINGERPRINT", "STATE", "WHERE"}, rows)
	for _, k := range keys {
		if k.Error == nil {
			continue
		}
		p.line("%s: because  %s", safe(k.Name), safe(keyState(k)))
		if k.Error.Next != "" {
			p.line("%s: next     %s", safe(k.Name), safe(k.Error.Next))
		}
	}
}

// where is as much of a key's uri as tells where the key is: how the agent gets at it
// comes after.
func where(uri string) string {
	uri, _, _ = strings.Cut(uri, "?")
	return uri
}

// keyState says in a few words how a key is.
func keyState(k control.Key) string {
	switch {
	case k.Error != nil:
		return said(k.Error.Message, "key "+k.Name)
	case k.Provider == "escrow":
		return "kept offline"
	}
	return "answers"
}
