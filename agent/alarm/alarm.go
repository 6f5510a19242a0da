// Package alarm says what of an agent's state needs a person. It is pure: no clock and
// no I/O.
//
// Invariants:
//   - Each problem has a subject, says what and why, and what to do next.
//   - Faults do not stand in each other's way: one is found whatever else is wrong, or it
//     is said that nobody can know (Found.Unknown).
//   - What is wrong with a vault is shown once, for the vault, and not again for each of
//     its items.
//   - The same state gives the same faults in the same order, so that they can be
//     compared with those of a moment ago.
package alarm

import (
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// Kind is what is wrong.
type Kind string

// The kinds of what is wrong with a vault.
const (
	Absent Kind = "absent" // it is not made yet
	Keys   Kind = "keys"   // they do not open it, or not all of them do: the watch over them tells of it
	Store  Kind = "store"  // it does not answer, or refuses
	Vault  Kind = "vault"  // anything else
)

// The kinds of what is wrong with an item.
const (
	Overdue Kind = "overdue" // a run was due, and no good point came of it
	Empty   Kind = "empty"   // it has no point yet, and none was due
	Dated   Kind = "dated"   // its newest point is of the future
	Gone    Kind = "gone"    // points were deleted behind the agent's back
	Warning Kind = "warning" // that came with the item
	Damage  Kind = "damage"  // that verifies found and nothing has mended
	Proof   Kind = "proof"   // its data was not read for too long
	Item    Kind = "item"    // it cannot be looked at, for another reason
)

// About is which fault it is: at most one fault of a look is about the same.
type About struct {
	Kind Kind
	Name string // of the vault or item
	What string // of a warning: its kind
}

// String is the inverse of ParseAbout.
func (a About) String() string {
	return strings.TrimSuffix(string(a.Kind)+" "+a.Name+" "+a.What, " ")
}

// ParseAbout takes what String returns; ok is false of what is not about a fault.
func ParseAbout(text string) (a About, ok bool) {
	kind, rest, _ := strings.Cut(text, " ")
	a.Kind = Kind(kind)
	a.Name, a.What, _ = strings.Cut(rest, " ")
	switch a.Kind {
	case Absent, Keys, Store, Vault, Overdue, Empty, Dated, Gone, Warning, Damage, Proof, Item:
		return a, a.String() == text && a.Name != "" && (a.What == "" || a.Kind == Warning)
	}
	return a, false
}

// Fault is something that is wrong.
type Fault struct {
	About
	Item string // its name, if it is about one
	// Closed: its vault, or the store of that, cannot be looked into, which is a fault
	// of the vault.
	Closed bool
	// Problem says it.
	Problem control.Problem
}

// Asked is what the configuration asks of a vault's items.
type Asked struct {
	// Proof is within what time all data is read; 0 if it does not say.
	Proof time.Duration
}

// Look is what there is to be judged.
type Look struct {
	Vaults []control.Vault
	Items  []control.Item
	Gone   map[string]int   // points that are gone that no prune removed, by item
	Asked  map[string]Asked // by vault
	Now    time.Time
}

// Found is what is wrong by a look.
type Found struct {
	Faults  []Fault // those of vaults first
	unknown map[About]bool
}

// Unknown tells whether the look could not see if there is such a fault.
func (f *Found) Unknown(a About) bool { return f.unknown[About{Kind: a.Kind, Name: a.Name}] }

// Problems are what to show of the faults.
func (f *Found) Problems() []control.Problem {
	var out []control.Problem
	for _, fault := range f.Faults {
		if !fault.Closed {
			out = append(out, fault.Problem)
		}
	}
	return out
}

// Of returns what is wrong with vaults and items.
func Of(l Look) *Found {
	out := &Found{unknown: make(map[About]bool)}
	closed := make(map[string]bool)
	for _, v := range l.Vaults {
		closed[v.Name] = out.vault(v, l.Items)
	}
	for _, it := range l.Items {
		out.item(it, closed[it.Vault], l)
	}
	return out
}

// hide says that of these kinds nothing is known of a vault or item.
func (f *Found) hide(name string, kinds ...Kind) {
	for _, k := range kinds {
		f.unknown[About{Kind: k, Name: name}] = true
	}
}

// vault finds what is wrong with a vault, and tells whether nothing can be seen of its
// items.
func (f *Found) vault(v control.Vault, items []control.Item) (closed bool) {
	add := func(kind Kind, message, next string) {
		f.Faults = append(f.Faults, Fault{About: About{Kind: kind, Name: v.Name},
			Problem: control.Problem{Subject: "vault " + v.Name, Kind: string(kind), Message: message, Next: next}})
	}
	if v.State == control.StateAbsent {
		add(Absent, "it is not made yet", "make it: coffer vault create "+v.Name)
		return true
	}
	if e := v.Error; e != nil {
		kind := Vault
		switch e.Code {
		case control.CodeKeysInaccessible:
			kind = Keys
			f.hide(v.Name, Vault, Store)
		case control.CodeStore:
			kind = Store
			f.hide(v.Name, Vault, Keys)
		}
		add(kind, e.Message, e.Next)
		closed = v.State != control.StateDegraded // it still works then
		if closed || kind == Store {
			return closed
		}
	}
	for _, it := range items { // an open vault itself asks its store nothing
		if it.Vault == v.Name && unstored(it) {
			f.hide(v.Name, Vault)
			add(Store, it.Error.Message, it.Error.Next)
			break
		}
	}
	return false
}

// unstored tells whether an item could not be looked at because of its store.
func unstored(it control.Item) bool { return it.Error != nil && it.Error.Code == control.CodeStore }
