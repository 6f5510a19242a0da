package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

// completeWait is how long a shell waits for the agent when somebody presses Tab.
const completeWait = 2 * time.Second

// names are what could stand for an argument that begins with typed.
type names func(ctx context.Context, c *control.Client, typed string) []string

// complete has shells complete the first argument of every verb, by what its usage
// line says that it is.
func (a *app) complete(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.complete(sub)
	}
	_, usage, _ := strings.Cut(cmd.Use, " ")
	first, _, _ := strings.Cut(usage, " ")
	what := strings.Trim(first, "[].")
	most := 1
	if strings.HasSuffix(first, "...") {
		most = 1 << 10
	}
	switch what, _, _ = strings.Cut(what, "/"); {
	case strings.HasPrefix(what, "ITEM") && strings.Contains(what, "@"):
		a.completes(cmd, pointNames, most)
	case what == "ITEM":
		a.completes(cmd, itemNames, most)
	case what == "VAULT", what == "NAME" && cmd.Parent().Name() == "vault":
		a.completes(cmd, vaultNames, most)
	case what == "NAME" && cmd.Parent().Name() == "key":
		a.completes(cmd, keysNamed, most)
	case what == "NAME" && cmd.Parent().Name() == "policy":
		a.completes(cmd, policyNames, most)
	}
}

// completes gives a command the completion of its first arguments. An agent that does
// not answer completes nothing.
func (a *app) completes(cmd *cobra.Command, all names, most int) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveDefault
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
		defer cancel()
		c := control.NewClient(control.ClientConfig{Socket: a.socket})
		defer c.Close()
		var fit []string
		for _, name := range all(ctx, c, typed) {
			if strings.HasPrefix(name, typed) && name == safe(name) {
				fit = append(fit, name)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp
	}
}

// itemNames are the items.
func itemNames(ctx context.Context, c *control.Client, _ string) (all []string) {
	items, _ := c.Items(ctx) //nolint:errcheck // then there is nothing to complete
	for _, it := range items {
		all = append(all, it.Name)
	}
	return all
}

// pointNames are the items, and behind ITEM@ its points.
func pointNames(ctx context.Context, c *control.Client, typed string) (all []string) {
	item, _, behind := strings.Cut(typed, "@")
	if !behind {
		return itemNames(ctx, c, typed)
	}
	all = []string{item + "@latest"}
	for p, err := range c.Points(ctx, control.PointsRequest{Item: item}) {
		if err != nil || len(all) > mostPoints {
			break
		}
		if name := item + "@" + p.ID; strings.HasPrefix(name, typed) {
			all = append(all, name)
		}
	}
	return all
}

// mostPoints is how many points a shell is told: nobody reads more.
const mostPoints = 1000

// policyNames are the policies.
func policyNames(ctx context.Context, c *control.Client, _ string) (all []string) {
	policies, _ := c.Policies(ctx) //nolint:errcheck // then there is nothing to complete
	for _, p := range policies {
		all = append(all, p.Name)
	}
	return all
}

// vaultNames are the vaults.
func vaultNames(ctx context.Context, c *control.Client, _ string) (all []string) {
	vaults, _ := c.Vaults(ctx) //nolint:errcheck // then there is nothing to complete
	for _, v := range vaults {
		all = append(all, v.Name)
	}
	return all
}

// keysNamed are the keys.
func keysNamed(ctx context.Context, c *control.Client, _ string) []string {
	keys, _ := c.Keys(ctx) //nolint:errcheck // then there is nothing to complete
	return keyNames(keys)
}
