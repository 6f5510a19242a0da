//go:build linux

package main_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// TestUnfitCloudKeys offers keys in Key Vault that may not open a vault. What is wrong
// is said by the check, and no vault is made.
func TestUnfitCloudKeys(t *testing.T) {
	t.Parallel()
	c := newCloud(t, kvtest.Options{})
	c.CreateKey(inVault, "curve", kvtest.KeyOptions{EC: true})
	c.CreateKey(inVault, "off", kvtest.KeyOptions{Disabled: true})
	c.CreateKey(inVault, "wraps", kvtest.KeyOptions{Ops: []string{"wrapKey"}})
	c.CreateKey(inVault, "late", kvtest.KeyOptions{Expires: time.Now().Add(-time.Hour)})
	for key, tt := range map[string]struct{ uri, says string }{
		"nobody": {strings.Replace(c.KeyURI(inVault, "backup", ""), inVault, "nosuchvault", 1), "nosuchvault"},
		"absent": {c.KeyURI(inVault, "absent", ""), "absent"},
		"curve":  {c.KeyURI(inVault, "curve", ""), "RSA"},
		"off":    {c.KeyURI(inVault, "off", ""), "disabled"},
		"wraps":  {c.KeyURI(inVault, "wraps", ""), "unwrapKey"},
		"late":   {c.KeyURI(inVault, "late", ""), "expire"},
	} {
		t.Run(key, func(t *testing.T) {
			h := newHost(t, keeping("keys: [main]", c.entry("main", tt.uri)))
			h.start()
			check := h.coffer("key", "check", "main")
			if !strings.Contains(check.out, tt.says) || !strings.Contains(check.out, "next") {
				t.Errorf("the check does not say %q and what to do:\n%s", tt.says, check.out)
			}
			code := control.ExitKeys
			if key == "late" {
				code = control.ExitFailed // it opens what there is, and wraps nothing new
			}
			h.coffer("vault", "create", "local").fails(code, "key main", tt.says)
			if exists(h.path("vault")) {
				t.Error("a vault was begun with a key that may not open it")
			}
		})
	}
}

// TestKeyTakenAway takes the only key of a vault away in several manners after
// something was wrapped with it, and gives it back.
func TestKeyTakenAway(t *testing.T) {
	t.Parallel()
	c := newCloud(t, kvtest.Options{})
	uri := c.KeyURI(inVault, "backup", "")
	h := newHost(t, keeping("keys: [main]", c.entry("main", uri)))
	h.begin("main")
	h.backup("docs")
	version := h.inUse()
	for _, tt := range []struct {
		name      string
		away, are func()
		says      string
	}{
		{"disabled", func() { c.Disable(inVault, "backup", version) }, func() { c.Enable(inVault, "backup", version) }, "disabled"},
		{"unwrap forbidden", func() { c.Deny(kvtest.Scope{}, kvtest.OpUnwrap) }, func() { c.Allow(kvtest.Scope{}) }, "Forbidden"},
		{"key deleted", func() { c.Delete(inVault, "backup") }, func() { c.Recover(inVault, "backup") }, "deleted"},
		{"client refused", func() { c.RefuseClient(application); c.RevokeTokens() }, func() { c.AcceptClient(application) }, "application"},
		{"firewall", func() { c.CloseFirewall(inVault) }, func() { c.OpenFirewall(inVault) }, "firewall"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := h.in(t)
			h.stop()
			tt.away()
			h.start()
			for _, args := range [][]string{{"restore", "docs", h.path("back")}, {"backup", "docs"}} {
				r := h.coffer(args...).fails(control.ExitKeys)
				if !strings.Contains(strings.ToLower(r.err), strings.ToLower(tt.says)) {
					t.Errorf("it does not say %q:\n%s", tt.says, r.err)
				}
			}
			if exists(h.path("back")) {
				t.Error("a restore without a key touched its target")
			}
			h.coffer("status").says(control.ExitDone, "inaccessible", "main")
			tt.are()
			h.coffer("key", "check", "main").done()
			h.backup("docs") // without a restart
			h.restores("docs")
			if s := h.vault().State; s != control.StateAccessible {
				t.Errorf("the vault is %s after the key is back", s)
			}
		})
	}
}

// in is the host in a subtest, which it does not outlive.
func (h *host) in(t testing.TB) *host {
	sub := *h
	sub.TB = t
	t.Cleanup(func() { h.daemon = sub.daemon })
	return &sub
}

// TestVaultDeleted deletes the whole Key Vault, and recovers it. It cannot be told
// from one that is not reached, so jobs wait.
func TestVaultDeleted(t *testing.T) {
	t.Parallel()
	c := newCloud(t, kvtest.Options{})
	h := newHost(t, keeping("keys: [main]", c.entry("main", c.KeyURI(inVault, "backup", ""))))
	h.begin("main")
	h.backup("docs")
	c.DeleteVault(inVault)
	h.coffer("key", "check", "main").says(control.ExitFailed, "next")
	h.coffer("status").says(control.ExitDone, "degraded", "cached secrets go on until")
	h.backup("docs")
	h.stop()
	h.start()
	waits := h.beside("backup", "docs")
	waits.said("paused until the keys answer")
	h.coffer("restore", "docs", h.path("back")).fails(control.ExitKeys, "main")
	c.RecoverVault(inVault)
	waits.ended().says(control.ExitDone, "going on")
	h.restores("docs")
}

// TestCertificate signs in with a certificate that is good, one that has expired, and
// a good one on a machine whose clock is an hour off.
func TestCertificate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, tt := range map[string]struct {
		until time.Time
		entra time.Duration // how far the clocks of the cloud are ahead
		code  int
		says  string
	}{
		"good":         {now.AddDate(1, 0, 0), 0, control.ExitDone, ""},
		"near its end": {now.AddDate(0, 0, 7), 0, control.ExitDone, "its certificate ends on " + now.AddDate(0, 0, 7).UTC().Format(time.DateOnly)},
		"expired":      {now.Add(-25 * time.Hour), 0, control.ExitFailed, "the certificate expired on " + now.Add(-25*time.Hour).UTC().Format(time.DateOnly)},
		"clock":        {now.AddDate(1, 0, 0), time.Hour, control.ExitFailed, "clock of this machine is 1h0m0s behind"},
	} {
		t.Run(name, func(t *testing.T) {
			clock := func() time.Time { return time.Now().Add(tt.entra) }
			c := newCloud(t, kvtest.Options{Clock: clock, AuthorityClock: clock})
			c.CreateKey(inVault, "backup", kvtest.KeyOptions{})
			h := newHost(t, plain)
			h.configure(keeping("keys: [main]", fmt.Sprintf("  main: {uri: %q, credential: {kind: certificate, tenant: %q, client: %q, certificate: $DIR/client.pem, authority: %q, ca: %q, proxy: %q}}\n",
				c.KeyURI(inVault, "backup", ""), c.Tenant(), application, c.Authority(), c.CAFile(), c.proxy)))
			c.AddCertificateClient(application, h.certificate("client.pem", tt.until))
			h.start()
			check := h.coffer("key", "check", "main").says(tt.code, tt.says)
			if tt.says != "" && !strings.Contains(check.out, "next") {
				t.Errorf("it does not say what to do:\n%s", check.out)
			}
			if tt.code == control.ExitDone {
				h.vaultCreate()
			} else {
				h.coffer("vault", "create", "local").fails(control.ExitKeys, tt.says)
			}
		})
	}
}

// certificate writes a certificate with its key, as for a service principal.
func (h *host) certificate(name string, until time.Time) *x509.Certificate {
	h.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(h, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "agent"}, NotBefore: until.AddDate(-2, 0, 0), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(h, err)
	h.write(name, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))+string(pkcs8(h, key)))
	cert, err := x509.ParseCertificate(der)
	must(h, err)
	return cert
}

// TestThrottled has Key Vault ask for silence again and again. It is left alone for
// as long as it says, and everything ends well.
func TestThrottled(t *testing.T) {
	t.Parallel()
	c := newCloud(t, kvtest.Options{})
	h := newHost(t, keeping("keys: [main]", c.entry("main", c.KeyURI(inVault, "backup", ""))))
	h.begin("main")
	h.backup("docs")
	h.stop()
	const storm = 4
	c.Throttle(storm, time.Second, kvtest.OpUnwrap)
	began, before := time.Now(), c.Calls(kvtest.OpUnwrap)
	h.start()
	h.restores("docs")
	if took := time.Since(began); took < time.Second {
		t.Errorf("after %s it was well, though it was asked for silence", took)
	}
	if n := c.Calls(kvtest.OpUnwrap) - before; n < storm || n > storm+6 {
		t.Errorf("%d unwraps were asked for in a storm of %d refusals", n, storm)
	}
	if s := h.vault().State; s != control.StateAccessible {
		t.Errorf("the vault is %s after the storm", s)
	}
}

// TestPINChanged changes the PIN under a running agent, which notices when its session
// ends. It is said once, the token is not asked again with the PIN that it refused,
// and a right one in its place is used by itself.
func TestPINChanged(t *testing.T) {
	tok, calls := testkit.Faulty(t, testkit.SoftHSM(t))
	h := newHost(t, keeping("keys: [main]", onToken("main", tok)))
	h.begin("main")
	h.backup("docs")
	tok.WritePIN(t, "the-pin-of-yesterday")
	calls.Fail(testkit.DecryptInit, 0xB3, 1) // CKR_SESSION_HANDLE_INVALID
	before := calls.Calls(testkit.Login)
	for range 5 {
		h.coffer("key", "check", "main").says(control.ExitFailed, "PIN")
	}
	h.coffer("status").says(control.ExitDone, "PIN")
	if n := calls.Calls(testkit.Login) - before; n != 1 {
		t.Errorf("the token was given the wrong PIN %d times, want once", n)
	}
	if n := strings.Count(h.read(h.daemon.log), "token refuses the pin"); n != 1 {
		t.Errorf("the log says it %d times, want once", n)
	}
	tok.WritePIN(t, tok.PIN)
	h.coffer("key", "check", "main").done()
	h.backup("docs")
	h.restores("docs")
	if s := h.vault().State; s != control.StateAccessible {
		t.Errorf("the vault is %s after the PIN is right again", s)
	}
}
