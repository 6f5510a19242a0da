package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a key and its versions",
		Example: "  coffer key show main",
		Args:    takes(1, 1, "the name of a key"),
		RunE:    showing(a, keyVersions, (*page).key),
	}
}

// keyVersions returns what the agent knows of each version of a key.
func keyVersions(c *control.Client, ctx context.Context, name string) ([]control.Key, error) {
	keys, err := c.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var versions []control.Key
	for _, k := range keys {
		if k.Name == name {
			versions = append(versions, k)
		}
	}
	if versions == nil {
		return nil, &control.Error{
			Code: control.CodeNotFound, Message: fmt.Sprintf("there is no key %q", name), Next: "list what there is: coffer key list",
		}
	}
	return versions, nil
}

func (p *page) key(versions []control.Key) {
	first := versions[0]
	p.fact("key", first.Name)
	p.fact("where", where(first.URI))
	p.fact("provider", first.Provider)
	p.fact("vaults", strings.Join(first.Vaults, ", "))
	for _, k := range versions {
		p.line("")
		p.keyVersion(k)
	}
}

func (p *page) keyVersion(k control.Key) {
	version := k.Version
	switch {
	case k.InUse && version == "":
		version = "in use"
	case k.InUse:
		version += ", in use"
	}
	p.fact("version", version)
	if k.Bits > 0 {
		p.fact("kind", "RSA "+strconv.Itoa(k.Bits))
	}
	p.fact("wraps with", k.Algorithm)
	p.fact("fingerprint", k.Fingerprint)
	f := k.Facts
	p.fact("enabled", f.Enabled)
	p.fact("may unwrap", f.MayUnwrap)
	p.fact("in hardware", f.Hardware)
	if k.Provider == "keyvault" {
		p.fact("soft delete", f.SoftDelete)
		p.fact("purge safe", f.PurgeProtection)
	}
	for _, date := range []struct {
		name string
		at   time.Time
	}{{"made", f.Created}, {"changed", f.Updated}, {"valid from", f.NotBefore}, {"valid until", f.Expires}} {
		if !date.at.IsZero() {
			p.fact(date.name, when(date.at, p.now))
		}
	}
	p.fact("state", keyState(k))
	if k.Error != nil {
		p.fact("next", k.Error.Next)
	}
}
