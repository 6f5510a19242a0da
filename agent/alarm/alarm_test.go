package alarm_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/alarm"
	"github.com/cofferbackup/coffer/agent/control"
)

var now = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func well(change func(*control.Item)) control.Item {
	it := control.Item{Name: "etc", Vault: "site", Points: 3, LastGood: now.Add(-7 * time.Hour), Proof: control.Proof{Data: now.Add(-30 * day)}}
	if change != nil {
		change(&it)
	}
	return it
}

// of is what is wrong with items of a vault that is well, or as it is given.
func of(items []control.Item, gone map[string]int, vaults ...control.Vault) *alarm.Found {
	if vaults == nil {
		vaults = []control.Vault{{Name: "site", State: control.StateAccessible}}
	}
	return alarm.Of(alarm.Look{Vaults: vaults, Items: items, Gone: gone, Asked: map[string]alarm.Asked{"site": {Proof: 30 * day}}, Now: now})
}

// TestItems: each thing that can be wrong is said, whatever else is, and what is well is
// not.
func TestItems(t *testing.T) {
	warned := func(it *control.Item) {
		it.Warnings = []control.Problem{{Kind: "holds", Message: "a hold does not open", Next: "look"}, {Kind: "marks", Message: "a mark does not open", Next: "look"}}
	}
	failed := func(it *control.Item) {
		it.Error = &control.Error{Code: control.CodeFailed, Message: "the index is bad", Next: "look"}
	}
	const overdue = "overdue etc: a backup was due, and no good point came of it since 2026-11-22T02:00:00Z"
	for _, tt := range []struct {
		name   string
		gone   int
		change func(*control.Item)
		want   []string
	}{
		{"well", 0, nil, nil},
		{"no point", 0, func(it *control.Item) { it.Points = 0 }, []string{"empty etc: it has no point yet"}},
		{"no point, and one was due", 0, func(it *control.Item) { it.Points, it.Overdue = 0, true }, []string{"overdue etc: a backup was due, and it has no point yet"}},
		{"overdue", 0, func(it *control.Item) { it.Overdue = true }, []string{overdue}},
		{"from the future", 0, func(it *control.Item) { it.LastGood = now.Add(time.Hour) }, []string{"dated etc: its newest point is dated in the future, 2026-11-22T10:00:00Z: a clock is wrong, or was"}},
		{"clocks differ a little", 0, func(it *control.Item) { it.LastGood = now.Add(5 * time.Minute) }, nil},
		{"an error", 0, failed, []string{"item etc: the index is bad"}},
		{"an error, and overdue", 0, func(it *control.Item) { failed(it); it.Overdue = true }, []string{"item etc: the index is bad", overdue}},
		{"a fault", 0, func(it *control.Item) { it.Proof.Faults = 1 }, []string{"damage etc: a verify found a fault that is not mended"}},
		{"faults", 0, func(it *control.Item) { it.Proof.Faults = 2 }, []string{"damage etc: verifies found 2 faults that are not mended"}},
		{"not read for long", 0, func(it *control.Item) { it.Proof.Data = now.Add(-46 * day) }, []string{"proof etc: some of its data was last read 46 days ago, and the vault asks for every 30 days"}},
		{"a little late", 0, func(it *control.Item) { it.Proof.Data = now.Add(-44 * day) }, nil},
		{"overdue, with a fault", 0, func(it *control.Item) { it.Overdue, it.Proof.Faults = true, 1 }, []string{overdue, "damage etc: a verify found a fault that is not mended"}},
		{"two warnings, and overdue", 0, func(it *control.Item) { warned(it); it.Overdue = true }, []string{overdue, "warning etc holds: a hold does not open", "warning etc marks: a mark does not open"}},
		{"gone", 2, nil, []string{"gone etc: 2 points that were there are gone: deleted behind the agent's back"}},
		{"gone, and its error says which", 1, func(it *control.Item) {
			it.Error = &control.Error{Code: control.CodeDamaged, Message: "point x is gone", Next: "look"}
		}, []string{"gone etc: point x is gone"}},
		{"gone, and an error", 1, failed, []string{"item etc: the index is bad", "gone etc: a point that was there is gone: deleted behind the agent's back"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := of([]control.Item{well(tt.change)}, map[string]int{"etc": tt.gone})
			var got []string
			for _, f := range found.Faults {
				got = append(got, f.About.String()+": "+f.Problem.Message)
				if f.Item != "etc" || f.Problem.Subject != "item etc" || f.Problem.Next == "" || f.Problem.Kind == "" {
					t.Errorf("%+v", f)
				}
				if back, ok := alarm.ParseAbout(f.About.String()); !ok || back != f.About {
					t.Errorf("%q is read as %+v, %v", f.About, back, ok)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
			if shown := found.Problems(); len(shown) != len(tt.want) {
				t.Errorf("shown %+v", shown)
			}
		})
	}
	old := well(func(it *control.Item) { it.Proof.Data = now.Add(-1000 * day) })
	if got := alarm.Of(alarm.Look{Items: []control.Item{old}, Now: now}); len(got.Faults) != 0 {
		t.Errorf("nobody asks for a proof: %+v", got.Faults)
	}
}

// TestVaults: what is wrong with a vault is shown for it, and not for its items.
func TestVaults(t *testing.T) {
	items := []control.Item{well(nil), {Name: "vm", Vault: "away"}, {Name: "db", Vault: "new", Overdue: true}, {Name: "www", Vault: "weak", Points: 1}, {Name: "ftp", Vault: "weak"}}
	found := of(items, nil,
		control.Vault{Name: "site", State: control.StateAccessible},
		control.Vault{Name: "away", State: control.StateInaccessible, Error: &control.Error{Code: control.CodeKeysInaccessible, Message: "token not present", Next: "put it back"}},
		control.Vault{Name: "new", State: control.StateAbsent},
		control.Vault{Name: "weak", State: control.StateDegraded, Error: &control.Error{Code: control.CodeKeysInaccessible, Message: "one key does not answer", Next: "see it"}})
	want := []control.Problem{
		{Subject: "vault away", Kind: "keys", Message: "token not present", Next: "put it back"},
		{Subject: "vault new", Kind: "absent", Message: "it is not made yet", Next: "make it: coffer vault create new"},
		{Subject: "vault weak", Kind: "keys", Message: "one key does not answer", Next: "see it"},
		{Subject: "item ftp", Kind: "empty", Message: "it has no point yet", Next: "make one: coffer backup ftp"}, // the vault works
	}
	if got := found.Problems(); !slices.Equal(got, want) {
		t.Errorf("shown %+v, want %+v", got, want)
	}
	late := alarm.About{Kind: alarm.Overdue, Name: "db"}
	if !slices.ContainsFunc(found.Faults, func(f alarm.Fault) bool { return f.About == late && f.Closed }) {
		t.Errorf("that db is overdue is nowhere in %+v", found.Faults)
	}
}

// TestUnknown: of what cannot be looked at nothing is said to be over.
func TestUnknown(t *testing.T) {
	silent := &control.Error{Code: control.CodeStore, Message: "store does not answer", Next: "see that it is up"}
	hold := alarm.About{Kind: alarm.Warning, Name: "etc", What: "holds"}
	for _, tt := range []struct {
		name           string
		vault          control.Vault
		item           *control.Error
		want           string
		known, unknown []alarm.About
	}{
		{"all is well", control.Vault{State: control.StateAccessible}, nil, "", []alarm.About{hold, {Kind: alarm.Store, Name: "site"}}, nil},
		{"no store", control.Vault{State: control.StateUnknown, Error: silent}, nil, "store site", nil, []alarm.About{hold, {Kind: alarm.Vault, Name: "site"}, {Kind: alarm.Gone, Name: "etc"}}},
		{"no store for an item", control.Vault{State: control.StateAccessible}, silent, "store site",
			[]alarm.About{{Kind: alarm.Overdue, Name: "etc"}, {Kind: alarm.Item, Name: "db"}}, []alarm.About{hold, {Kind: alarm.Item, Name: "etc"}}},
		{"no keys", control.Vault{State: control.StateInaccessible, Error: &control.Error{Code: control.CodeKeysInaccessible, Message: "denied"}}, nil, "keys site",
			nil, []alarm.About{hold, {Kind: alarm.Store, Name: "site"}, {Kind: alarm.Proof, Name: "etc"}}},
		{"another error of the item", control.Vault{State: control.StateAccessible}, &control.Error{Code: control.CodeFailed, Message: "bad index"}, "item etc",
			[]alarm.About{{Kind: alarm.Proof, Name: "etc"}, {Kind: alarm.Store, Name: "site"}}, []alarm.About{hold, {Kind: alarm.Gone, Name: "etc"}}},
	} {
		tt.vault.Name = "site"
		found := of([]control.Item{well(func(it *control.Item) { it.Error = tt.item }), well(func(it *control.Item) { it.Name = "db" })}, nil, tt.vault)
		var got []string
		for _, f := range found.Faults {
			got = append(got, f.About.String())
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: found %q, want %q", tt.name, got, tt.want)
		}
		for _, a := range tt.known {
			if found.Unknown(a) {
				t.Errorf("%s: %q is not known", tt.name, a)
			}
		}
		for _, a := range tt.unknown {
			if !found.Unknown(a) {
				t.Errorf("%s: %q is known", tt.name, a)
			}
		}
	}
	for _, text := range []string{"", "item", "item ", "job backup of etc", "keys of vault site", "agent audit log", "item  x"} {
		if a, ok := alarm.ParseAbout(text); ok {
			t.Errorf("%q is about %+v", text, a)
		}
	}
}
