package main

import (
	"bufio"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) catCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "cat ITEM[@POINT] PATH",
		Short: "Write one file of a point to standard output",
		Long: `Write one file of a point to standard output. The exit code is 0 only if all of
it was written.`,
		Example: `  coffer cat etc /etc/fstab
  coffer cat db@2026-09-02 /all.sql | psql`,
		Args: takes(2, 2, "an item and a path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			item, point, err := splitPoint(args[0])
			if err != nil {
				return err
			}
			out := bufio.NewWriterSize(a.out, 256<<10)
			err = a.Content(cmd.Context(), control.ContentRequest{Item: item, Point: point, Path: args[1]}, out)
			if flushErr := out.Flush(); err == nil {
				err = unwritten(flushErr)
			}
			return err
		},
	}
}
