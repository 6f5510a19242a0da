package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) keyCheckCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "check [NAME]",
		Short: "Check that a key is fit for use",
		Long: `Go through everything that a key needs, in order: that its provider answers and
knows who asks; that the agent may open with it; that it cannot be lost by one
mistake, nor copied; that it is an RSA key of an allowed size, enabled and inside
its dates; and that it opens what it wraps. Then come the custody rules that it
breaks. Without a name all keys are checked.

A step is marked ok, warn, FAIL, or - if it was not tried because an earlier one
failed. The exit code is 1 if anything failed. With --json the report of one key is
an object, that of all keys a list.`,
		Example: "  coffer key check main\n  coffer key check --json | jq '.[] | select(.passed | not)'",
		Args:    takes(0, 1, "the name of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if len(args) == 0 {
				keys, err := a.Keys(cmd.Context())
				if err != nil {
					return err
				}
				names = keyNames(keys)
			}
			reports := make([]control.KeyReport, len(names))
			for i, name := range names {
				r, err := a.CheckKey(cmd.Context(), control.KeyCheckRequest{Key: name})
				if err != nil {
					return err
				}
				if reports[i] = r; !r.Passed {
					a.code = control.ExitFailed
				}
			}
			var v any = reports
			if len(args) == 1 {
				v = reports[0]
			}
			return a.print(v, func(p *page) { p.checks(reports) })
		},
	}
}

// keyNames returns the name of each key once, in order.
func keyNames(keys []control.Key) []string {
	var names []string
	for _, k := range keys {
		if !slices.Contains(names, k.Name) {
			names = append(names, k.Name)
		}
	}
	return names
}

func (p *page) checks(reports []control.KeyReport) {
	if len(reports) == 0 {
		p.line("The configuration names no keys.")
	}
	for i, r := range reports {
		if i > 0 {
			p.line("")
		}
		p.check(r)
	}
}

// check shows a report as a list of what was looked at.
func (p *page) check(r control.KeyReport) {
	steps := slices.Clone(r.Steps)
	for _, rule := range r.Rules {
		steps = append(steps, ruleStep(r.Key, rule))
	}
	width, failed, warned := 0, int64(0), int64(0)
	for _, s := range steps {
		width = max(width, len(safe(s.Stage)))
		switch s.Verdict {
		case control.VerdictFailed:
			failed++
		case control.VerdictWarned:
			warned++
		}
	}
	verdict := "all well"
	switch {
	case failed > 0:
		verdict = control.Counted(failed, "step") + " failed"
	case !r.Passed:
		verdict = "not fit for use"
	case warned > 0:
		verdict = "fit for use, with " + control.Counted(warned, "warning")
	}
	p.line("%s (%s): %s", safe(r.Key), safe(where(r.URI)), verdict)
	for _, s := range steps {
		p.line("  %-4s  %-*s  %s", verdictMark(s.Verdict), width, safe(s.Stage), safe(s.Says))
		if s.Next != "" {
			p.line("  %-4s  %-*s  %s", "", width, "next", safe(s.Next))
		}
	}
}

// ruleStep shows a rule that is broken as one more step.
func ruleStep(key string, r control.RuleView) control.KeyStep {
	s := control.KeyStep{Stage: strings.ReplaceAll(r.Rule, "_", "-"), Verdict: control.VerdictWarned, Says: r.Says, Next: r.Next}
	if r.Effect == control.EffectDeny {
		s.Verdict = control.VerdictFailed
	}
	if r.Subject != "" && r.Subject != "key "+key {
		s.Says = r.Subject + ": " + s.Says
	}
	return s
}

// verdictMark is what stands before a step.
func verdictMark(verdict string) string {
	switch verdict {
	case control.VerdictPassed:
		return "ok"
	case control.VerdictWarned:
		return "warn"
	case control.VerdictFailed:
		return "FAIL"
	case control.VerdictSkipped:
		return "-"
	}
	return "?"
}
