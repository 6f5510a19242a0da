package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) auditCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Check the log of what was done with keys", RunE: group}
	cmd.AddCommand(a.auditVerifyCmd())
	return cmd
}

func (a *app) auditVerifyCmd() *cobra.Command {
	var req control.AuditVerify
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Find lines of the audit log that were removed or altered",
		Long: `Read the audit log and check its chain: each line holds the hash of the one before
it, so a line that was removed or altered is found. The exit code is 1 if one was.

The chain cannot tell that its end was cut off, or all of it written anew. For
that, note down the head that this prints, somewhere else, and name it next time
with --head: it must still be in the chain.`,
		Example: "  coffer audit verify\n  coffer audit verify --head 5f0c...",
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sum, err := hex.DecodeString(req.Head); err != nil || len(sum) != sha256.Size && req.Head != "" {
				return &usageError{fmt.Sprintf("--head %q is not a head of the log", req.Head), "give all 64 digits, as coffer audit verify printed them"}
			}
			r, err := a.VerifyAudit(cmd.Context(), req)
			if err != nil {
				return err
			}
			if len(r.Faults) > 0 {
				a.code = control.ExitFailed
			}
			return a.print(r, func(p *page) { p.audited(r) })
		},
	}
	cmd.Flags().StringVar(&req.Head, "head", "", "a `hash` noted down earlier")
	return cmd
}

func (p *page) audited(r control.AuditReport) {
	verdict := "whole"
	if n := len(r.Faults); n > 0 {
		verdict = control.Counted(n, "fault")
	}
	p.line("%s: %s in %s: %s", safe(r.Path), control.Counted(r.Lines, "line"), control.Counted(r.Files, "file"), verdict)
	if !r.First.IsZero() {
		p.fact("  first", when(r.First, p.now))
		p.fact("  last", when(r.Last, p.now))
	}
	p.fact("  head", r.Head)
	if len(r.Faults) == 0 {
		if r.Head != "" {
			p.line("Note the head down elsewhere; next time: coffer audit verify --head HEAD")
		}
		return
	}
	for _, f := range r.Faults {
		p.line("  FAULT  %s", safe(f))
	}
	p.line("  next    keep the files as they are, find out who could write to them, and compare them with the system's log")
}
