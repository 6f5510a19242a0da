package alarm

import (
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/policy"
)

// item finds what is wrong with an item. closed: nothing can be seen of those of its vault.
func (f *Found) item(it control.Item, closed bool, l Look) {
	closed = closed || unstored(it)
	add := func(kind Kind, p control.Problem) {
		fault := Fault{About: About{Kind: kind, Name: it.Name}, Item: it.Name, Closed: closed, Problem: p}
		if fault.Problem.Subject = "item " + it.Name; kind == Warning {
			fault.What = p.Kind
		} else {
			fault.Problem.Kind = string(kind)
		}
		f.Faults = append(f.Faults, fault)
	}
	gone := l.Gone[it.Name]
	switch {
	case closed:
		f.hide(it.Name, Empty, Dated, Gone, Warning, Proof, Item)
	case it.Error != nil && !(gone > 0 && it.Error.Code == control.CodeDamaged): // that says which are gone
		f.hide(it.Name, Empty, Dated, Gone, Warning)
		add(Item, control.Problem{Message: it.Error.Message, Next: it.Error.Next})
	case it.Points == 0 && !it.Overdue && gone == 0:
		add(Empty, control.Problem{Message: "it has no point yet", Next: "make one: coffer backup " + it.Name})
	}
	future := it.LastGood.After(l.Now.Add(policy.ClockSkew))
	if it.Overdue {
		add(Overdue, overdue(it, closed, future))
	}
	if gone > 0 {
		add(Gone, pointsGone(it, gone))
	}
	if n := it.Proof.Faults; n > 0 {
		add(Damage, control.Problem{Message: found(n) + " not mended", Next: "mend what the source still has: coffer verify " + it.Name + " --repair"})
	}
	if closed {
		return
	}
	if future {
		add(Dated, control.Problem{Message: "its newest point is dated in the future, " + it.LastGood.UTC().Format(time.RFC3339) + ": a clock is wrong, or was",
			Next: "set the clock of this machine right, and that of the one that made the point: coffer point show " + it.Name})
	}
	for _, w := range it.Warnings {
		add(Warning, w)
	}
	if age, every := l.Now.Sub(it.Proof.Data), l.Asked[it.Vault].Proof; every > 0 && !it.Proof.Data.IsZero() && age > every+every/2 {
		add(Proof, control.Problem{Message: fmt.Sprintf("some of its data was last read %s ago, and the vault asks for every %s", days(age), days(every)),
			Next: "see why: coffer job list --item " + it.Name + "; or read all of it now: coffer verify " + it.Name})
	}
}

// overdue says that a backup of an item was due. Of what is closed it is not known which
// point was the last.
func overdue(it control.Item, closed, future bool) control.Problem {
	p := control.Problem{Message: "a backup was due, and no good point came of it", Next: "see why: coffer job list --item " + it.Name}
	switch {
	case !closed && it.Error == nil && it.Points == 0:
		p.Message = "a backup was due, and it has no point yet"
	case !it.LastGood.IsZero() && !future:
		p.Message += " since " + it.LastGood.UTC().Format(time.RFC3339)
	}
	return p
}

// pointsGone says that n points of an item are gone. Its error, if that is why, says
// which, and whether something hides them.
func pointsGone(it control.Item, n int) control.Problem {
	if it.Error != nil && it.Error.Code == control.CodeDamaged {
		return control.Problem{Message: it.Error.Message, Next: it.Error.Next}
	}
	says := "a point that was there is gone"
	if n > 1 {
		says = fmt.Sprintf("%d points that were there are gone", n)
	}
	return control.Problem{Message: says + ": deleted behind the agent's back",
		Next: "find out who deleted it, and from where; backups go on meanwhile. To take note of it: coffer point forget " + it.Name + "@POINT"}
}

func found(n int64) string {
	if n == 1 {
		return "a verify found a fault that is"
	}
	return fmt.Sprintf("verifies found %d faults that are", n)
}

func days(d time.Duration) string {
	if n := d / (24 * time.Hour); n != 1 {
		return fmt.Sprintf("%d days", n)
	}
	return "1 day"
}
