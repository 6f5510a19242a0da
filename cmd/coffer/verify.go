package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) verifyCmd() *cobra.Command {
	var req control.VerifyRequest
	var detach bool
	level := string(control.VerifyData)
	cmd := &cobra.Command{
		Use:   "verify [ITEM[@POINT]]",
		Short: "Check that points can be restored",
		Long: `Check that points can be restored: of one item or of all, one point or all.

The level "data" reads, opens and compares everything, as a restore would. The
level "structure" checks that all that points refer to is there, and reads little.
With --part only a part of the data is read, what was not read for longest: so many
in a hundred.

--restore restores the newest point into a scratch folder of the agent, compares it
and removes it again. --repair rebuilds indexes, and stores again what is damaged
and the source still has. It throws nothing away.`,
		Example: `  coffer verify
  coffer verify etc@latest
  coffer verify --part 10
  coffer verify etc --restore`,
		Args: takes(0, 1, "one item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("level") {
				req.Level = control.VerifyLevel(level)
			}
			if err := verifyOptions(cmd, req); err != nil {
				return err
			}
			if len(args) == 1 {
				var err error
				if req.Item, req.Point, err = splitPoint(args[0]); err != nil {
					return err
				}
			}
			if req.Restore && (req.Item == "" || req.Point != "") {
				return &usageError{"--restore is of the newest point of one item", "name the item alone: coffer verify ITEM --restore"}
			}
			j, err := a.Verify(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.through(cmd.Context(), j, detach)
		},
	}
	cmd.Flags().StringVar(&level, "level", level, "the `level`: structure, data")
	cmd.Flags().IntVar(&req.Part, "part", 0, "read only this `percentage` of the data: what was not read for longest")
	cmd.Flags().BoolVar(&req.Repair, "repair", false, "mend what can be mended from the source")
	cmd.Flags().BoolVar(&req.Restore, "restore", false, "restore the newest point into a scratch folder and compare it")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

// verifyOptions refuses what cannot be meant together.
func verifyOptions(cmd *cobra.Command, req control.VerifyRequest) error {
	switch {
	case req.Level != "" && req.Level != control.VerifyData && req.Level != control.VerifyStructure:
		return &usageError{fmt.Sprintf("--level %q is not known", req.Level), "use structure or data"}
	case cmd.Flags().Changed("part") && (req.Part < 1 || req.Part > 100):
		return &usageError{fmt.Sprintf("--part %d is not a percentage", req.Part), "use 1 to 100"}
	case req.Part > 0 && req.Level == control.VerifyStructure:
		return &usageError{"--part is of the data, and the level structure reads none", "leave out one of the two"}
	case req.Restore && (req.Repair || req.Part > 0 || req.Level != ""):
		return &usageError{"--restore takes a point as a whole, and mends nothing", "leave out --level, --part and --repair"}
	}
	return nil
}

// proved says what a proof restore found.
func (p *page) proved(j control.Job, r control.VerifyResult) {
	of := "the newest point"
	if j.Point != "" {
		of = "point " + j.Point
	}
	if n := len(r.Faults); n > 0 {
		p.line("%s: %s restored and compared, %s: %s", safe(jobLabel(j)), safe(of), control.Counted(r.Compared, "file"), control.Counted(n, "fault"))
	} else {
		p.line("%s: %s restored and compared, %s: equal; %s", safe(jobLabel(j)), safe(of), control.Counted(r.Compared, "file"), lasting(seconds(r.Seconds)))
	}
	for _, f := range r.Faults {
		p.line("     %s", safe(f))
	}
}

func (p *page) verified(j control.Job, r control.VerifyResult) {
	if r.Compared > 0 { // a proof restore reads no more than it says
		p.proved(j, r)
		return
	}
	verdict := "all well"
	if n := len(r.Faults); n > 0 {
		verdict = control.Counted(n, "fault")
	}
	p.line("%s: %s verified: %s", safe(jobLabel(j)), control.Counted(r.Points, "point"), verdict)
	p.line("     %s, %s, %s read; %s", control.Counted(r.Objects, "object"), control.Counted(r.Files, "file"), control.Size(r.ReadBytes), lasting(seconds(r.Seconds)))
	for _, f := range r.Faults {
		p.line("     %s", safe(f))
	}
	for _, m := range r.Repaired {
		p.line("     mended: %s", safe(m))
	}
}
