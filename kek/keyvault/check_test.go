package keyvault_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

func find(t *testing.T, steps []kek.Step, stage kek.Stage) kek.Step {
	t.Helper()
	for _, s := range steps {
		if s.Stage == stage {
			return s
		}
	}
	t.Fatalf("no stage %s in %+v", stage, steps)
	return kek.Step{}
}

// TestCheck: the stages are in order, and each fault is in its own, with its remedy.
func TestCheck(t *testing.T) {
	const pass, warn, fail, skip = kek.Passed, kek.Warned, kek.Failed, kek.Skipped
	soon := time.Now().AddDate(0, 0, 10)
	past := time.Now().AddDate(0, 0, -10)
	for name, test := range map[string]struct {
		opts  kvtest.Options
		key   kvtest.KeyOptions
		spoil func(b *bench)
		want  []kek.Verdict
		next  string // of the first that did not pass
	}{
		"well":     {want: []kek.Verdict{pass, pass, pass, pass, pass}},
		"well HSM": {opts: kvtest.Options{ManagedHSM: true}, want: []kek.Verdict{pass, pass, pass, pass, pass}},
		"may not list": {spoil: func(b *bench) { b.server.Deny(kvtest.Scope{}, kvtest.OpVersions) },
			want: []kek.Verdict{pass, fail, skip, skip, skip}, next: "list"},
		"no secret": {spoil: func(b *bench) { b.server.RemoveClient(clientID) },
			want: []kek.Verdict{fail, skip, skip, skip, skip}, next: "App registrations"},
		"vault unknown": {spoil: func(b *bench) { b.server.DeleteVault(vaultName) },
			want: []kek.Verdict{fail, skip, skip, skip, skip}, next: "check the name"},
		"certificate ends": {spoil: func(b *bench) { b.useCertificate(past, soon) },
			want: []kek.Verdict{warn, pass, pass, pass, pass}, next: "client.pem"},
		"no key": {spoil: func(b *bench) { b.server.Delete(vaultName, keyName) },
			want: []kek.Verdict{pass, fail, skip, skip, skip}, next: "az keyvault key recover"},
		"may not read": {spoil: func(b *bench) { b.server.Deny(kvtest.Scope{}) },
			want: []kek.Verdict{pass, fail, skip, skip, skip}, next: "Key Vault Crypto Service Encryption User"},
		"may not unwrap": {spoil: func(b *bench) { b.server.Deny(kvtest.Scope{}, kvtest.OpUnwrap) },
			want: []kek.Verdict{pass, fail, skip, skip, skip}, next: "az keyvault set-policy --name corp --spn " + clientID},
		"firewall": {spoil: func(b *bench) { b.server.CloseFirewall(vaultName) },
			want: []kek.Verdict{pass, fail, skip, skip, skip}, next: "Networking"},
		"no soft delete": {opts: kvtest.Options{Recovery: kvtest.Purgeable},
			want: []kek.Verdict{pass, pass, fail, pass, pass}, next: "soft delete and purge protection"},
		"no purge protection": {opts: kvtest.Options{Recovery: kvtest.RecoverablePurgeable},
			want: []kek.Verdict{pass, pass, fail, pass, pass}, next: "az keyvault update --name corp --enable-purge-protection true"},
		"elliptic curve": {key: kvtest.KeyOptions{EC: true},
			want: []kek.Verdict{pass, pass, pass, fail, skip}, next: "--kty RSA"},
		"disabled": {key: kvtest.KeyOptions{Disabled: true},
			want: []kek.Verdict{pass, pass, pass, fail, skip}, next: "--enabled true"},
		"expired": {key: kvtest.KeyOptions{Expires: past}, // and opens what is old
			want: []kek.Verdict{pass, pass, pass, fail, pass}, next: "az keyvault key rotate"},
		"expires soon": {key: kvtest.KeyOptions{Expires: soon},
			want: []kek.Verdict{pass, pass, pass, warn, pass}, next: "az keyvault key rotate"},
		"unwraps only": {key: kvtest.KeyOptions{Ops: []string{"unwrapKey"}},
			want: []kek.Verdict{pass, pass, pass, fail, pass}, next: "--ops wrapKey unwrapKey"},
		"throttled": {spoil: func(b *bench) { b.server.Throttle(0, 0, kvtest.OpUnwrap) },
			want: []kek.Verdict{pass, pass, pass, pass, fail}, next: "try again"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, test.opts)
			b.reconnect()
			b.server.CreateKey(vaultName, keyName, test.key)
			if test.spoil != nil {
				test.spoil(b)
			}
			steps := keyvault.Check(t.Context(), b.config(b.uri("")))
			var stages []kek.Stage
			var verdicts []kek.Verdict
			next := ""
			for _, s := range steps {
				stages, verdicts = append(stages, s.Stage), append(verdicts, s.Verdict)
				if s.Verdict == kek.Warned || s.Verdict == kek.Failed {
					if next == "" {
						next = s.Next
					}
					if s.Next == "" {
						t.Errorf("%s %s says no next step: %s", s.Stage, s.Verdict, s.Says)
					}
				}
				if s.Says == "" || strings.HasSuffix(s.Says, ".") || strings.Contains(s.Says+s.Next, "\n") {
					t.Errorf("%s says %q, next %q", s.Stage, s.Says, s.Next)
				}
				b.Write([]byte(s.Says + s.Next))
			}
			if !slices.Equal(stages, kek.Stages()) || !slices.Equal(verdicts, test.want) {
				t.Errorf("stages %v end %v, want %v: %+v", stages, verdicts, test.want, steps)
			}
			if !strings.Contains(next, test.next) {
				t.Errorf("the next step is %q, want %q", next, test.next)
			}
		})
	}
}

// TestCheckConfig: a key that cannot be meant fails at once.
func TestCheckConfig(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	steps := keyvault.Check(t.Context(), b.config("https://corp.localhost/keys/back_up"))
	if len(steps) != 5 || steps[0].Verdict != kek.Failed || !strings.Contains(steps[0].Says, "not the name of a key") || steps[4].Verdict != kek.Skipped {
		t.Errorf("steps are %+v", steps)
	}
}
