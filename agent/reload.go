package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
)

// reloadOnRequest reads the configuration anew whenever it is asked to, until ctx ends.
func (a *Agent) reloadOnRequest(ctx context.Context) {
	ctx = control.WithPeer(ctx, control.Peer{UID: uint32(max(0, os.Getuid()))})
	for {
		select {
		case <-a.Reload:
			a.ReloadConfig(ctx) //nolint:errcheck // its outcome is logged, and in the status
		case <-ctx.Done():
			return
		}
	}
}

// ReloadConfig implements control.System. A configuration that is wrong, or asks for
// what only a restart can do, changes nothing. What runs goes on as it was begun.
func (a *Agent) ReloadConfig(ctx context.Context) (control.ConfigReport, error) {
	a.reloads.Lock()
	defer a.reloads.Unlock()
	a.Supervisor.Reloading()
	report, err := a.reload(ctx)
	a.unloaded.Store(refusal(report, err))
	if fault := a.reloadFault(); fault != nil {
		a.Log.Error("configuration refused, the one before stays", "says", fault.Message, "next", fault.Next)
	}
	a.tell.Reloaded()
	a.Supervisor.Ready(a.headline())
	return report, err
}

// reloadFault returns why the last reload changed nothing, or nil if it did.
func (a *Agent) reloadFault() *control.Problem { return a.unloaded.Load() }

// refusal is what an operator is told of a reload that changed nothing.
func refusal(report control.ConfigReport, err error) *control.Problem {
	out := control.Problem{Subject: "configuration", Next: "correct it, then: coffer config reload"}
	switch {
	case err != nil:
		e := control.AsError(err)
		out.Message, out.Next = e.Message, cmp.Or(e.Next, out.Next)
	case len(report.Problems) > 0:
		first := report.Problems[0]
		if out.Message = first.Message; first.Field != "" {
			out.Message = first.Field + ": " + out.Message
		}
		if first.Line > 0 {
			out.Message = fmt.Sprintf("line %d: %s", first.Line, out.Message)
		} else { // the file is right, and this agent cannot have it
			out.Next = cmp.Or(first.Next, out.Next)
		}
		if more := len(report.Problems) - 1; more > 0 {
			out.Message += fmt.Sprintf(" (and %d more)", more)
		}
	default:
		return nil
	}
	out.Message = "what is on disk was refused, and the one before is in use: " + out.Message
	return &out
}

func (a *Agent) reload(ctx context.Context) (control.ConfigReport, error) {
	next, err := a.Load()
	var wrong *config.Error
	if errors.As(err, &wrong) {
		return wireReport(wrong), nil
	}
	if err != nil {
		return control.ConfigReport{}, &control.Error{Code: control.CodeFailed, Message: err.Error(),
			Next: "put it back where it was, to be read by the user that the agent runs as; then: coffer config reload"}
	}
	before := a.settings()
	fixed := fixedFields(before, next)
	access, unknown := a.roles(next)
	if fixed.Problems = append(fixed.Problems, unknown...); len(fixed.Problems) > 0 {
		return fixed, nil
	}
	e := audit.Event{Kind: audit.ConfigReloaded, By: control.PeerFrom(ctx).String(), Outcome: "done"}
	if err := a.record(ctx, e); err != nil {
		return control.ConfigReport{}, err
	}
	a.current.Store(next)
	a.access.Store(access)
	a.jobs.SetSlots(next.Agent.Jobs)
	a.keys.SetKeys(next.Keys)
	for name, v := range before.Vaults {
		if now, ok := next.Vaults[name]; !ok || !reflect.DeepEqual(now, v) || !reflect.DeepEqual(keysOf(before, v), keysOf(next, now)) {
			a.vaults.Retire(name)
		}
	}
	notes := a.plan.Replanned(before, next)
	a.Log.Info("configuration reloaded", "vaults", len(next.Vaults), "items", len(next.Items), "policies", len(next.Policies))
	return control.ConfigReport{Vaults: len(next.Vaults), Items: len(next.Items), Policies: len(next.Policies), Notes: notes}, nil
}

// keysOf returns what the configuration says of a vault's keys.
func keysOf(c *config.Config, v config.Vault) []config.Key {
	var keys []config.Key
	for _, names := range [][]string{v.Keys, v.RestoreKeys} {
		for _, name := range names {
			keys = append(keys, c.Keys[name])
		}
	}
	return keys
}

// fixedFields says which fields have changed that a running agent cannot change.
func fixedFields(before, next *config.Config) control.ConfigReport {
	var out control.ConfigReport
	was, now := before.Agent, next.Agent
	for _, f := range []struct {
		name        string
		before, now any
	}{
		{"agent.state", was.State, now.State},
		{"agent.socket", was.Socket, now.Socket},
		{"agent.socket_group", was.SocketGroup, now.SocketGroup},
		{"agent.metrics", was.Metrics, now.Metrics},
		{"agent.log.level", was.Log.Level, now.Log.Level},
		{"agent.log.format", was.Log.Format, now.Log.Format},
		{"audit.syslog", before.Audit.Syslog, next.Audit.Syslog},
		{"audit.max_size", int64(before.Audit.MaxSize), int64(next.Audit.MaxSize)},
	} {
		if was, now := fixedWords(f.before), fixedWords(f.now); was != now {
			out.Problems = append(out.Problems, control.ConfigProblem{Field: f.name,
				Message: fmt.Sprintf("it is %s in the running agent, and now %s", was, now),
				Next:    "restart the agent; or put it back, then: coffer config reload"})
		}
	}
	return out
}

// fixedWords writes the value of a field.
func fixedWords(value any) string { return cmp.Or(fmt.Sprint(value), "not set") }

// roles returns who may do what by a configuration, or what is wrong with that. An agent
// that began without roles has a socket that lets nobody else in.
func (a *Agent) roles(next *config.Config) (*control.Access, []control.ConfigProblem) {
	if a.Access == nil {
		return a.access.Load(), nil
	}
	if !a.Settings.Agent.Roles.Any() && next.Agent.Roles.Any() {
		return nil, []control.ConfigProblem{{Field: "agent.roles", Message: "the agent began without roles, and its socket lets nobody else in",
			Next: "restart the agent: a socket that is open keeps its mode"}}
	}
	access, err := a.Access(next.Agent)
	if err != nil {
		return nil, []control.ConfigProblem{{Message: err.Error(), Next: "correct agent.roles, then: coffer config reload; until then everybody has the role of before"}}
	}
	return &access, nil
}
