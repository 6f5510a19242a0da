package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
)

func checkCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Find the mistakes in a configuration file",
		Long: `Find the mistakes in a configuration file, without a running service. Each is shown
with its line, column and field. Nothing that the file names is opened: coffer doctor
tries all of that.

The exit code is 0 if there is no mistake, and 1 if there are some.`,
		Example: "  cofferd check --config /etc/coffer/coffer.yaml",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return check(cmd, path) },
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig(), "configuration `file`")
	return cmd
}

func check(cmd *cobra.Command, path string) error {
	out := cmd.OutOrStdout()
	cfg, err := config.Load(path)
	var wrong *config.Error
	if !errors.As(err, &wrong) {
		if err == nil {
			fmt.Fprintf(out, "%s: no mistakes; %s, %s, %s\n", path, number(int64(len(cfg.Vaults)), "vault"), number(int64(len(cfg.Items)), "item"), policies(len(cfg.Policies)))
		}
		return err
	}
	for _, p := range wrong.Problems {
		where := path
		if p.Line > 0 {
			where = fmt.Sprintf("%s:%d:%d", where, p.Line, p.Column)
		}
		if p.Field != "" {
			where += ": " + p.Field
		}
		fmt.Fprintf(out, "%s: %s\n", where, p.Message)
		if p.Next != "" {
			fmt.Fprintf(out, "  next    %s\n", p.Next)
		}
	}
	return &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("%s in %s", number(int64(len(wrong.Problems)), "mistake"), path),
		Next: "correct it; each line above says where"}
}

func policies(n int) string {
	if n == 1 {
		return "1 policy"
	}
	return fmt.Sprintf("%d policies", n)
}
