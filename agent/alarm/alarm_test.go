package alarm_test

import (
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

// TestItems: each thing that can be wrong is said, and what is well is not.
func TestItems(t *testing.T) {
	site := control.Vault{Name: "site", State: control.StateAccessible}
	for _, tt := range []struct {
		name   string
		change func(*control.Item)
		want   string
	}{
		{"well", nil, ""},
		{"no point", func(it *control.Item) { it.Points = 0 }, "it has no point yet"},
		{"no point, and one was due", func(it *control.Item) { it.Points, it.Overdue = 0, true }, "a backup was due, and it has no point yet"},
		{"overdue", func(it *control.Item) { it.Overdue = true }, "no good point came of it since 2026-11-22T02:00:00Z"},
		{"from the future", func(it *control.Item) { it.LastGood = now.Add(time.Hour) }, "dated in the future, 2026-11-22T10:00:00Z"},
		{"clocks differ a little", func(it *control.Item) { it.LastGood = now.Add(5 * time.Minute) }, ""},
		{"an error", func(it *control.Item) { it.Error = &control.Error{Message: "point x is gone", Next: "look"} }, "point x is gone"},
		{"a fault", func(it *control.Item) { it.Proof.Faults = 1 }, "a verify found a fault that is not mended"},
		{"faults", func(it *control.Item) { it.Proof.Faults = 2 }, "verifies found 2 faults that are not mended"},
		{"not read for long", func(it *control.Item) { it.Proof.Data = now.Add(-46 * day) }, "last read 46 days ago, and the vault asks for every 30 days"},
		{"a little late", func(it *control.Item) { it.Proof.Data = now.Add(-44 * day) }, ""},
		{"overdue, with a fault", func(it *control.Item) { it.Overdue, it.Proof.Faults = true, 1 }, "no good point came of it since 2026-11-22T02:00:00Z|a verify found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := alarm.Of([]control.Vault{site}, []control.Item{well(tt.change)}, map[string]alarm.Asked{"site": {Proof: 30 * day}}, now)
			var want []string
			if tt.want != "" {
				want = strings.Split(tt.want, "|")
			}
			if len(got) != len(want) {
				t.Fatalf("problems %+v, want %q", got, want)
			}
			for i, p := range got {
				if p.Subject != "item etc" || !strings.Contains(p.Message, want[i]) || p.Next == "" {
					t.Errorf("%+v, want %q", p, want[i])
				}
			}
		})
	}
	if got := alarm.Of([]control.Vault{site}, []control.Item{well(func(it *control.Item) { it.Proof.Data = now.Add(-1000 * day) })}, nil, now); len(got) != 0 {
		t.Errorf("nobody asks for a proof: %+v", got)
	}
}

// TestVaults: what is wrong with a vault is told for it, and not for its items.
func TestVaults(t *testing.T) {
	items := []control.Item{well(nil), {Name: "vm", Vault: "away"}, {Name: "db", Vault: "new", Overdue: true}, {Name: "www", Vault: "weak", Points: 1}, {Name: "ftp", Vault: "weak"}}
	got := alarm.Of([]control.Vault{
		{Name: "site", State: control.StateAccessible},
		{Name: "away", State: control.StateInaccessible, Error: &control.Error{Message: "token not present", Next: "put it back"}},
		{Name: "new", State: control.StateAbsent},
		{Name: "weak", State: control.StateDegraded, Error: &control.Error{Message: "one key does not answer", Next: "see it"}},
	}, items, nil, now)
	want := []control.Problem{
		{Subject: "vault away", Message: "token not present", Next: "put it back"},
		{Subject: "vault new", Message: "it is not made yet", Next: "make it: coffer vault create new"},
		{Subject: "vault weak", Message: "one key does not answer", Next: "see it"},
		{Subject: "item ftp", Message: "it has no point yet", Next: "make one: coffer backup ftp"}, // the vault works
	}
	if len(got) != len(want) {
		t.Fatalf("problems %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
