// Package plan is what the agent does by itself, and when: the policies of the configuration
// for their items, and what its vaults have done again and again.
package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/schedule"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/internal/throttle"
)

// Config of a plan: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	State    *state.Folder
	Vaults   *vault.Set
	// Refused returns an error if the keys of a vault were taken away.
	Refused func(vault string) error
	Jobs    *queue.Queue
	// Backup starts a backup of an item, as a try of a run of a policy; Prune starts the
	// prune of a vault, and Verify a verification.
	Backup func(by, item, policy string, try schedule.Try) (*queue.Job, error)
	Prune  func(by, vault string) *queue.Job
	Verify func(by, vault string, depth proof.Depth) *queue.Job
	// Explain says of each point of an item why it is kept, or when it goes.
	Explain func(ctx context.Context, item string) ([]control.PointFate, error)
	// Round is told that the plan looks for what is due.
	Round func(sleep time.Duration)
	Host  string
	Clock func() time.Time
	After func(time.Duration) <-chan time.Time
	Log   *slog.Logger
}

// Plan is what the agent does by itself, and when. It implements control.Policies, and is
// safe for concurrent use.
type Plan struct {
	cfg    Config
	runner *schedule.Runner

	mu     sync.Mutex
	limits map[string]*throttle.Limiter // of what backups read, by policy
}

// duty is what a task is about: an item that some policy has backed up, or a vault. The
// policy has no part in it: what is owed is owed when it is renamed, too.
type duty struct {
	item        string // of a backup
	vault, what string // of something that is done to a vault
}

// The things that are done to vaults.
const (
	dutyPrune     = "prune"
	dutyStructure = "structure"
	dutyData      = "data"
	dutyRestore   = "restore"
)

// String names the task.
func (d duty) String() string {
	if d.item != "" {
		return "item " + d.item
	}
	return "vault " + d.vault + "/" + d.what
}

// dutyOf reads the name of a task. No name of ours has a blank or a slash in it.
func dutyOf(task string) duty {
	kind, rest, _ := strings.Cut(task, " ")
	if kind == "item" {
		return duty{item: rest}
	}
	vault, what, _ := strings.Cut(rest, "/")
	return duty{vault: vault, what: what}
}

// vaultAttempts are those of what is done to vaults: it comes again soon enough.
var vaultAttempts = policy.Attempts{Tries: 3, First: 5 * time.Minute, Longest: time.Hour}

// Open reads what is remembered of runs. Nothing is started before Run.
func Open(cfg Config) *Plan {
	p := &Plan{cfg: cfg, limits: make(map[string]*throttle.Limiter)}
	began := cfg.Clock()
	p.runner = schedule.Open(schedule.Config{
		Memory: schedule.File(cfg.State.Path("schedule.json")), Clock: cfg.Clock, After: cfg.After, Log: cfg.Log,
		Elapsed: func() time.Duration { return cfg.Clock().Sub(began) }, // by the monotonic clock, which time.Now has too
		Tasks: func() []schedule.Task {
			cfg.Round(0)
			return p.tasks()
		},
		Start: p.startDue,
	})
	return p
}

// Run starts what is due until ctx ends.
func (p *Plan) Run(ctx context.Context) { p.runner.Run(ctx) }

// tasks are what the configuration asks for now.
func (p *Plan) tasks() []schedule.Task {
	cfg := p.cfg.Settings()
	blocked := make(map[string]string)
	for name := range cfg.Vaults {
		blocked[name] = p.blocked(name)
	}
	var out []schedule.Task
	for _, name := range slices.Sorted(maps.Keys(cfg.Policies)) {
		for _, item := range cfg.Policies[name].Items {
			t := p.backupTask(cfg, name, item)
			t.Blocked = blocked[cfg.Items[item].Vault]
			out = append(out, t)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Vaults)) {
		v := cfg.Vaults[name]
		for _, d := range []struct{ what, text string }{
			{dutyPrune, v.Prune.Schedule}, {dutyStructure, v.Verify.Structure}, {dutyData, v.Verify.Data}, {dutyRestore, v.Verify.Restore},
		} {
			if d.text != "" {
				out = append(out, schedule.Task{Name: duty{vault: name, what: d.what}.String(),
					Spec: schedule.Spec{Text: d.text, Zone: "Local"}, Attempts: vaultAttempts, Blocked: blocked[name]})
			}
		}
	}
	return out
}

// backupTask is the task of an item of a policy.
func (p *Plan) backupTask(cfg *config.Config, name, item string) schedule.Task {
	of := cfg.Policies[name]
	t := schedule.Task{Name: duty{item: item}.String(), Attempts: of.Tries()}
	if of.Schedule != "" {
		t.Spec = schedule.Spec{Text: of.Schedule, Zone: cmp.Or(of.Timezone, "Local"), Not: strings.Join(of.Not, "\n"), Jitter: time.Duration(of.Jitter)}
		if of.Jitter > 0 {
			t.Spec.Seed = p.cfg.Host + "/" + cfg.Items[item].Vault + "/" + item
		}
	}
	return t
}

// blocked says why nothing can be done with a vault now; "" if it can.
func (p *Plan) blocked(vault string) string {
	if _, err := p.cfg.Vaults.Pinned(vault); err != nil {
		return fmt.Sprintf("vault %s has no id here: it is still to be made, or its id is missing in the config (vaults.%s.id)", vault, vault)
	}
	if err := p.cfg.Refused(vault); err != nil {
		return control.AsError(err).Message
	}
	return ""
}

// startDue starts what is due.
func (p *Plan) startDue(t schedule.Task, try schedule.Try) (int64, error) {
	d := dutyOf(t.Name)
	var j *queue.Job
	var err error
	by := "schedule of vault " + d.vault
	switch {
	case d.item != "":
		name, _ := p.cfg.Settings().PolicyOf(d.item)
		j, err = p.cfg.Backup(cmp.Or(try.By, "policy "+name), d.item, name, try)
	case d.what == dutyPrune:
		j = p.cfg.Prune(by, d.vault)
	case d.what == dutyStructure:
		j = p.cfg.Verify(by, d.vault, proof.Structure)
	case d.what == dutyData:
		j = p.cfg.Verify(by, d.vault, proof.Data)
	case d.what == dutyRestore:
		j = p.cfg.Verify(by, d.vault, proof.Restored)
	}
	if err != nil {
		return 0, err
	}
	p.cfg.Jobs.Then(j, func() { p.runner.Ended(t, j.ID(), outcome(j.Snapshot())) })
	return j.ID(), nil
}

// outcome says what the end of a job means for its task.
func outcome(j control.Job) schedule.Outcome {
	switch {
	case j.State == control.JobDone:
		return schedule.Good
	case errors.Is(j.Error, queue.ErrStopping):
		return schedule.Stopped
	case j.State == control.JobCancelled: // by somebody who did not want it
		return schedule.Final
	}
	switch j.Error.Code {
	case control.CodeKeysInaccessible:
		return schedule.Prevented
	case control.CodeDamaged, control.CodeForbidden, control.CodeBadRequest, control.CodeNotFound:
		return schedule.Final
	}
	return schedule.Failed
}

// Retried tells whether a job that has failed is tried again by itself.
func (p *Plan) Retried(j control.Job) bool {
	if j.Try == 0 || j.State != control.JobFailed {
		return false
	}
	cfg := p.cfg.Settings()
	name, _ := cfg.PolicyOf(j.Item) // as it is called now
	if name == "" {
		return false
	}
	t := p.backupTask(cfg, name, j.Item)
	s := p.runner.State(t)
	if s.Job != j.ID {
		return false
	}
	switch outcome(j) {
	case schedule.Prevented:
		return !s.Asked
	case schedule.Failed:
		// Before or after the scheduler has heard of it.
		return !s.Retry.IsZero() || s.Running && p.runner.WillRetry(t, schedule.Try{Number: j.Try, Began: s.Began, Asked: s.Asked})
	}
	return false
}

// Planned says which policy an item is in, when it is to be backed up next, and since
// when a backup has been due of which no good point came.
func (p *Plan) Planned(item string) (name string, next, overdue time.Time) {
	cfg := p.cfg.Settings()
	if name, _ = cfg.PolicyOf(item); name == "" {
		return "", next, overdue
	}
	t := p.backupTask(cfg, name, item)
	t.Blocked = p.blocked(cfg.Items[item].Vault)
	s := p.runner.State(t)
	return name, s.Next, s.Overdue
}

// Good notes that an item has a good point of a backup that began then.
func (p *Plan) Good(item string, began time.Time) {
	p.runner.Good(duty{item: item}.String(), began)
}

// Limiter is what holds back the reading of a policy's backups, at the rate that is
// asked for now; nil if nothing does.
func (p *Plan) Limiter(name string, rate config.Size) *throttle.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.limits[name]
	if l == nil && rate > 0 {
		l = throttle.New(throttle.Config{Rate: int64(rate)})
		p.limits[name] = l
	}
	if l != nil {
		l.SetRate(int64(rate))
	}
	return l
}

// Replanned looks at the tasks anew after a change of the configuration, and says what
// of it may surprise: what is not backed up any more, and points that may go.
func (p *Plan) Replanned(before, now *config.Config) (notes []string) {
	for _, item := range slices.Sorted(maps.Keys(before.Items)) {
		if note := changed(before, now, item); note != "" {
			p.cfg.Log.Warn("configuration changed", "says", note)
			notes = append(notes, note)
		}
	}
	for name, of := range now.Policies {
		p.Limiter(name, of.ReadLimit)
	}
	p.runner.Wake()
	if more := len(notes) - maxNotes; more > 0 {
		notes = append(notes[:maxNotes], fmt.Sprintf("and %d more, in the agent's log", more))
	}
	return notes
}

// maxNotes is how many surprises are told to who has the configuration reloaded.
const maxNotes = 20

// changed says what may surprise in what has become of an item; "" if nothing.
func changed(before, now *config.Config, item string) string {
	vault := before.Items[item].Vault
	switch it, still := now.Items[item]; {
	case !still:
		return fmt.Sprintf("item %s is not in it any more: nothing backs it up, and its points stay in vault %s", item, vault)
	case it.Vault != vault:
		return fmt.Sprintf("item %s goes into vault %s now, and begins anew there: its points stay in vault %s, and are seen when it names that", item, it.Vault, vault)
	}
	old, was := before.PolicyOf(item)
	name, is := now.PolicyOf(item)
	if was.Schedule != "" && is.Schedule == "" {
		return fmt.Sprintf("item %s was backed up by the schedule of policy %s, and is now only when asked", item, old)
	}
	had, limited := was.Keeps()
	has, ok := is.Keeps()
	if !ok || limited && keepsAsMuch(has, had) {
		return ""
	}
	return fmt.Sprintf("what is kept of item %s is %s now, and was %s: points that were kept may go, after a prune has marked them and the grace time has passed; see coffer policy explain %s",
		item, retentionWords(has), cmp.Or(retentionWords(had), control.KeepsEverything), name)
}

// keepsAsMuch tells whether a retention keeps all that another one does: what each of its
// rules keeps only grows with its number.
func keepsAsMuch(now, before policy.Retention) bool {
	for _, rule := range [][2]int{
		{now.Last, before.Last}, {now.Hourly, before.Hourly}, {now.Daily, before.Daily}, {now.Weekly, before.Weekly},
		{now.Monthly, before.Monthly}, {now.Yearly, before.Yearly}, {max(1, now.Minimum), before.Minimum},
	} {
		if rule[0] < rule[1] {
			return false
		}
	}
	lacks := func(tag string) bool { return !slices.Contains(now.Tags, tag) }
	return now.Within >= before.Within && !slices.ContainsFunc(before.Tags, lacks) && now.Zone.String() == before.Zone.String()
}
