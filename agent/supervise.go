package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
)

// Supervisor is what started the agent and ends it when it hangs, as systemd does.
type Supervisor interface {
	// Ready says that the agent answers on its socket, at the start and after a reload.
	Ready(status string)
	Reloading()
	// Alive says that the agent's loops go round and its socket answers.
	Alive(status string)
	Stopping()
	// Patience is how long it waits for Alive; 0: for ever.
	Patience() time.Duration
}

// nobody is the Supervisor of an agent that was started by hand.
type nobody struct{}

func (nobody) Ready(string)            {}
func (nobody) Reloading()              {}
func (nobody) Alive(string)            {}
func (nobody) Stopping()               {}
func (nobody) Patience() time.Duration { return 0 }

// Bounds of a healthy agent.
const (
	aliveEvery = 20 * time.Second // at most, between two looks at itself
	roundWait  = 15 * time.Minute // for one round of a loop, with all keys and stores silent
	jobsWait   = 20 * time.Second // for all jobs to come to a safe point, at the end
)

// supervised keeps the supervisor informed until ctx ends. A look at itself that
// fails is not told, and the supervisor does what it does with those who hang.
func (a *Agent) supervised(ctx context.Context) {
	every := aliveEvery
	if p := a.Supervisor.Patience() / 3; p > 0 {
		every = min(every, p)
	}
	client := control.NewClient(control.ClientConfig{Socket: a.settings().Agent.Socket})
	defer client.Close()
	for {
		select {
		case <-a.After(every):
		case <-ctx.Done():
			return
		}
		switch err := a.lookAtSelf(ctx, client, every); {
		case err == nil:
			a.Supervisor.Alive(a.headline())
		case ctx.Err() == nil:
			a.Log.Error("the agent hangs", "err", err)
		}
	}
}

// lookAtSelf asks the agent as coffer does, and its loops whether they go round.
func (a *Agent) lookAtSelf(ctx context.Context, client *control.Client, patience time.Duration) error {
	if late := a.pulse.late(a.Clock()); late != "" {
		return fmt.Errorf("the loop of %s has not come round for %s", late, roundWait)
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := client.Jobs(asking, control.JobFilter{Limit: 1}); err != nil {
		return fmt.Errorf("ask the agent for its jobs: %w", err)
	}
	return nil
}

// headline is the agent's state in one line.
func (a *Agent) headline() string {
	var wrong []string
	if a.reloadFault() != nil {
		wrong = append(wrong, "the configuration on disk was refused")
	}
	for _, vault := range slices.Sorted(maps.Keys(a.settings().Vaults)) {
		switch s := a.watch.Health(vault).State(); s {
		case custody.Degraded, custody.Inaccessible, custody.RequiresRevalidation:
			wrong = append(wrong, fmt.Sprintf("keys of vault %s: %s", vault, s))
		}
	}
	line := "All well"
	if len(wrong) > 0 {
		line = strings.Join(wrong, "; ") + ": coffer status"
	}
	switch running := len(a.jobs.List(control.JobFilter{State: control.JobRunning})); running {
	case 0:
		return line
	case 1:
		return line + "; 1 job runs"
	default:
		return fmt.Sprintf("%s; %d jobs run", line, running)
	}
}

// pulse is by when each of the agent's loops has to come round again.
type pulse struct {
	mu  sync.Mutex
	due map[string]time.Time
}

// beat says that a loop goes round, and sleeps for so long before it does again.
func (p *pulse) beat(loop string, now time.Time, sleep time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due == nil {
		p.due = make(map[string]time.Time)
	}
	p.due[loop] = now.Add(sleep + roundWait)
}

// late returns the name of a loop that should have come round by now, or "".
func (p *pulse) late(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, loop := range slices.Sorted(maps.Keys(p.due)) {
		if now.After(p.due[loop]) {
			return loop
		}
	}
	return ""
}
