package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyUsageCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "usage NAME[/VERSION]",
		Short: "Show what would be lost without a key",
		Long: `Show what hangs on each version of a key: how many of the vaults' secrets it opens,
what nothing else would open, and whether it can be retired. Ask before you
disable, delete or let go of a key. VERSION is the whole of what the provider calls
it, or the beginning of the fingerprint.`,
		Example: "  coffer key usage main\n  coffer key usage main/fedcba98",
		Args:    takes(1, 1, "the name of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, found := strings.Cut(args[0], "/")
			if name == "" || found && version == "" {
				return &usageError{fmt.Sprintf("%q does not name a key", args[0]), "write NAME or NAME/VERSION; coffer key list shows them"}
			}
			u, err := a.KeyUsage(cmd.Context(), control.KeyUsageRequest{Key: name, Version: version})
			if err != nil {
				return err
			}
			return a.print(u, func(p *page) { p.usage(u) })
		},
	}
}

func (p *page) usage(u control.KeyUsage) {
	p.line("%s (%s)", safe(u.Key), safe(where(u.URI)))
	if len(u.Versions) == 0 {
		p.line("Nothing is wrapped with it.")
		return
	}
	rows := make([][]string, len(u.Versions))
	for i, v := range u.Versions {
		use := "no"
		switch {
		case v.InUse && v.Since.IsZero():
			use = "yes"
		case v.InUse:
			since, _, _ := strings.Cut(when(v.Since, p.now), " (")
			use = "since " + since
		}
		retirable := "yes"
		switch {
		case v.InUse:
			retirable = "no: " + v.Because
		case !v.Retirable:
			retirable = "no"
		}
		share := 0.0
		if v.Total > 0 {
			share = 100 * float64(v.Secrets) / float64(v.Total)
		}
		rows[i] = []string{
			shortVersion(v.Version), brief(v.Fingerprint), use, control.Count(int64(v.Secrets)) + " of " + control.Count(int64(v.Total)), percent(share), retirable,
		}
	}
	p.table([]string{"VERSION", "FINGERPRINT", "IN USE", ">SECRETS", ">COVERAGE", "CAN BE RETIRED"}, rows)
	for _, v := range u.Versions {
		p.line("")
		label := versionLabel(u.Key, v.Version, v.Fingerprint)
		if !v.Retirable && !v.InUse && v.Because != "" {
			p.line("%s cannot be retired: %s.", safe(label), safe(v.Because))
		}
		p.losses(label, v)
	}
}

// losses says what is gone when a version is.
func (p *page) losses(label string, v control.VersionUsage) {
	switch {
	case len(v.Lost) > 0:
		p.line("Lost for ever without %s:", safe(label))
	case v.Secrets == 0:
		p.line("%s: nothing is wrapped with it.", safe(label))
		return
	default:
		p.line("Without %s nothing is lost: other keys open all that it opens.", safe(label))
		return
	}
	rows := make([][]string, len(v.Lost))
	for i, l := range v.Lost {
		item, points, first, last := l.Item, strconv.Itoa(l.Points), "", ""
		if item == "" {
			item, points = "everything: no other key opens the vault", ""
		}
		if !l.First.IsZero() {
			first = when(l.First, p.now)
		}
		if !l.Last.IsZero() {
			last = when(l.Last, p.now)
		}
		rows[i] = []string{"  " + l.Vault, item, points, first, last}
	}
	p.table([]string{"  VAULT", "ITEM", ">POINTS", "FIRST", "LAST"}, rows)
}

// versionLabel names a version of a key: "main v3".
func versionLabel(key, version, fingerprint string) string {
	if version == "" {
		version = brief(fingerprint)
	}
	return strings.TrimSpace(key + " " + shortVersion(version))
}

// shortVersion is as much of a version as people compare. Those that the agent makes in
// tokens begin with a time, and that with zeros.
func shortVersion(version string) string {
	const enough = 8
	if len(version) <= 2*enough {
		return version
	}
	return strings.TrimPrefix(version, "00000000")[:enough] + "..."
}

// brief is as much of a fingerprint as tells keys apart.
func brief(fingerprint string) string {
	const enough = 12 // as in logs and errors
	if len(fingerprint) > enough {
		return fingerprint[:enough]
	}
	return fingerprint
}

// percent writes a share. Only what is whole is 100 %, and only nothing is 0 %.
func percent(f float64) string {
	switch {
	case f >= 100:
		return "100 %"
	case f <= 0:
		return "0 %"
	}
	return strconv.FormatFloat(max(math.Floor(f*10)/10, 0.1), 'f', -1, 64) + " %"
}

// coverage says what each key version opens of a vault.
func (p *page) coverage(all []control.Coverage) {
	rows := make([][]string, len(all))
	for i, c := range all {
		use, owed := "no", ""
		if c.InUse {
			use = "yes"
		}
		if c.Owed > 0 {
			owed = control.Count(int64(c.Owed))
		}
		rows[i] = []string{c.Key, shortVersion(c.Version), brief(c.Fingerprint), use, percent(c.Percent), owed}
	}
	p.table([]string{"KEY", "VERSION", "FINGERPRINT", "IN USE", ">OPENS", ">OWED"}, rows)
}
