package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

func checkAgent(p *problems, a *Agent) {
	checkAbs(p, "agent.state", a.State)
	checkAbs(p, "agent.socket", a.Socket)
	checkOneOf(p, "agent.log.level", a.Log.Level, "debug", "info", "warn", "error")
	checkOneOf(p, "agent.log.format", a.Log.Format, "text", "json")
	checkRoles(p, &a.Roles)
	checkJobs(p, a)
	checkMetrics(p, a.Metrics)
}

func checkJobs(p *problems, a *Agent) {
	const most = 64
	if (p.given("agent.jobs") || a.Jobs != 0) && (a.Jobs < 1 || a.Jobs > most) {
		p.add("agent.jobs", "use 1 to 64", "%d jobs at once make no sense", a.Jobs)
	}
}

// checkMetrics refuses an address that others than this machine could ask.
func checkMetrics(p *problems, address string) {
	const field = "agent.metrics"
	switch {
	case address == "", filepath.IsAbs(address):
	case !strings.Contains(address, ":"):
		p.add(field, "write 127.0.0.1:9464, or the absolute path of a socket", "%q is not an address", address)
	default:
		if host := checkHostPort(p, field, address); host != "" && !loopback(host) {
			p.add(field, "use 127.0.0.1 or [::1], and have a scraper or proxy on this machine ask it",
				"%s is not of this machine alone, and metrics tell everybody what is here", host)
		}
	}
}

func checkRoles(p *problems, r *Roles) {
	for _, f := range []struct {
		name   string
		groups []string
	}{{"viewer", r.Viewer}, {"operator", r.Operator}, {"restorer", r.Restorer}, {"key_admin", r.KeyAdmin}} {
		seen := map[string]bool{}
		for i, group := range f.groups {
			at := fmt.Sprintf("agent.roles.%s[%d]", f.name, i)
			switch {
			case group == "" || strings.ContainsAny(group, ":,\n\x00") || strings.TrimSpace(group) != group:
				p.add(at, "write its name or number", "%q cannot be the name of a group", group)
			case seen[group]:
				p.add(at, "name it once", "group %s is named twice", group)
			}
			seen[group] = true
		}
	}
}
