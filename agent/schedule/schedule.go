// Package schedule runs what is due: policies for their items, and what vaults have
// done again and again. What is decided is in Task and Record, which have no clock;
// Runner keeps the records and asks again whenever something may have changed.
//
// Invariants:
//   - A run is recorded before it begins. After a crash it is found as one that was cut
//     off, and tried again: at most one run too many, and none lost.
//   - However many runs were missed, one makes up for them.
//   - A task that is new, or whose schedule was changed, runs at its next time and not
//     at once; what the old schedule owed is still owed.
//   - A clock that is put back runs nothing twice, and waits for nothing that it has seen
//     before: what is remembered is put back with it.
//   - What stands in the way of a run that is not the run's fault uses up no try.
package schedule

import (
	"fmt"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

// Task is something to run again and again.
type Task struct {
	Name     string // "item etc" or "vault site/prune"; one of all tasks
	Spec     Spec
	Attempts policy.Attempts
	// Blocked says why it cannot run now; "" if nothing stands in its way.
	Blocked string
}

// Spec is when a task runs, in words, as it is remembered: a task with another one has
// been changed. The zero value is a task that runs only when somebody asks.
type Spec struct {
	Text   string        `json:"schedule,omitempty"`
	Zone   string        `json:"zone,omitempty"` // a name, or Local; "" is UTC
	Not    string        `json:"not,omitempty"`  // windows, one a line
	Jitter time.Duration `json:"jitter,omitempty"`
	Seed   string        `json:"seed,omitempty"` // of the jitter
}

// Schedule reads the words; nil if there are none.
func (s Spec) Schedule() (*policy.Schedule, error) {
	if s.Text == "" {
		return nil, nil
	}
	zone, err := time.LoadLocation(s.Zone)
	if err != nil {
		return nil, fmt.Errorf("time zone of a schedule: %w", err)
	}
	opts := policy.Options{Zone: zone, Jitter: s.Jitter, Seed: s.Seed}
	for text := range strings.Lines(s.Not) {
		w, err := policy.ParseWindow(strings.TrimSuffix(text, "\n"))
		if err != nil {
			return nil, err
		}
		opts.Not = append(opts.Not, w)
	}
	return policy.ParseSchedule(s.Text, opts)
}

// Try is one try of a run.
type Try struct {
	Number int       // from 1
	Began  time.Time // when the run began: its first try
	// Until is when the run must have ended; zero if it has the time that it takes.
	Until time.Time
	Asked bool   // somebody asked for it
	By    string // who
}

// Outcome is how a try ended.
type Outcome int

// The outcomes.
const (
	Good      Outcome = iota
	Failed            // it is worth trying again
	Final             // trying again cannot help, or is not wanted
	Prevented         // by what is not its fault: it used up no try
	Stopped           // by the end of the agent: the next one tries it again
)
