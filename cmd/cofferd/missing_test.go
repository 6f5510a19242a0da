//go:build linux

package main_test

import (
	"crypto/rsa"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// golden requires that a program printed what is in a file of testdata, but for what
// is another each time.
func (r result) golden(name string, replace [][2]string) {
	r.t.Helper()
	got := r.out + r.err
	for _, p := range replace {
		got = regexp.MustCompile(p[0]).ReplaceAllString(got, p[1])
	}
	want, err := os.ReadFile(filepath.Join("testdata", name))
	must(r.t, err)
	if got != string(want) {
		r.t.Errorf("%s says\n%s\nand not what is in testdata/%s\n%s", r.what, got, name, want)
	}
}

// varies is what is another in each test: patterns, and what stands for them.
func (c *cloud) varies(h *host) [][2]string {
	return [][2]string{
		{regexp.QuoteMeta(strings.TrimPrefix(c.VaultURL(inVault), "https://")), "corp.vault.azure.net"},
		{c.Tenant(), "TENANT"}, {application, "CLIENT"}, {regexp.QuoteMeta(h.dir), "DIR"},
		{`[0-9a-f]{32}`, "VERSION"}, {`fingerprint [0-9a-f]{12}`, "fingerprint FINGERPRINT"},
		{`[0-9-]{10}T[0-9:]{8}Z-[a-z0-9]+`, "POINT"}, {`[0-9]{4}-[0-9]{2}-[0-9]{2}`, "DATE"},
	}
}

// TestKeyCheck prints the check of a key in a vault without purge protection. A
// vault is not made with it, unless the configuration says so.
func TestKeyCheck(t *testing.T) {
	t.Parallel()
	c := newCloud(t, kvtest.Options{})
	h := newHost(t, keeping("keys: [main]", c.entry("main", c.KeyURI(inVault, "backup", ""))))
	h.start()
	h.coffer("key", "create", "main").done()
	h.coffer("key", "check", "main").says(control.ExitDone).golden("key-check-well.golden", c.varies(h))
	c.SetRecovery(inVault, kvtest.RecoverablePurgeable, 90)
	h.coffer("key", "check", "main").says(control.ExitFailed).golden("key-check-purgeable.golden", c.varies(h))
	h.coffer("vault", "create", "local").fails(control.ExitFailed, "purge_protection")
	if exists(h.path("vault")) {
		t.Error("a vault was made with a key that can be lost at once")
	}
	h.again(keeping("keys: [main]", c.entry("main", c.KeyURI(inVault, "backup", ""))) + "custody: {rules: {purge_protection: audit}}\n")
	made := fromJSON[control.VaultCreated](h.coffer("vault", "create", "local", "--json").done())
	if !slices.ContainsFunc(made.Warnings, func(w string) bool { return strings.Contains(w, "purge protection is off") }) {
		t.Errorf("it warns of %q", made.Warnings)
	}
}

// TestMissingVersion restores an item whose secret hangs on one version of one key,
// which is disabled. The error names it and the time; nothing is written; the same
// material under another address opens it.
func TestMissingVersion(t *testing.T) {
	t.Parallel()
	c := newCloud(t, kvtest.Options{})
	uri := c.KeyURI(inVault, "backup", "")
	h := newHost(t, keeping("keys: [kek, cloud]", inFile("kek"), c.entry("cloud", uri)))
	furnish(t, h.path("docs"))
	h.start()
	h.coffer("key", "create", "kek").done()
	h.coffer("key", "create", "cloud").done()
	h.vaultCreate()
	h.backup("docs")
	h.stop()
	must(t, os.Rename(h.path("kek.pem"), h.path("away.pem")))
	h.start()
	point := h.backup("more").ID // wrapped with cloud alone
	h.stop()
	version := c.Versions(inVault, "backup")[0]
	must(t, os.Rename(h.path("away.pem"), h.path("kek.pem")))
	c.Deny(kvtest.Scope{}, kvtest.OpUnwrap) // else kek would get at once what it is owed
	h.start()
	h.restores("docs")
	c.Disable(inVault, "backup", version)
	c.Allow(kvtest.Scope{})

	restore := []string{"restore", "more@" + point, h.path("back")}
	denied := h.coffer(restore...).fails(control.ExitKeys, "needs", version, "fingerprint", time.Now().UTC().Format(time.DateOnly)+" to now", uri, "disabled", strings.Join(restore, " "))
	denied.golden("restore-missing.golden", c.varies(h))
	if exists(h.path("back")) {
		t.Error("a restore without a key touched its target")
	}
	h.coffer("restore", "more", h.path("back"), "--dry-run").fails(control.ExitKeys, "needs")
	h.coffer("cat", "more", h.path("docs/letter.txt")).fails(control.ExitKeys, "needs")

	material := c.Material(inVault, "backup", version).(*rsa.PrivateKey)
	h.write("copy.pem", string(pkcs8(t, material)))
	copied := "file://" + h.path("copy.pem")
	h.coffer("key", "link", "local", "file://"+h.path("kek.pem")).fails(control.ExitUsage, "--restore-only")
	h.coffer("key", "link", "local", "file://"+h.path("nothing.pem"), "--restore-only").fails(control.ExitKeys, "nothing.pem")
	h.coffer("key", "link", "local", copied, "--restore-only").done()
	h.coffer(restore...).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
	h.stop()
	h.start() // the link is remembered
	h.restores("more")
	covered(t, h.rotate().Coverage, "kek") // it opens what another was owed
	h.coffer("key", "unlink", "local", copied).done()
	h.coffer("key", "unlink", "local", copied).fails(control.ExitFailed, "no key")
	must(t, os.Remove(h.path("copy.pem")))
	h.stop()
	h.start()
	h.restores("more")
	c.Enable(inVault, "backup", version)
	covered(t, h.rotate().Coverage, "kek", "cloud")
	h.coffer("audit", "verify").done()
}

// TestRescueFromCloud has nothing but the store, the id and a key in Key Vault.
func TestRescueFromCloud(t *testing.T) {
	t.Parallel()
	c := newCloud(t, kvtest.Options{})
	uri := c.KeyURI(inVault, "backup", "")
	h := newHost(t, keeping("keys: [main]", c.entry("main", uri)))
	id := h.begin("main")
	h.backup("docs")
	h.rotate("--new-version")
	last := h.backup("docs")
	h.stop()
	must(t, os.RemoveAll(h.path("state")))
	c.AddCertificateClient(application, h.certificate("client.pem", time.Now().AddDate(1, 0, 0)))

	vault := []string{"rescue", "--store", "file://" + h.path("vault"), "--vault-id", id, "--key", uri}
	who := append([]string{"--tenant", c.Tenant(), "--client", application}, "--authority", c.Authority(), "--ca", c.CAFile(), "--proxy", c.proxy)
	rescue := func(args ...string) result {
		return h.run(nil, "cofferd", append(vault[:len(vault):len(vault)], args...)...)
	}
	secret := append([]string{"--client-secret-source", "file:" + c.secret}, who...)
	certificate := append([]string{"--client-certificate", h.path("client.pem")}, who...)
	rescue(append(secret, "ls")...).says(control.ExitDone, last.ID)
	rescue(append(certificate, "restore", "docs", h.path("saved"))...).done()
	sameTree(t, h.path("docs"), h.path("saved", h.path("docs")))
	rescue(append(secret, "--key", "file://"+h.path("none.pem"), "ls")...).says(control.ExitDone, last.ID, "none.pem") // one is enough

	rescue(append(who, "ls")...).says(control.ExitUsage, "--client-secret-source")
	rescue(append(append(secret, "--client-certificate", h.path("client.pem")), "ls")...).says(control.ExitUsage, "alternatives")
	h.write("wrong", "not-the-secret")
	rescue(append(append([]string{"--client-secret-source", "file:" + h.path("wrong")}, who...), "ls")...).fails(control.ExitKeys, "AADSTS7000215")
	h.run(nil, "cofferd", "rescue", "--store", "file://"+h.path("vault"), "--vault-id", id, "--key", "file:///root/kek.pem", "--tenant", "x", "ls").says(control.ExitUsage, "Key Vault")
}
