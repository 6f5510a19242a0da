package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Try everything, and say what to mend",
		Long: `Try every key, store, socket, folder and source of the configuration, and say what
to do about what does not work. Nothing is changed.

A check is marked ok, warn, FAIL, or - if it was not tried because an earlier one
failed. The exit code is 1 if anything failed.`,
		Example: "  coffer doctor\n  coffer doctor --json | jq '.checks[] | select(.outcome == \"bad\")'",
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.Diagnose(cmd.Context())
			if err != nil {
				return err
			}
			for _, c := range d.Checks {
				if c.Outcome == control.CheckBad {
					a.code = control.ExitFailed
				}
			}
			return a.print(d, func(p *page) { p.diagnosis(d) })
		},
	}
}

func (p *page) diagnosis(d control.Diagnosis) {
	var subject, what int
	count := map[string]int64{}
	for _, c := range d.Checks {
		subject, what = max(subject, len(safe(c.Subject))), max(what, len(safe(c.What)))
		count[c.Outcome]++
	}
	for i, c := range d.Checks {
		about := safe(c.Subject)
		if i > 0 && d.Checks[i-1].Subject == c.Subject {
			about = ""
		}
		line := fmt.Sprintf("%-4s  %-*s  %-*s  %s", outcomeMark(c.Outcome), subject, about, what, safe(c.What), safe(c.Says))
		p.line("%s", strings.TrimRight(line, " "))
		if c.Next != "" {
			p.line("%-4s  %-*s  %-*s  %s", "", subject, "", what, "next", safe(c.Next))
		}
	}
	total := control.Counted(len(d.Checks), "check")
	switch {
	case count[control.CheckBad] > 0:
		p.line("%s, of which %d failed.", total, count[control.CheckBad])
	case count[control.CheckWarning] > 0:
		p.line("%s: none failed, with %s.", total, control.Counted(count[control.CheckWarning], "warning"))
	default:
		p.line("%s. All well.", total)
	}
}

// outcomeMark is what stands before a check.
func outcomeMark(outcome string) string {
	switch outcome {
	case control.CheckGood:
		return "ok"
	case control.CheckWarning:
		return "warn"
	case control.CheckBad:
		return "FAIL"
	case control.CheckSkipped:
		return "-"
	}
	return "?"
}
