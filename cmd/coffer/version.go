package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the versions of coffer and of the agent",
		Long:    "Show the versions of coffer and of the agent. Without an agent it shows coffer's.",
		Example: "  coffer version",
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Client control.Version  `json:"client"`
				Agent  *control.Version `json:"agent,omitempty"`
				Error  *control.Error   `json:"agent_error,omitempty"`
			}{Client: control.Version{Version: a.version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}}
			agent, err := a.Version(cmd.Context())
			if err == nil {
				v.Agent = &agent
			}
			v.Error = control.AsError(err)
			return a.print(v, func(p *page) {
				p.line("coffer   %s, %s, %s", v.Client.Version, v.Client.Platform, v.Client.Go)
				if v.Agent == nil {
					p.line("cofferd  not reached: %s", safe(v.Error.Message))
					return
				}
				hsm := "with HSM support"
				if !agent.PKCS11 {
					hsm = "built without HSM support"
				}
				p.line("cofferd  %s, %s, %s, %s", safe(agent.Version), safe(agent.Platform), safe(agent.Go), hsm)
			})
		},
	}
}
