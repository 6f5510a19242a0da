package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/controltest"
)

const (
	printNew   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	printOld   = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	printPaper = "aaaabbbbccccdddd0123456789abcdef0123456789abcdef0123456789abcdef"
	head       = "5f0cabababababababababababababababababababababababababababababab"
	uriMain    = "pkcs11:token=backup;object=coffer-kek"
	uriCloud   = "https://corp.vault.azure.net/keys/backup"
)

// custody is an agent with a vault in each state of its keys, and with something
// for every verb that is about keys.
func custody() *controltest.Backend {
	keys := custodyKeys()
	return &controltest.Backend{
		Now: now, Host: "web1", KeyList: keys,
		VaultList: []control.Vault{
			{
				Name: "site", ID: "vjx4k2", Store: "s3://minio.example:9000/backups", Mode: control.ModeCustomerManaged, Keys: keys[:4],
				State: control.StateDegraded, Since: now.Add(-10 * time.Minute), Checked: now.Add(-40 * time.Second),
				Error: &control.Error{Message: "key cloud: no route to corp.vault.azure.net", Next: "see that the host reaches it on port 443"},
				Owed:  []string{"cloud"}, Coverage: custodyCoverage(),
				Warnings: []control.Problem{{Subject: "key main", Message: "v3 is 400 d old, and 365 d are allowed", Next: "coffer key rotate site --new-version"}},
			},
			{Name: "local", ID: "m3p7", Store: "file:///srv/backup", Mode: control.ModeSoftware, Keys: keys[4:], State: control.StateAccessible, Since: now.Add(-time.Hour)},
			{
				Name: "shut", ID: "q8r1", Store: "file:///srv/shut", State: control.StateInaccessible, Since: now.Add(-2 * time.Hour),
				Error: &control.Error{Message: "vault shut: key cloud: the key is disabled", Next: "enable it, or link another key that opens the vault"},
			},
			{Name: "back", ID: "w2t5", Store: "file:///srv/back", State: control.StateRevalidation, Since: now.Add(-3 * time.Hour), Checked: now},
			{Name: "new", Store: "file:///srv/new", State: control.StateAbsent},
		},
		ItemList: []control.Item{
			{Name: "etc", Vault: "site", Kind: "files", Source: "/etc", LastGood: now.Add(-7 * time.Hour), Points: 42},
			{Name: "vm1", Vault: "site", Kind: "files", Source: "/srv/vm1", Points: 1},
			{Name: "held", Vault: "site", Kind: "files", Source: "/home"},
			{
				Name: "far", Vault: "shut", Kind: "files", Source: "/srv",
				Error: &control.Error{Code: control.CodeKeysInaccessible, Message: "vault shut: its keys are inaccessible", Next: "enable the key"},
			},
		},
		Problems: []control.Problem{{Subject: "vault shut", Message: "no key opens it: key cloud: the key is disabled", Next: "enable the key"}},
		Reports:  custodyReports(),
		Usages:   map[string]control.KeyUsage{"main": custodyUsage(), "file": {Key: "file", URI: "file:///etc/coffer/kek.pem"}},
		Warnings: []string{"no escrow key and no second key: with main gone, everything is"},
		Erasures: map[string]control.ItemErased{
			"etc": {Item: "etc", Secrets: 2, Deleted: 312, Locked: 7, LockedUntil: now.AddDate(0, 1, 0)},
			"vm1": {Item: "vm1", Secrets: 1, Locked: 8, LockedKeys: 1, LockedUntil: now.AddDate(0, 1, 0)},
		},
		Audit: control.AuditReport{
			Path: "/var/lib/coffer/audit", Files: 3, Lines: 18204, First: now.AddDate(0, 0, -80), Last: now.Add(-time.Minute), Head: head,
		},
		Script: custodyPlay,
	}
}

func custodyKeys() []control.Key {
	main := control.Key{
		Name: "main", URI: uriMain, Provider: "pkcs11", Version: "v3", Bits: 3072, Algorithm: "RSA-OAEP-256", Fingerprint: printNew,
		InUse: true, Vaults: []string{"site"},
		Facts: control.KeyFacts{Hardware: "yes", Enabled: "yes", MayUnwrap: "yes", Created: now.AddDate(0, 0, -400), Expires: now.AddDate(1, 0, 0)},
	}
	old := main
	old.Version, old.Fingerprint, old.InUse, old.RestoreOnly, old.Facts = "v2", printOld, false, true, control.KeyFacts{}
	return []control.Key{
		main, old,
		{
			Name: "cloud", URI: uriCloud, Provider: "keyvault", Version: "07900eaab593bac81a385c17c6f1ac1a", InUse: true,
			Error: &control.Error{Message: "key cloud: no route to corp.vault.azure.net", Next: "see that the host reaches it on port 443"},
		},
		{Name: "paper", URI: "/etc/coffer/escrow.pem", Provider: "escrow", Bits: 4096, Algorithm: "RSA-OAEP-256", Fingerprint: printPaper, InUse: true},
		{Name: "file", URI: "file:///etc/coffer/kek.pem", Provider: "software", Bits: 3072, Algorithm: "RSA-OAEP-256", InUse: true},
	}
}

func custodyCoverage() []control.Coverage {
	return []control.Coverage{
		{Key: "main", Version: "v3", Fingerprint: printNew, Percent: 100, InUse: true},
		{Key: "main", Version: "v2", Fingerprint: printOld, Percent: 99.96},
		{Key: "cloud", Percent: 40, InUse: true, Owed: 1200},
	}
}

func custodyReports() map[string]control.KeyReport {
	return map[string]control.KeyReport{
		"cloud": {
			Key: "cloud", URI: uriCloud, Steps: []control.KeyStep{
				{Stage: "identity", Verdict: control.VerdictPassed, Says: "service principal 5d1f answers"},
				{Stage: "permissions", Verdict: control.VerdictPassed, Says: "it may get and unwrapKey"},
				{Stage: "protection", Verdict: control.VerdictFailed, Says: "purge protection of the vault is off: one mistake loses the key", Next: "az keyvault update --name corp --enable-purge-protection"},
				{Stage: "key", Verdict: control.VerdictSkipped, Says: "not tried: an earlier step failed"},
				{Stage: "self-test", Verdict: control.VerdictSkipped, Says: "not tried: an earlier step failed"},
			},
		},
		"file": {
			Key: "file", URI: "file:///etc/coffer/kek.pem", Passed: true, Steps: []control.KeyStep{
				{Stage: "identity", Verdict: control.VerdictPassed, Says: "the file is there, and only root reads it"},
				{Stage: "protection", Verdict: control.VerdictWarned, Says: "a file can be copied\x1b[2J", Next: "keep the key in an HSM"},
			},
			Rules: []control.RuleView{{Rule: "minimum_bits", Effect: control.EffectAudit, Subject: "key file", Says: "3072 bits, and 4096 are asked for"}},
		},
		"paper": {
			Key: "paper", URI: "/etc/coffer/escrow.pem",
			Steps: []control.KeyStep{{Stage: "key", Verdict: control.VerdictPassed, Says: "RSA of 4096 bits"}},
			Rules: []control.RuleView{{Rule: "hardware", Effect: control.EffectDeny, Subject: "vault local", Says: "no key is in an HSM", Next: "name one in vaults.local.keys"}},
		},
	}
}

func custodyUsage() control.KeyUsage {
	return control.KeyUsage{Key: "main", URI: uriMain, Versions: []control.VersionUsage{
		{
			Version: "v3", Fingerprint: printNew, InUse: true, Since: now.Add(-7 * time.Hour), Secrets: 1000, Total: 1000,
			Lost: []control.LostItem{
				{Vault: "site", Item: "etc", Points: 42, First: now.AddDate(0, 0, -80), Last: now.Add(-7 * time.Hour)},
				{Vault: "local", Points: 12},
			},
			Because: "it is in use",
		},
		{Version: "v2", Fingerprint: printOld, Secrets: 400, Total: 1000, Because: "no whole backup has run since v3 came into use"},
		{Fingerprint: printPaper, Total: 1000, Retirable: true},
	}}
}

// custodyPlay is what happens in the jobs on keys.
func custodyPlay(kind, subject string) controltest.Play {
	run := controltest.Play{Step: 4 * time.Second, End: control.Job{State: control.JobDone}}
	for done := int64(0); done <= 1000; done += 250 {
		run.Events = append(run.Events, control.Event{Progress: &control.Progress{Phase: "wrapping", Entries: done, EntriesTotal: 1000}})
	}
	switch {
	case subject == "shut":
		run.End = control.Job{State: control.JobFailed, Error: &control.Error{
			Code: control.CodeKeysInaccessible, Message: "key cloud: the key is disabled", Next: "enable it, then run this again: it goes on where it stopped",
		}}
	case subject == "back":
		run.End = control.Job{State: control.JobFailed, Error: &control.Error{Code: control.CodeFailed, Message: "the vault has one key, and cannot do without it"}}
	case kind == control.KindDrill:
		run.End.Result = &control.JobResult{Drill: &control.DrillResult{
			Vault: subject, Without: "main", With: []string{"cloud", "file"}, Secrets: 1000, Point: "2026-11-22T09:00:00Z-d41l", Bytes: 3 << 20, Seconds: 12,
		}}
	case subject == "new":
		run.End.Result = &control.JobResult{Rekey: &control.RekeyResult{Vault: subject, Mode: control.ModeSoftware, Secrets: 3, Seconds: 0.1}}
	case subject == "local":
		run.End.Result = &control.JobResult{Rekey: &control.RekeyResult{
			Vault: subject, Mode: control.ModeCustomerManaged, Secrets: 3, Made: 3, Bytes: 4096, Seconds: 0.3,
			Opens: []string{"file: all points of etc until 2026-11-22 09:00"},
		}}
	default:
		run.End.Result = &control.JobResult{Rekey: &control.RekeyResult{
			Vault: subject, Mode: control.ModeCustomerManaged, Secrets: 1000, Rewrapped: 988, Unwraps: 1000, Bytes: 1258291, Coverage: custodyCoverage(), Seconds: 16,
		}}
	}
	return run
}

// TestConfirm plays a person at a terminal who is asked for a name.
func TestConfirm(t *testing.T) {
	tests := []struct {
		name, typed string
		args        []string
		code        int
		out, err    string
		asked       int
	}{
		{"erase", "etc\n", []string{"item", "erase", "etc"}, 0, "etc: erased", "42 points, the last good one 02:00 today", 1},
		{"last line", "etc", []string{"item", "erase", "etc"}, 0, "etc: erased", "", 1},
		{"another name", "site\n", []string{"item", "erase", "etc"}, 1, "", `"site" is not the name of the item; nothing was done`, 0},
		{"nothing typed", "", []string{"item", "erase", "etc"}, 1, "", `next    to do it, run this again and type etc`, 0},
		{"no such item", "none\n", []string{"item", "erase", "none"}, 1, "", `there is no item "none"`, 0},
		{"mode", "local\n", []string{"vault", "mode", "local", "customer-managed"}, 0, "the vault is customer-managed", "There is no way back", 1},
		{"mode, yes", "yes\n", []string{"vault", "mode", "local", "customer-managed"}, 1, "", `"yes" is not the name of the vault`, 0},
		{"mode of none", "", []string{"vault", "mode", "none", "customer-managed"}, 1, "", `there is no vault "none"`, 0},
		{"mode as it is", "", []string{"vault", "mode", "site", "customer-managed"}, 1, "", "vault site is customer-managed already", 0},
		{"wrong flag", "etc\n", []string{"item", "erase", "etc", "--confirm", "vm1"}, 2, "", "nothing was done", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := custody()
			got := coffer(t, &env{inTerminal: true, in: strings.NewReader(tt.typed)}, nil, append([]string{"--socket", at(t, b)}, tt.args...)...)
			if got.code != tt.code || !strings.Contains(got.out, tt.out) || !strings.Contains(got.err, tt.err) {
				t.Errorf("%+v", got)
			}
			if n := len(b.Asked()); n != tt.asked {
				t.Errorf("the agent was asked for %d changes, want %d: %+v", n, tt.asked, b.Asked())
			}
		})
	}
}

// silentReader is a person who types nothing.
type silentReader struct{ ctx context.Context }

func (s silentReader) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// TestConfirmInterrupted: Ctrl-C at the question ends the run, and nothing is done.
func TestConfirmInterrupted(t *testing.T) {
	b := custody()
	got := coffer(t, &env{inTerminal: true, in: silentReader{t.Context()}}, func(soft, _ func()) map[string]func() {
		return map[string]func(){"to go on": soft}
	}, "--socket", at(t, b), "item", "erase", "etc")
	if got.code != control.ExitFailed || !strings.Contains(got.err, "\ncoffer: interrupted before the answer; nothing was done") || len(b.Asked()) != 0 {
		t.Errorf("%+v, asked %+v", got, b.Asked())
	}
}
