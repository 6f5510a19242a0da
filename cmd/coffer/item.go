package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) itemCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "item", Short: "Show and erase what is protected", RunE: group}
	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the items",
		Example: "  coffer item list",
		Args:    takes(0, 0, ""),
		RunE:    listing(a, (*control.Client).Items, "The configuration names no items.", (*page).itemList),
	}, &cobra.Command{
		Use:     "show ITEM",
		Short:   "Show an item",
		Example: "  coffer item show etc",
		Args:    takes(1, 1, "the name of an item"),
		RunE:    showing(a, (*control.Client).Item, (*page).item),
	}, a.itemEraseCmd())
	return cmd
}

func (p *page) itemList(items []control.Item) {
	rows := make([][]string, len(items))
	for i, it := range items {
		rows[i] = []string{it.Name, it.Vault, it.Kind, it.Source, when(it.LastGood, p.now), strconv.Itoa(it.Points)}
		if unseen(it) {
			rows[i] = []string{it.Name, it.Vault, it.Kind, it.Source, "not known", ""}
		}
	}
	p.table([]string{"ITEM", "VAULT", "KIND", "SOURCE", "LAST GOOD POINT", "POINTS"}, rows)
}

func (p *page) item(it control.Item) {
	p.fact("item", it.Name)
	p.fact("vault", it.Vault)
	p.fact("kind", it.Kind)
	p.fact("source", it.Source)
	if unseen(it) {
		p.fact("points", "not known")
		p.fact("because", said(it.Error.Message, ""))
		p.fact("next", it.Error.Next)
		return
	}
	p.fact("last point", it.LastPoint)
	p.fact("last good", when(it.LastGood, p.now))
	if it.Overdue {
		p.fact("overdue", "a backup was due, and no good point came of it")
	}
	p.fact("policy", it.Policy)
	if !it.Next.IsZero() {
		p.fact("next", when(it.Next, p.now))
	}
	p.fact("points", strconv.Itoa(it.Points))
	p.fact("source size", control.Size(it.SourceBytes))
	p.fact("stored", control.Size(it.StoredBytes))
	p.proof(it.Proof)
	if it.Error != nil {
		p.fact("not well", said(it.Error.Message, ""))
		p.fact("next", it.Error.Next)
	}
}

// proof says what is known to restore.
func (p *page) proof(pr control.Proof) {
	if pr == (control.Proof{}) {
		p.fact("verified", "never")
		return
	}
	p.fact("structure", "without faults "+when(pr.Structure, p.now))
	p.fact("data", "all of it read since "+when(pr.Data, p.now))
	p.fact("restore", "tried and compared "+when(pr.Restore, p.now))
	if pr.Faults > 0 {
		p.fact("faults", control.Count(pr.Faults)+" found and not mended")
	}
}
