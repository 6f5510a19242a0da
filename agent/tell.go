package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// How often the agent looks at itself to tell what is wrong.
const (
	lookEvery  = 5 * time.Minute
	lookSoon   = 30 * time.Second // after the last one, when something has happened
	auditEvery = 24 * time.Hour   // the whole chain of the audit log
	storeWait  = 15 * time.Minute // a store is away for, before it is told
)

// teller tells what happens: to people, and to Prometheus.
type teller struct {
	*notify.Notifier
	counts *metrics.Metrics
	wake   chan struct{} // of length 1

	mu       sync.Mutex
	status   control.Status // at the last look
	looked   time.Time
	gone     map[string]int       // objects of an item that somebody deleted
	away     map[string]time.Time // stores, by vault, since when
	reloaded metrics.Outcome      // the last reload
	verified time.Time            // the audit log
	broken   string               // how it is; "": it is whole
}

// newTeller makes what tells. It tells nothing before it runs.
func (a *Agent) newTeller() *teller {
	secret := a.Parts.Secret
	if secret == nil {
		secret = func(string) ([]byte, error) { return nil, errors.ErrUnsupported }
	}
	t := &teller{wake: make(chan struct{}, 1), away: make(map[string]time.Time), reloaded: metrics.Outcome{Good: true, At: a.started},
		Notifier: notify.Open(notify.Config{Path: a.state.path("notify.json"), Host: a.host, Secret: secret, Clock: a.Clock, After: a.After, Log: a.Log,
			Channels: func() map[string]config.Notify { return a.settings().Notify }})}
	t.counts = metrics.New(metrics.Config{View: a.view})
	return t
}

// telling tells until ctx ends.
func (a *Agent) telling(ctx context.Context) {
	var channels sync.WaitGroup
	channels.Go(func() { a.tell.Run(ctx) })
	defer channels.Wait()
	for ctx.Err() == nil {
		a.pulse.beat("telling", a.Clock(), lookEvery)
		a.lookAround(ctx)
		select {
		case <-a.After(lookSoon): // what happens at once is looked at once
		case <-ctx.Done():
			return
		}
		select {
		case <-a.tell.wake:
		case <-a.After(lookEvery - lookSoon):
		case <-ctx.Done():
		}
	}
}

// lookSoon has the agent look at itself: something has changed.
func (t *teller) lookSoon() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// lookAround looks at everything, and tells what has become wrong or well.
func (a *Agent) lookAround(ctx context.Context) {
	s, err := a.Status(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.Log.Warn("the agent did not see how it stands", "err", err)
		}
		return
	}
	gone := make(map[string]int)
	for _, it := range s.Items {
		gone[it.Name] = a.goneOf(it)
	}
	a.tell.mu.Lock()
	for _, it := range a.tell.status.Items {
		if _, still := gone[it.Name]; !still {
			a.tell.counts.Forget(it.Name)
		}
	}
	a.tell.status, a.tell.looked, a.tell.gone = s, a.Clock(), gone
	a.tell.mu.Unlock()
	a.verifyAudit(ctx)
	if err := a.state.settle(); err != nil {
		a.Log.Warn("what is known of keys is still not written down", "err", err)
	}
	a.tellStatus(a.found(s, gone))
}

// goneOf returns how many points of an item are gone that no prune removed.
func (a *Agent) goneOf(it control.Item) int {
	v := a.opened(it.Vault)
	if v == nil {
		return 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen[it.Name].synced.Lost
}

// verifyAudit reads the whole audit log now and then.
func (a *Agent) verifyAudit(ctx context.Context) {
	now := a.Clock()
	if since := now.Sub(a.tell.verified); since >= 0 && since < auditEvery {
		return
	}
	report, err := audit.Verify(ctx, a.state.path("audit"), audit.Options{})
	if ctx.Err() != nil {
		return
	}
	says := ""
	switch {
	case err != nil:
		says = err.Error()
	case len(report.Faults) > 0:
		says = fmt.Sprintf("%d faults, the first: %s", len(report.Faults)+report.More, report.Faults[0])
	}
	a.tell.mu.Lock()
	defer a.tell.mu.Unlock()
	a.tell.verified, a.tell.broken = now, says
}

// auditFault says what is wrong with the audit log; "" if nothing is.
func (a *Agent) auditFault() string {
	a.tell.mu.Lock()
	defer a.tell.mu.Unlock()
	if err := a.audit.Fault(); err != nil {
		return err.Error()
	}
	return a.tell.broken
}

// told is what a look has found: what is wrong, by what it is about, and about what it
// cannot say anything.
type told struct {
	wrong   map[string]message.Notice
	unknown map[string]bool
}

// The kinds of faults that looks find. What each is about is the kind and a name.
const (
	aboutVault   = "vault "
	aboutStore   = "store "
	aboutItem    = "item "
	aboutOverdue = "overdue "
	aboutGone    = "gone "
	aboutDamage  = "damage "
	aboutAgent   = "agent "
)

// looksFind tells whether a fault is one that looks find, and clear.
func looksFind(about string) bool {
	for _, kind := range []string{aboutVault, aboutStore, aboutItem, aboutOverdue, aboutGone, aboutDamage, aboutAgent} {
		if strings.HasPrefix(about, kind) {
			return true
		}
	}
	return false
}

// found is what is wrong by a look.
func (a *Agent) found(s control.Status, gone map[string]int) told {
	t := told{make(map[string]message.Notice), make(map[string]bool)}
	closed := make(map[string]bool) // vaults of whose items nothing can be said
	for _, v := range s.Vaults {
		closed[v.Name] = a.findVault(t, v, storeFault(v, s.Items))
	}
	for _, it := range s.Items {
		findItem(t, it, gone[it.Name], closed[it.Vault], s.Problems)
	}
	if p := a.reloadFault(); p != nil {
		t.add(aboutAgent+"configuration", "", *p)
	}
	if says := a.auditFault(); says != "" {
		t.add(aboutAgent+"audit log", "", auditProblem(says))
	}
	for _, p := range s.Problems {
		if p.Subject == stateSubject {
			what, _, _ := strings.Cut(p.Message, " ") // the file or folder
			t.add(aboutAgent+stateSubject+" "+what, "", p)
		}
	}
	return t
}

func (t told) add(about, item string, p control.Problem) {
	t.wrong[about] = message.Notice{Kind: message.Alarm, Subject: p.Subject, Message: p.Message, Next: p.Next, Item: item}
}

// storeFault returns why a vault's store cannot be used, or nil if it can: an open vault
// itself asks it nothing.
func storeFault(v control.Vault, items []control.Item) *control.Error {
	if v.Error != nil && v.Error.Code == control.CodeStore {
		return v.Error
	}
	for _, it := range items {
		if it.Vault == v.Name && it.Error != nil && it.Error.Code == control.CodeStore {
			return it.Error
		}
	}
	return nil
}

// findVault notes what is wrong with a vault, and tells whether nothing can be said of
// its items. What becomes of its keys is told when it happens.
func (a *Agent) findVault(t told, v control.Vault, unstored *control.Error) (closed bool) {
	a.tell.mu.Lock()
	since, away := a.tell.away[v.Name]
	switch {
	case unstored == nil:
		delete(a.tell.away, v.Name)
	case !away:
		since = a.Clock()
		a.tell.away[v.Name] = since
	}
	a.tell.mu.Unlock()
	switch {
	case v.State == control.StateAbsent:
		return true
	case unstored != nil:
		t.unknown[aboutVault+v.Name] = true
		if a.Clock().Sub(since).Abs() < storeWait {
			t.unknown[aboutStore+v.Name] = true
			break
		}
		t.add(aboutStore+v.Name, "", control.Problem{Subject: "store of vault " + v.Name,
			Message: fmt.Sprintf("since %s: %s", since.UTC().Format(time.RFC3339), unstored.Message), Next: unstored.Next})
	case v.Error == nil:
		return false
	case v.Error.Code == control.CodeKeysInaccessible:
		t.unknown[aboutVault+v.Name], t.unknown[aboutStore+v.Name] = true, true
	default:
		t.add(aboutVault+v.Name, "", control.Problem{Subject: "vault " + v.Name, Message: v.Error.Message, Next: v.Error.Next})
	}
	return unstored != nil || v.State != control.StateDegraded
}

// findItem notes what is wrong with an item.
func findItem(t told, it control.Item, gone int, closed bool, problems []control.Problem) {
	subject := "item " + it.Name
	says := control.Problem{Subject: subject, Next: "see why: coffer job list --item " + it.Name}
	for _, p := range problems {
		if p.Subject == subject && (closed || it.Error == nil) {
			says = p // it says how long, and what to do
		}
	}
	if it.Overdue {
		p := says
		p.Subject, p.Message = "backup of "+it.Name, cmp.Or(says.Message, "a backup was due, and no good point came of it")
		t.add(aboutOverdue+it.Name, it.Name, p)
	}
	if it.Proof.Faults > 0 {
		t.add(aboutDamage+it.Name, it.Name, control.Problem{Subject: subject, Message: fmt.Sprintf("verifies found %d faults that are not mended", it.Proof.Faults),
			Next: "mend what the source still has: coffer verify " + it.Name + " --repair"})
	}
	switch {
	case gone > 0:
		t.add(aboutGone+it.Name, it.Name, control.Problem{Subject: subject,
			Message: fmt.Sprintf("%d points that were there are gone: they were deleted behind the agent's back", gone),
			Next:    "find out who deleted them, and from where; backups go on meanwhile. To take note of it: coffer point forget " + it.Name + "@POINT"})
		return
	case closed, it.Error != nil && it.Error.Code == control.CodeStore:
		t.unknown[aboutItem+it.Name], t.unknown[aboutGone+it.Name] = true, true
	case it.Error != nil:
		t.unknown[aboutGone+it.Name] = true
		t.add(aboutItem+it.Name, it.Name, control.Problem{Subject: subject, Message: it.Error.Message, Next: it.Error.Next})
	case says.Message != "" && !it.Overdue && it.Proof.Faults == 0 && it.Points > 0: // it is dated in the future, its proof is old
		t.add(aboutItem+it.Name, it.Name, says)
	}
}

// tellStatus tells what a look has found, and what of the look before is over.
func (a *Agent) tellStatus(t told) {
	for about, notice := range t.wrong {
		a.tell.Report(notify.Report{About: about, Notice: notice, How: notify.Lasts})
	}
	for _, about := range a.tell.Faults() {
		if _, wrong := t.wrong[about]; !wrong && !t.unknown[about] && looksFind(about) {
			a.tell.Clear(about, message.Notice{Message: "it is well again"})
		}
	}
}

// jobBegan tells those who watch for missing backups that one has begun.
func (a *Agent) jobBegan(j control.Job) {
	if j.Kind == control.KindBackup {
		a.tell.Ping(j.Item, notify.Started)
	}
}

// jobEnded tells how a job ended. One that is tried again by itself has not failed yet.
func (a *Agent) jobEnded(j control.Job) {
	defer a.tell.lookSoon()
	a.tell.counts.JobEnded(j)
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
		a.tell.Clear(about, notice)
		a.tell.Tell(notice)
		a.ping(j, notify.Finished)
	case j.State == control.JobDone:
		notice.Kind, notice.Message = message.Failure, fmt.Sprintf("it found %d faults, the first: %s", faults, j.Result.Verify.Faults[0])
		notice.Next = fmt.Sprintf("see all: coffer job show %d", j.ID)
		if j.Item != "" {
			about = aboutDamage + j.Item // looks go on with it
		}
		a.tell.Report(notify.Report{About: about, Notice: notice})
	case j.State == control.JobFailed && !a.retried(j):
		notice.Kind = message.Failure
		if j.Error != nil {
			notice.Message, notice.Next = j.Error.Message, j.Error.Next
		}
		notice.Next = cmp.Or(notice.Next, fmt.Sprintf("see more: coffer job show %d", j.ID))
		a.tell.Report(notify.Report{About: about, Notice: notice})
		a.ping(j, notify.Failed)
	}
}

func (a *Agent) ping(j control.Job, s notify.Signal) {
	if j.Kind == control.KindBackup {
		a.tell.Ping(j.Item, s)
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

// tellingProblems are those of the ways to tell, and of the audit log.
func (a *Agent) tellingProblems() []control.Problem {
	var out []control.Problem
	if says := a.auditFault(); says != "" {
		out = append(out, auditProblem(says))
	}
	for _, c := range a.tell.Channels() {
		if !c.Failing.IsZero() {
			out = append(out, control.Problem{Subject: "notify " + c.Name,
				Message: fmt.Sprintf("notices do not get through since %s: %s", c.Failing.UTC().Format(time.RFC3339), c.Error),
				Next:    "see what is wrong: coffer doctor; and correct notify." + c.Name + " in the config"})
		}
	}
	return out
}

func auditProblem(says string) control.Problem {
	return control.Problem{Subject: "audit log", Message: says, Next: "make room in, or mend, the agent's state folder; then: coffer audit verify"}
}

// tellKeys tells what has become of a vault's keys.
func (a *Agent) tellKeys(vault string, notices []custody.Notice) {
	if len(notices) == 0 {
		return
	}
	defer a.tell.lookSoon()
	about := "keys of vault " + vault
	last := notices[len(notices)-1]
	notice := message.Notice{Kind: message.Alarm, Subject: about, Message: last.Says, Next: last.Next}
	if last.To == custody.Accessible {
		a.tell.Clear(about, notice)
		return
	}
	how := notify.Lasts
	if slices.ContainsFunc(notices, func(n custody.Notice) bool { return n.Kind == custody.Alarm || n.From != n.To }) {
		how = notify.Graver // custody says how often
	}
	a.tell.Report(notify.Report{About: about, Notice: notice, How: how})
}

// tellReload notes how a reload went.
func (a *Agent) tellReload() {
	a.tell.mu.Lock()
	if a.tell.reloaded.Good = a.reloadFault() == nil; a.tell.reloaded.Good {
		a.tell.reloaded.At = a.Clock()
	}
	a.tell.mu.Unlock()
	a.tell.lookSoon()
}
