package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) verifyCmd() *cobra.Command {
	var detach bool
	level := string(control.VerifyData)
	cmd := &cobra.Command{
		Use:   "verify [ITEM[@POINT]]",
		Short: "Check that points can be restored",
		Long: `Check that points can be restored: of one item or of all, one point or all.

The level "data" reads, opens and compares everything, as a restore would. The
level "structure" checks that all that points refer to is there, and reads little.`,
		Example: `  coffer verify
  coffer verify etc@latest
  coffer verify --level structure`,
		Args: takes(0, 1, "one item"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := control.VerifyRequest{Level: control.VerifyLevel(level)}
			if req.Level != control.VerifyData && req.Level != control.VerifyStructure {
				return &usageError{fmt.Sprintf("--level %q is not known", level), "use structure or data"}
			}
			if len(args) == 1 {
				var err error
				if req.Item, req.Point, err = splitPoint(args[0]); err != nil {
					return err
				}
			}
			j, err := a.Verify(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.through(cmd.Context(), j, detach)
		},
	}
	cmd.Flags().StringVar(&level, "level", level, "how `deep`: structure, data")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return cmd
}

func (p *page) verified(j control.Job, r control.VerifyResult) {
	verdict := "all well"
	if n := len(r.Faults); n > 0 {
		verdict = counted(int64(n), "fault")
	}
	p.line("%s: %s verified: %s", safe(jobLabel(j)), counted(r.Points, "point"), verdict)
	p.line("     %s, %s, %s read; %s", counted(r.Objects, "object"), counted(r.Files, "file"), size(r.ReadBytes), lasting(seconds(r.Seconds)))
	for _, f := range r.Faults {
		p.line("     %s", safe(f))
	}
}
