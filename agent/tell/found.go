package tell

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
	"github.com/cofferbackup/coffer/agent/state"
)

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
func (t *Teller) found(s control.Status, gone map[string]int) told {
	out := told{make(map[string]message.Notice), make(map[string]bool)}
	closed := make(map[string]bool) // vaults of whose items nothing can be said
	for _, v := range s.Vaults {
		closed[v.Name] = t.findVault(out, v, storeFault(v, s.Items))
	}
	for _, it := range s.Items {
		findItem(out, it, gone[it.Name], closed[it.Vault], s.Problems)
	}
	if p := t.cfg.Refused(); p != nil {
		out.add(aboutAgent+"configuration", "", *p)
	}
	if says := t.auditFault(); says != "" {
		out.add(aboutAgent+"audit log", "", auditProblem(says))
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
func (t *Teller) findVault(out told, v control.Vault, unstored *control.Error) (closed bool) {
	t.mu.Lock()
	since, away := t.away[v.Name]
	switch {
	case unstored == nil:
		delete(t.away, v.Name)
	case !away:
		since = t.cfg.Clock()
		t.away[v.Name] = since
	}
	t.mu.Unlock()
	switch {
	case v.State == control.StateAbsent:
		return true
	case unstored != nil:
		out.unknown[aboutVault+v.Name] = true
		if t.cfg.Clock().Sub(since).Abs() < storeWait {
			out.unknown[aboutStore+v.Name] = true
			break
		}
		out.add(aboutStore+v.Name, "", control.Problem{Subject: "store of vault " + v.Name,
			Message: fmt.Sprintf("since %s: %s", since.UTC().Format(time.RFC3339), unstored.Message), Next: unstored.Next})
	case v.Error == nil:
		return false
	case v.Error.Code == control.CodeKeysInaccessible:
		out.unknown[aboutVault+v.Name], out.unknown[aboutStore+v.Name] = true, true
	default:
		out.add(aboutVault+v.Name, "", control.Problem{Subject: "vault " + v.Name, Message: v.Error.Message, Next: v.Error.Next})
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
func (t *Teller) tellStatus(found told) {
	for about, notice := range found.wrong {
		t.notifier.Report(notify.Report{About: about, Notice: notice, How: notify.Lasts})
	}
	for _, about := range t.notifier.Faults() {
		if _, wrong := found.wrong[about]; !wrong && !found.unknown[about] && looksFind(about) {
			t.notifier.Clear(about, message.Notice{Message: "it is well again"})
		}
	}
}
