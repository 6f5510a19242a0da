package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how everything is",
		Long: `Show the agent, its vaults and items, what runs, and what needs a person.

The exit code is 0 if the agent answers, whatever it says.`,
		Example: `  coffer status
  coffer status --json | jq .problems`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(s, func(p *page) { p.status(s) })
		},
	}
}

func (p *page) status(s control.Status) {
	up := "coffer " + safe(s.Version.Version) + " on " + safe(s.Host) + ", up " + lasting(p.now.Sub(s.Started)) + ". "
	if len(s.Problems) == 0 {
		p.line("%sAll well.", up)
	} else {
		p.line("%s%s:", up, counted(int64(len(s.Problems)), "problem"))
		for _, pr := range s.Problems {
			p.line("  %s: %s", safe(pr.Subject), safe(said(pr.Message, pr.Subject)))
			if pr.Next != "" {
				p.line("    next  %s", safe(pr.Next))
			}
		}
	}
	if len(s.Vaults) > 0 {
		p.line("")
		p.vaultTable(s.Vaults)
		p.vaultNotes(s.Vaults, s.Problems)
	}
	if len(s.Items) > 0 {
		p.line("")
		p.items(s.Items)
	}
	if len(s.Jobs) > 0 {
		p.line("")
		p.jobs(s.Jobs)
	}
}

// vaults lists vaults, and what is to be said of their keys.
func (p *page) vaults(vaults []control.Vault) {
	p.vaultTable(vaults)
	p.vaultNotes(vaults, nil)
}

func (p *page) vaultTable(vaults []control.Vault) {
	rows := make([][]string, len(vaults))
	for i, v := range vaults {
		var keys, names []string
		for _, k := range v.Keys { // of each key the version in use, which is the first
			if !k.RestoreOnly && !slices.Contains(names, k.Name) {
				keys, names = append(keys, keyLabel(k)), append(names, k.Name)
			}
		}
		rows[i] = []string{v.Name, v.Store, strings.Join(keys, ", "), p.state(v)}
	}
	p.table([]string{"VAULT", "STORE", "KEYS", "STATE"}, rows)
}

// vaultNotes says why vaults are not accessible, unless a problem that was shown
// says so, and which keys are owed wrappings.
func (p *page) vaultNotes(vaults []control.Vault, shown []control.Problem) {
	for _, v := range vaults {
		known := slices.ContainsFunc(shown, func(pr control.Problem) bool { return pr.Subject == "vault "+v.Name })
		if v.Error != nil && v.State != control.StateAccessible && !known {
			p.line("%s: because  %s", safe(v.Name), safe(said(v.Error.Message, "vault "+v.Name)))
			if v.Error.Next != "" {
				p.line("%s: next     %s", safe(v.Name), safe(v.Error.Next))
			}
		}
		if len(v.Owed) > 0 {
			p.line("%s: owed to  %s", safe(v.Name), safe(owed(v)))
		}
	}
}

// owed says which keys lack wrappings, and when they get them.
func owed(v control.Vault) string {
	return strings.Join(v.Owed, ", ") + ": wrappings of some secrets, made when the key answers"
}

// keyLabel names a key and where it lives: "main (HSM, v3)".
func keyLabel(k control.Key) string {
	var more []string
	switch k.Provider {
	case "pkcs11":
		more = append(more, "HSM")
	case "keyvault":
		more = append(more, "Key Vault")
	case "software":
		more = append(more, "file")
	case "escrow":
		more = append(more, "offline")
	}
	if k.Version != "" {
		more = append(more, shortVersion(k.Version))
	}
	if k.RestoreOnly {
		more = append(more, "restore only")
	}
	if len(more) == 0 {
		return k.Name
	}
	return k.Name + " (" + strings.Join(more, ", ") + ")"
}

// state says how a vault's keys are.
func (p *page) state(v control.Vault) string {
	var s, next string
	switch v.State {
	case control.StateAbsent:
		return "not made yet: coffer vault create " + v.Name
	case control.StateUnknown:
		return "not checked yet"
	case control.StateRevalidation:
		s, next = "requires revalidation", ": coffer key revalidate "+v.Name
	default:
		s = string(v.State)
	}
	if !v.Since.IsZero() && v.State != control.StateAccessible {
		s += " for " + roughly(p.now.Sub(v.Since))
	}
	if !v.Checked.IsZero() {
		s += ", checked " + roughly(p.now.Sub(v.Checked)) + " ago"
	}
	return s + next
}

func (p *page) items(items []control.Item) {
	rows := make([][]string, len(items))
	for i, it := range items {
		next := ""
		if !it.Next.IsZero() {
			next = when(it.Next, p.now)
		}
		rows[i] = []string{
			it.Name, when(it.LastGood, p.now), next, strconv.Itoa(it.Points), size(it.SourceBytes), size(it.StoredBytes),
		}
		if unseen(it) {
			rows[i] = []string{it.Name, "not known", next, "", "", ""}
		}
	}
	p.table([]string{"ITEM", "LAST GOOD POINT", "NEXT", "POINTS", "SOURCE", "STORED"}, rows)
}

// unseen tells whether nobody can say what points an item has.
func unseen(it control.Item) bool {
	if it.Error == nil || it.Points > 0 || !it.LastGood.IsZero() {
		return false
	}
	return it.Error.Code == control.CodeKeysInaccessible || it.Error.Code == control.CodeStore
}
