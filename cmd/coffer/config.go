package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

// maxConfig is the size of the largest configuration that is sent, in bytes.
const maxConfig = 4 << 20

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check and reload the configuration", RunE: group}
	cmd.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Find the mistakes in a configuration file",
		Long: `Find the mistakes in a configuration file, before the agent is restarted with it.
The running agent reads it; nothing is changed. Each mistake is shown with its
line, column and field. "-" reads standard input. Without a running agent:
cofferd check --config FILE.`,
		Example: "  coffer config check /etc/coffer/coffer.yaml",
		Args:    takes(1, 1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readConfig(args[0])
			if err != nil {
				return err
			}
			report, err := a.CheckConfig(cmd.Context(), control.ConfigCheck{Name: args[0], Text: text})
			if code := control.CodeOf(err); code == control.CodeNotRunning || code == control.CodeNoSocket {
				e := *control.AsError(err)
				e.Next = "check it without an agent: cofferd check --config " + args[0]
				return &e
			}
			if err != nil {
				return err
			}
			if len(report.Problems) > 0 {
				a.code = control.ExitFailed
			}
			return a.print(report, func(p *page) { p.report(args[0], report) })
		},
	}, a.configReloadCmd())
	return cmd
}

// readConfig reads a file, or standard input for "-".
func (a *app) readConfig(name string) (string, error) {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("read configuration: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("%s is larger than %s", name, control.Size(maxConfig))
	}
	if err != nil {
		return "", fmt.Errorf("read configuration: %w", err)
	}
	return string(text), nil
}

// configured says what there is in a configuration.
func configured(r control.ConfigReport) string {
	return control.Counted(r.Vaults, "vault") + ", " + control.Counted(r.Items, "item") + ", " + control.Counted(r.Policies, "policy")
}

func (p *page) report(name string, r control.ConfigReport) {
	if len(r.Problems) == 0 {
		p.line("%s: no mistakes; %s", safe(name), configured(r))
		return
	}
	for _, pr := range r.Problems {
		where := safe(name)
		if pr.Line > 0 {
			where = fmt.Sprintf("%s:%d:%d", where, pr.Line, pr.Column)
		}
		if pr.Field != "" {
			where += ": " + safe(pr.Field)
		}
		p.line("%s: %s", where, safe(pr.Message))
		if pr.Next != "" {
			p.line("  next    %s", safe(pr.Next))
		}
	}
}
