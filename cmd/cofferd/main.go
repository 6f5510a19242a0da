// Cofferd is the backup service: it holds vaults and keys, runs backups and
// restores, and answers coffer on a local socket. "cofferd rescue" restores on a
// bare machine without a service or a configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

// errSkipped: done, but some entries were skipped.
var errSkipped = errors.New("some entries were skipped")

// usageError is a fault of the command line.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil && !errors.Is(err, errSkipped) {
		fmt.Fprintln(os.Stderr, "cofferd:", err)
		if e := control.AsError(err); e.Next != "" {
			fmt.Fprintln(os.Stderr, "  next  ", e.Next)
		}
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.Is(err, errSkipped):
		return control.ExitSkipped
	case errors.As(err, &usage):
		return control.ExitUsage
	}
	return control.ExitCode(err)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "cofferd",
		Short:         "The Coffer backup service",
		Version:       control.BuildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q: see cofferd --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(), rescueCommand())
	return root
}
