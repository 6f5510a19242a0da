// Package alarm says what of an agent's state needs a person. It is pure: no clock and
// no I/O.
//
// Invariants:
//   - Each problem has a subject, says what and why, and what to do next.
//   - What is wrong with a vault is told once, for the vault, and not again for each of
//     its items.
//   - The same state gives the same problems in the same order, so that they can be
//     compared with those of a moment ago.
package alarm

import (
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/policy"
)

// Asked is what the configuration asks of a vault's items.
type Asked struct {
	// Proof is within what time all data is read; 0 if it does not say.
	Proof time.Duration
}

// Of returns the problems of vaults and items as they are at now, vaults first. asked is
// by vault.
func Of(vaults []control.Vault, items []control.Item, asked map[string]Asked, now time.Time) []control.Problem {
	var out []control.Problem
	faulty := make(map[string]bool)
	for _, v := range vaults {
		if p, ok := ofVault(v); ok {
			out = append(out, p)
			faulty[v.Name] = v.State != control.StateDegraded // it still works then
		}
	}
	for _, it := range items {
		if !faulty[it.Vault] {
			out = append(out, ofItem(it, asked[it.Vault], now)...)
		}
	}
	return out
}

func ofVault(v control.Vault) (p control.Problem, ok bool) {
	p.Subject = "vault " + v.Name
	switch {
	case v.State == control.StateAbsent:
		p.Message, p.Next = "it is not made yet", "make it: coffer vault create "+v.Name
	case v.Error != nil:
		p.Message, p.Next = v.Error.Message, v.Error.Next
	default:
		return p, false
	}
	return p, true
}

// ofItem returns what is wrong with an item whose vault is well.
func ofItem(it control.Item, asked Asked, now time.Time) []control.Problem {
	var out []control.Problem
	add := func(next, format string, args ...any) {
		out = append(out, control.Problem{Subject: "item " + it.Name, Message: fmt.Sprintf(format, args...), Next: next})
	}
	plan := "see why: coffer job list --item " + it.Name
	switch {
	case it.Error != nil:
		add(it.Error.Next, "%s", it.Error.Message)
	case it.Points == 0 && it.Overdue:
		add(plan, "a backup was due, and it has no point yet")
	case it.Points == 0:
		add("make one: coffer backup "+it.Name, "it has no point yet")
	case it.LastGood.After(now.Add(policy.ClockSkew)):
		add("set the clock of this machine right, and that of the one that made the point: coffer point show "+it.Name,
			"its newest point is dated in the future, %s: a clock is wrong, or was", it.LastGood.UTC().Format(time.RFC3339))
	case it.Overdue:
		add(plan, "a backup was due, and no good point came of it since %s", it.LastGood.UTC().Format(time.RFC3339))
	}
	out = append(out, it.Warnings...)
	switch p := it.Proof; {
	case p.Faults > 0:
		add("mend what the source still has: coffer verify "+it.Name+" --repair", "%s not mended", found(p.Faults))
	case asked.Proof > 0 && !p.Data.IsZero() && now.Sub(p.Data) > asked.Proof+asked.Proof/2:
		add("see why: coffer job list --item "+it.Name+"; or read all of it now: coffer verify "+it.Name,
			"some of its data was last read %s ago, and the vault asks for every %s", days(now.Sub(p.Data)), days(asked.Proof))
	}
	return out
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
