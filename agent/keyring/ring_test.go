package keyring_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/kek"
)

// TestRing: what wraps, what opens, and in which order.
func TestRing(t *testing.T) {
	b := newBench()
	b.has["main"], b.has["spare"] = []string{"v1"}, []string{"s1"}
	link := b.Link(config.Key{URI: "file:///linked.pem"})
	b.has[link] = []string{"l1"}
	for _, test := range []struct {
		use          keyring.Use
		opens, wraps string
		missing      int
	}{
		{keyring.Use{Keys: []string{"main", "spare", "escrow"}, Open: []string{link}}, "v1 s1 l1 ", "v1 s1 offline ", 0},
		{keyring.Use{Keys: []string{"spare"}, Open: []string{"main"}}, "s1 v1 ", "s1 ", 0},
		{keyring.Use{Keys: []string{"main", "spare"}, Without: "main"}, "s1 ", "v1 s1 ", 0},
		{keyring.Use{Keys: []string{"main", "nobody"}}, "v1 ", "v1 ", 1},
	} {
		ring, missing := b.Ring(t.Context(), test.use)
		var opens, wraps string
		for _, k := range ring.Keys() {
			opens += k.Ref().Version + " "
		}
		for _, w := range ring.Wrappers() {
			wraps += w.Ref().Version + " "
		}
		if opens != test.opens || wraps != test.wraps || len(missing) != test.missing {
			t.Errorf("%+v: %q open, %q wrap, missing %v; want %q, %q, %d", test.use, opens, wraps, missing, test.opens, test.wraps, test.missing)
		}
	}
	if used := b.memory.Used(link); len(used) != 0 {
		t.Errorf("of a linked key it is remembered that %+v was in use", used)
	}
}

// TestAudited: every unwrap is recorded with what it was for, and what cannot be
// recorded is not handed out.
func TestAudited(t *testing.T) {
	b := newBench()
	must(t, b.look(t, "v1"))
	k := b.shows(t, "v1 ", "v1", "").Versions[0]
	w, err := k.Wrap([]byte("secret"))
	must(t, err)
	ctx := keyring.WithPurpose(t.Context(), keyring.Purpose{Vault: "site", Item: "docs", By: "uid 7", Job: 3})
	_, err = k.Unwrap(ctx, w)
	must(t, err)
	b.opened[0].fails = fmt.Errorf("%w: disabled", kek.ErrDenied)
	if _, err := k.Unwrap(ctx, w); !errors.Is(err, kek.ErrDenied) {
		t.Errorf("a refusal is %v", err)
	}
	if len(b.lines) != 2 || b.lines[0].Kind != audit.KeyUnwrapped || b.lines[1].Kind != audit.KeyRefused {
		t.Fatalf("%+v", b.lines)
	}
	for _, l := range b.lines {
		if l.Vault != "site" || l.Item != "docs" || l.By != "uid 7" || l.Job != 3 || l.Key != "main" {
			t.Errorf("%+v", l)
		}
	}
	b.opened[0].fails, b.full = nil, errors.New("disk full")
	if secret, err := k.Unwrap(ctx, w); secret != nil || !errors.Is(err, keyring.ErrUnrecorded) {
		t.Errorf("an unwrap that cannot be recorded: %q, %v", secret, err)
	}
}
