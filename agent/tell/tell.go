// Package tell tells what happens: to people, when something becomes wrong and when it is
// right again, and to Prometheus. What there is to tell it finds by looking at the status
// now and then, and soon after something has happened.
package tell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/alarm"
	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/state"
)

// LookEvery is how often the agent looks at itself to tell what is wrong.
const LookEvery = 5 * time.Minute

const (
	lookSoon  = 30 * time.Second // after the last one, when something has happened
	storeWait = 15 * time.Minute // a store is away for, before it is told
)

// Config of a teller: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	State    *state.Folder
	Secret   func(ref string) ([]byte, error) // nil: there are none
	// Status is what there is to tell of, at each look. No two are asked for at a time.
	Status func(ctx context.Context) (control.Status, error)
	// Wrong says what is wrong with the vaults and items of a status.
	Wrong func(control.Status) *alarm.Found
	// Lost returns how many points of an item are gone that no prune removed.
	Lost func(vault, item string) int
	// Refused returns why the last reload changed nothing, or nil if it did.
	Refused func() *control.Problem
	// Retried tells whether a job that has failed is tried again by itself.
	Retried func(control.Job) bool
	Health  func(vault string) custody.Health
	// Asked is when one of the keys was asked last.
	Asked   func(keys []string) time.Time
	Retries func(vault config.Vault) int64 // nil: nobody counts
	Audit   *audit.Daily
	Counts  *metrics.Metrics
	Jobs    *queue.Queue
	// Round is told how long it may be until the next look.
	Round   func(sleep time.Duration)
	Program control.Version
	Host    string
	Started time.Time
	Clock   func() time.Time
	After   func(time.Duration) <-chan time.Time
	Log     *slog.Logger
}

// Teller tells what happens. It is safe for concurrent use.
type Teller struct {
	cfg      Config
	notifier *notify.Notifier
	wake     chan struct{} // of length 1

	mu       sync.Mutex
	status   control.Status // at the last look
	looked   time.Time
	gone     map[string]int       // objects of an item that somebody deleted
	away     map[string]time.Time // stores, by vault, since when
	reloaded metrics.Outcome      // the last reload
}

// New makes what tells. It tells nothing before it runs.
func New(cfg Config) *Teller {
	secret := cfg.Secret
	if secret == nil {
		secret = func(string) ([]byte, error) { return nil, errors.ErrUnsupported }
	}
	return &Teller{cfg: cfg, wake: make(chan struct{}, 1), reloaded: metrics.Outcome{Good: true, At: cfg.Started},
		notifier: notify.Open(notify.Config{Path: cfg.State.Path("notify.json"), Host: cfg.Host, Secret: secret, Clock: cfg.Clock, After: cfg.After, Log: cfg.Log,
			Channels: func() map[string]config.Notify { return cfg.Settings().Notify }})}
}

// Check tries a way to tell. Nobody is told anything.
func (t *Teller) Check(ctx context.Context, channel config.Notify) error {
	return t.notifier.Check(ctx, channel)
}

// Run tells until ctx ends.
func (t *Teller) Run(ctx context.Context) {
	var channels sync.WaitGroup
	channels.Go(func() { t.notifier.Run(ctx) })
	defer channels.Wait()
	for ctx.Err() == nil {
		t.cfg.Round(LookEvery)
		t.lookAround(ctx)
		select {
		case <-t.cfg.After(lookSoon): // what happens at once is looked at once
		case <-ctx.Done():
			return
		}
		select {
		case <-t.wake:
		case <-t.cfg.After(LookEvery - lookSoon):
		case <-ctx.Done():
		}
	}
}

// lookSoon has the agent look at itself: something has changed.
func (t *Teller) lookSoon() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// lookAround looks at everything, and tells what has become wrong or well.
func (t *Teller) lookAround(ctx context.Context) {
	s, err := t.cfg.Status(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.cfg.Log.Warn("the agent did not see how it stands", "err", err)
		}
		return
	}
	gone := make(map[string]int)
	for _, it := range s.Items {
		gone[it.Name] = t.cfg.Lost(it.Vault, it.Name)
	}
	t.mu.Lock()
	for _, it := range t.status.Items {
		if _, still := gone[it.Name]; !still {
			t.cfg.Counts.Forget(it.Name)
		}
	}
	t.status, t.looked, t.gone = s, t.cfg.Clock(), gone
	t.mu.Unlock()
	t.cfg.Audit.Look(ctx)
	if err := t.cfg.State.Settle(); err != nil {
		t.cfg.Log.Warn("what is known of keys is still not written down", "err", err)
	}
	t.tellStatus(t.found(s))
}

// JobBegan tells those who watch for missing backups that one has begun.
func (t *Teller) JobBegan(j control.Job) {
	if j.Kind == control.KindBackup {
		t.notifier.Ping(j.Item, notify.Started)
	}
}

// JobEnded tells how a job ended. One that is tried again by itself has not failed yet.
func (t *Teller) JobEnded(j control.Job) {
	defer t.lookSoon()
	t.cfg.Counts.JobEnded(j)
	what := strings.TrimSpace(j.Kind + " " + cmp.Or(j.Item, j.Vault))
	if j.Item != "" || j.Vault != "" {
		what = j.Kind + " of " + cmp.Or(j.Item, j.Vault)
	}
	notice := message.Notice{Subject: what, Item: j.Item, Job: j.ID}
	about := "job " + what
	faults := foundBy(j)
	switch {
	case j.State == control.JobDone && faults == 0:
		notice.Kind, notice.Message = message.Success, "it is done"
		if p := pointOf(j); p != "" {
			notice.Message = "point " + p + " is kept"
		}
		t.notifier.Clear(about, notice)
		t.notifier.Tell(notice)
		t.ping(j, notify.Finished)
	case j.State == control.JobDone:
		notice.Kind, notice.Message = message.Failure, fmt.Sprintf("it found %d faults, the first: %s", faults, j.Result.Verify.Faults[0])
		notice.Next = fmt.Sprintf("see all: coffer job show %d", j.ID)
		if j.Item != "" {
			about = alarm.About{Kind: alarm.Damage, Name: j.Item}.String() // looks go on with it
		}
		t.notifier.Report(notify.Report{About: about, Notice: notice})
	case j.State == control.JobFailed && !t.cfg.Retried(j):
		notice.Kind = message.Failure
		if j.Error != nil {
			notice.Message, notice.Next = j.Error.Message, j.Error.Next
		}
		notice.Next = cmp.Or(notice.Next, fmt.Sprintf("see more: coffer job show %d", j.ID))
		t.notifier.Report(notify.Report{About: about, Notice: notice})
		t.ping(j, notify.Failed)
	}
}

func (t *Teller) ping(j control.Job, s notify.Signal) {
	if j.Kind == control.KindBackup {
		t.notifier.Ping(j.Item, s)
	}
}

// foundBy returns how many faults a verify found that it did not mend.
func foundBy(j control.Job) int {
	if j.Result == nil || j.Result.Verify == nil {
		return 0
	}
	return len(j.Result.Verify.Faults)
}

func pointOf(j control.Job) string {
	if j.Result == nil || j.Result.Point == nil {
		return ""
	}
	return j.Result.Point.ID
}

// Problems are those of the ways to tell, and of the audit log.
func (t *Teller) Problems() []control.Problem {
	var out []control.Problem
	if err := t.cfg.Audit.Fault(); err != nil {
		out = append(out, auditProblem(err))
	}
	for _, c := range t.notifier.Channels() {
		if !c.Failing.IsZero() {
			out = append(out, control.Problem{Subject: "notify " + c.Name,
				Message: fmt.Sprintf("notices do not get through since %s: %s", c.Failing.UTC().Format(time.RFC3339), c.Error),
				Next:    "see what is wrong: coffer doctor; and correct notify." + c.Name + " in the config"})
		}
	}
	return out
}

func auditProblem(err error) control.Problem {
	return control.Problem{Subject: "audit log", Message: err.Error(), Next: "make room in, or mend, the agent's state folder; then: coffer audit verify"}
}

// Keys tells what has become of a vault's keys.
func (t *Teller) Keys(vault string, notices []custody.Notice) {
	if len(notices) == 0 {
		return
	}
	defer t.lookSoon()
	about := "keys of vault " + vault
	last := notices[len(notices)-1]
	notice := message.Notice{Kind: message.Alarm, Subject: about, Message: last.Says, Next: last.Next}
	if last.To == custody.Accessible {
		t.notifier.Clear(about, notice)
		return
	}
	how := notify.Lasts
	if slices.ContainsFunc(notices, func(n custody.Notice) bool { return n.Kind == custody.Alarm || n.From != n.To }) {
		how = notify.Graver // custody says how often
	}
	t.notifier.Report(notify.Report{About: about, Notice: notice, How: how})
}

// Reloaded notes how a reload went.
func (t *Teller) Reloaded() {
	t.mu.Lock()
	if t.reloaded.Good = t.cfg.Refused() == nil; t.reloaded.Good {
		t.reloaded.At = t.cfg.Clock()
	}
	t.mu.Unlock()
	t.lookSoon()
}
