package tell

import (
	"fmt"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/alarm"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
	"github.com/cofferbackup/coffer/agent/state"
)

// told is what a look has found: what is wrong, by what it is about, and about what it
// cannot say anything.
type told struct {
	wrong   map[string]message.Notice
	unknown func(about string) bool
}

// aboutAgent begins what faults of the agent itself are about. Of vaults and items it is
// what package alarm says.
const aboutAgent = "agent "

// looksFind tells whether a fault is one that looks find, and clear.
func looksFind(about string) bool {
	_, ok := alarm.ParseAbout(about)
	return ok || strings.HasPrefix(about, aboutAgent)
}

// found is what is wrong by a look.
func (t *Teller) found(s control.Status) told {
	look := t.cfg.Wrong(s)
	out := told{wrong: make(map[string]message.Notice)}
	awaited := t.wait(look) // stores of which it is too early to tell
	out.unknown = func(about string) bool {
		a, ok := alarm.ParseAbout(about)
		return ok && (look.Unknown(a) || a.Kind == alarm.Store && awaited[a.Name])
	}
	for _, f := range look.Faults {
		p := f.Problem
		switch f.Kind {
		case alarm.Absent, alarm.Empty:
			continue // whoever is setting it up sees it
		case alarm.Keys:
			continue // what becomes of them is told when it happens
		case alarm.Store:
			if awaited[f.Name] {
				continue
			}
			p.Subject = "store of " + p.Subject
			p.Message = fmt.Sprintf("since %s: %s", t.since(f.Name).UTC().Format(time.RFC3339), p.Message)
		case alarm.Overdue:
			p.Subject = "backup of " + f.Name
		}
		out.add(f.About.String(), f.Item, p)
	}
	if p := t.cfg.Refused(); p != nil {
		out.add(aboutAgent+"configuration", "", *p)
	}
	if err := t.cfg.Audit.Fault(); err != nil {
		out.add(aboutAgent+"audit log", "", auditProblem(err))
	}
	for _, p := range s.Problems {
		if p.Subject == state.Subject {
			what, _, _ := strings.Cut(p.Message, " ") // the file or folder
			out.add(aboutAgent+state.Subject+" "+what, "", p)
		}
	}
	return out
}

func (t told) add(about, item string, p control.Problem) {
	t.wrong[about] = message.Notice{Kind: message.Alarm, Subject: p.Subject, Message: p.Message, Next: p.Next, Item: item}
}

// wait notes which vaults' stores are away, and since when. It returns those that have
// not been so for long.
func (t *Teller) wait(look *alarm.Found) map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, before := t.cfg.Clock(), t.away
	t.away = make(map[string]time.Time)
	awaited := make(map[string]bool)
	for _, f := range look.Faults {
		if f.Kind != alarm.Store {
			continue
		}
		since, known := before[f.Name]
		if !known {
			since = now
		}
		t.away[f.Name] = since
		awaited[f.Name] = now.Sub(since).Abs() < storeWait
	}
	return awaited
}

// since is since when a vault's store is away.
func (t *Teller) since(vault string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.away[vault]
}

// tellStatus tells what a look has found, and what of the look before is over.
func (t *Teller) tellStatus(found told) {
	for about, notice := range found.wrong {
		t.notifier.Report(notify.Report{About: about, Notice: notice, How: notify.Lasts})
	}
	for _, about := range t.notifier.Faults() {
		if _, wrong := found.wrong[about]; !wrong && !found.unknown(about) && looksFind(about) {
			t.notifier.Clear(about, message.Notice{Message: "it is well again"})
		}
	}
}
