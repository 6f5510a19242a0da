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
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

// errSkipped: done, but some entries were skipped.
var errSkipped = errors.New("some entries were skipped")

// usageError is a fault of the command line.
type usageError struct{ error }

func main() { os.Exit(execute(time.Now)) }

// execute does what the command line says, and returns the exit code.
func execute(clock func() time.Time) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(clock).ExecuteContext(ctx)
	stop()
	if err != nil && !isAnswer(err) {
		fmt.Fprintln(os.Stderr, "cofferd:", err)
		if e := control.AsError(err); e.Next != "" {
			fmt.Fprintln(os.Stderr, "  next  ", e.Next)
		}
	}
	return exitCode(err)
}

// isAnswer tells whether an error is there for its exit code alone: what there is to
// say was said.
func isAnswer(err error) bool {
	return errors.Is(err, errSkipped) || errors.Is(err, errStopped) || errors.Is(err, errNotInstalled)
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.Is(err, errStopped):
		return exitStopped
	case errors.Is(err, errNotInstalled):
		return exitNotInstalled
	case errors.Is(err, errSkipped):
		return control.ExitSkipped
	case errors.As(err, &usage):
		return control.ExitUsage
	}
	return control.ExitCode(err)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Show the version", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "cofferd version", control.BuildVersion())
		return err
	}}
}

func command(clock func() time.Time) *cobra.Command {
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
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(clock), rescueCommand(), scrubCommand(), checkCommand(), versionCommand())
	root.AddCommand(serviceCommands()...)
	return root
}
