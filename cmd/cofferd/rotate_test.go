//go:build linux

package main_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// again starts the agent anew with another configuration.
func (h *host) again(config string) {
	h.Helper()
	h.stop()
	h.configure(config)
	h.start()
}

// TestMoves takes a vault from a file to an HSM and on to a Key Vault, makes it
// customer-managed between, and tries every way back.
func TestMoves(t *testing.T) {
	t.Parallel()
	tok := testkit.SoftHSMApart(t)
	c := newCloud(t, kvtest.Options{})
	kek, main, cloud := inFile("kek"), onToken("main", tok), c.entry("cloud", c.KeyURI(inVault, "backup", ""))
	h := newHost(t, keeping("keys: [kek]", kek))
	h.env = tok.Env
	h.begin("kek")
	first := h.backup("docs").ID
	h.backup("more")
	h.coffer("vault", "mode", "local").says(control.ExitDone, "is software")
	h.coffer("vault", "mode", "local", "customer-managed", "--confirm", "local").fails(control.ExitFailed, "key kek", "is a file")

	onHSM := keeping("keys: [main], restore_keys: [kek]", kek, main)
	h.again(onHSM)
	h.coffer("key", "create", "main").done()
	covered(t, h.rotate().Coverage, "main")
	h.coffer("vault", "mode", "local", "customer-managed", "--confirm", "vault").says(control.ExitUsage, "nothing was done")
	raised := fromJSON[control.Job](h.coffer("vault", "mode", "local", "customer-managed", "--confirm", "local", "--json").done()).Result.Rekey
	if raised.Mode != control.ModeCustomerManaged || raised.Made != 2 {
		t.Errorf("raised to %q with %d new generations, want 2 items'", raised.Mode, raised.Made)
	}
	h.coffer("vault", "mode", "local", "customer-managed", "--confirm", "local").fails(control.ExitFailed, "already")
	if u := h.usage("kek"); u.Secrets != 0 {
		t.Errorf("%d secrets still hang on the file", u.Secrets)
	}
	h.backup("docs")
	h.noWayBack(onHSM, kek, main)
	must(t, os.Remove(h.path("kek.pem")))

	h.again(keeping("keys: [cloud], restore_keys: [main]", main, cloud))
	h.coffer("key", "create", "cloud").done()
	covered(t, h.rotate().Coverage, "cloud")
	h.again(keeping("keys: [cloud]", cloud))
	h.restores("docs@" + first)
	h.backup("docs")
	h.coffer("verify").done()
	h.coffer("audit", "verify").done()
}

// noWayBack tries to have a customer-managed vault under a file again: by command, by
// the config, and by the key record of the time before.
func (h *host) noWayBack(now, kek, main string) {
	h.Helper()
	h.coffer("vault", "mode", "local", "software").fails(control.ExitUsage, "never lowered")
	for _, vault := range []string{"keys: [kek], restore_keys: [main]", "keys: [main, kek]", "keys: [main], mode: software"} {
		h.again(keeping(vault, kek, main))
		h.coffer("backup", "docs").says(control.ExitFailed, "customer-managed, for ever")
		h.coffer("status").says(control.ExitDone, "customer-managed, for ever")
	}
	h.stop()
	newest := newestRecord(h, h.path("vault/keys/vault"))
	record, err := os.ReadFile(newest)
	must(h, err)
	must(h, os.Remove(newest))
	for _, config := range []string{keeping("keys: [kek], restore_keys: [main]", kek, main), now} {
		h.configure(config)
		h.start()
		h.coffer("backup", "docs").fails(control.ExitFailed, "older key records")
		h.coffer("restore", "docs", h.path("none")).fails(control.ExitFailed, "older key records")
		h.stop()
	}
	must(h, os.WriteFile(newest, record, 0o600))
	h.start()
	h.restores("docs")
}

// newestRecord is the last key record in a folder.
func newestRecord(t testing.TB, dir string) string {
	t.Helper()
	records := objects(t, dir, "")
	if len(records) == 0 {
		t.Fatalf("%s has no key record", dir)
	}
	slices.Sort(records)
	return records[len(records)-1]
}

// TestNewVersions rotates to a new version on each provider that has versions, with
// --new-version and with what the provider made by itself.
func TestNewVersions(t *testing.T) {
	t.Parallel()
	tok := testkit.SoftHSMApart(t)
	c := newCloud(t, kvtest.Options{})
	for name, tt := range map[string]struct {
		entry string
		made  func(*host) // the provider makes a version, and who follows it is up to the agent
	}{
		"HSM":       {onToken("main", tok), nil},
		"Key Vault": {c.entry("main", c.KeyURI(inVault, "backup", "")), func(h *host) { c.Rotate(inVault, "backup"); h.stop(); h.start() }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, keeping("keys: [main]", tt.entry))
			h.env = tok.Env
			h.begin("main")
			first := h.backup("docs").ID
			old := h.inUse()
			if u := h.usage("main"); u.Retirable || u.Secrets != 2 || len(u.Lost) != 2 {
				t.Errorf("the usage of the only version says %+v", u)
			}
			before := h.stored("packs")

			done := h.rotate("--new-version")
			if now := h.inUse(); now == old || done.Rewrapped != 2 || done.Secrets != 2 {
				t.Errorf("version %s after %s; %d of %d secrets are wrapped anew", now, old, done.Rewrapped, done.Secrets)
			}
			covered(t, done.Coverage, "main")
			if u := h.usage("main/" + old); u.Retirable || u.Secrets != 0 {
				t.Errorf("before the next backup, the usage of the old version says %+v", u)
			}
			h.backup("docs")
			if u := h.usage("main/" + old); !u.Retirable {
				t.Errorf("after the next backup, the usage of the old version says %+v", u)
			}
			if got := without(h.stored("packs"), before); len(got) != len(h.stored("packs"))-len(before) {
				t.Errorf("packs were touched: %q", got)
			}
			if tt.made != nil {
				old = h.inUse()
				tt.made(h)
				patiently(t, "the new version is in use", func() bool { return h.inUse() != old && len(h.vault().Owed) == 0 })
				covered(t, h.vault().Coverage, "main")
			}
			h.restores("docs@" + first)
			h.coffer("verify").done()
			h.coffer("audit", "verify").done()
		})
	}
}

// usage says what hangs on the first version of a key that name means.
func (h *host) usage(name string) control.VersionUsage {
	h.Helper()
	return fromJSON[control.KeyUsage](h.coffer("key", "usage", name, "--json").done()).Versions[0]
}

// inUse is the version of key main that is in use.
func (h *host) inUse() string {
	h.Helper()
	for _, k := range fromJSON[[]control.Key](h.coffer("key", "show", "main", "--json").done()) {
		if k.InUse {
			return k.Version
		}
	}
	h.Fatal("no version of key main is in use")
	return ""
}

// stored describes each object of the vault whose path has part in it: its name,
// what it is on the disk, and when it was last touched.
func (h *host) stored(part string) []string {
	h.Helper()
	var out []string
	for _, path := range objects(h, h.path("vault"), part) {
		info, err := os.Stat(path)
		must(h, err)
		out = append(out, fmt.Sprintf("%s %d %s %d", path, info.Size(), info.ModTime(), inode(info)))
	}
	return out
}

// manyItems makes items in the host's vault, without its agent, under a key in a file.
func (h *host) manyItems(n int, key string) {
	h.Helper()
	v := h.openVault(key)
	defer v.Close()
	for i := range n {
		it, err := v.CreateItem(h.Context(), fmt.Sprintf("item%04d", i), time.Now())
		must(h, err)
		it.Close()
	}
}

// TestThousandItems measures rotations of a vault with a thousand items.
func TestThousandItems(t *testing.T) {
	items := 1000
	if testing.Short() {
		items = 50
	}
	tok, calls := testkit.Faulty(t, testkit.SoftHSMApart(t))
	c := newCloud(t, kvtest.Options{})
	kek, main, cloud := inFile("kek"), onToken("main", tok), c.entry("cloud", c.KeyURI(inVault, "backup", ""))
	h := newHost(t, keeping("keys: [kek]", kek))
	h.env = tok.Env
	h.begin("kek", "--bits", "2048")
	h.backup("docs")
	h.stop()
	h.manyItems(items, "kek.pem")
	before := h.stored("packs")
	c.CreateKey(inVault, "backup", kvtest.KeyOptions{})
	h.start()
	h.again(keeping("keys: [main], restore_keys: [kek]", kek, main))
	h.coffer("key", "create", "main", "--bits", "2048").done()
	must(t, h.timed("file to HSM", items, calls, c))
	h.stop() // with nothing cached
	h.start()
	must(t, h.timed("HSM, new version", items, calls, c, "--new-version"))
	h.again(keeping("keys: [cloud], restore_keys: [main]", main, cloud))
	must(t, h.timed("HSM to Key Vault", items, calls, c))
	h.stop()
	h.start()
	must(t, h.timed("Key Vault, new version", items, calls, c, "--new-version"))
	if now := h.stored("packs"); !slices.Equal(now, before) {
		t.Errorf("packs were touched:\n%s", strings.Join(without(now, before), "\n"))
	}
	h.restores("docs")
}

// timed rotates, and logs what it took.
func (h *host) timed(what string, items int, hsm *testkit.Faults, c *cloud, args ...string) error {
	h.Helper()
	opened, asked := hsm.Calls(testkit.Decrypt), c.Calls(kvtest.OpUnwrap)
	done := h.rotate(args...)
	h.Logf("%s: %d secrets in %.1f s, %d unwraps (HSM %d, Key Vault %d), %d bytes written, 0 packs touched", what,
		done.Rewrapped, done.Seconds, done.Unwraps, hsm.Calls(testkit.Decrypt)-opened, c.Calls(kvtest.OpUnwrap)-asked, done.Bytes)
	for _, cov := range done.Coverage {
		if cov.InUse && cov.Owed > 0 {
			return fmt.Errorf("%s: %d secrets are owed", what, cov.Owed)
		}
	}
	if done.Secrets != items+2 || done.Rewrapped != done.Secrets {
		return fmt.Errorf("%s: %d of %d secrets were wrapped anew, want %d", what, done.Rewrapped, done.Secrets, items+2)
	}
	return nil
}

// TestKilledRotation kills the HSM's server in the middle of a rotation of two
// hundred items, again and again. Nothing is lost, and the same command goes on.
func TestKilledRotation(t *testing.T) {
	t.Parallel()
	const items = 200
	tok, server := testkit.ServeHSM(t, testkit.SoftHSMApart(t))
	c := newCloud(t, kvtest.Options{})
	kek, main, cloud := inFile("kek"), onToken("main", tok), c.entry("cloud", c.KeyURI(inVault, "backup", ""))
	h := newHost(t, keeping("keys: [kek]", kek))
	h.env = tok.Env
	h.begin("kek")
	first := h.backup("docs").ID
	h.stop()
	h.manyItems(items, "kek.pem")
	h.configure(keeping("keys: [main], restore_keys: [kek]", kek, main))
	h.start()
	h.coffer("key", "create", "main").done()
	h.rotate()
	must(t, os.Remove(h.path("kek.pem")))

	h.again(keeping("keys: [cloud], restore_keys: [main]", main, cloud))
	c.CreateKey(inVault, "backup", kvtest.KeyOptions{})
	records := len(h.stored("keys/"))
	rotation := h.beside("key", "rotate", "local")
	until(t, "some are wrapped anew", func() bool { return len(h.stored("keys/")) > records+20 })
	server.Kill(t)
	if r := rotation.ended(); r.code == control.ExitDone {
		t.Errorf("the rotation ended before the server: %s", r.out)
	} else {
		r.fails(control.ExitKeys, "secrets are wrapped anew")
	}
	server.Start(t)
	patiently(t, "main answers again", func() bool { return h.coffer("key", "check", "main").code == 0 })
	done := h.rotate()
	if done.Rewrapped == 0 || done.Rewrapped >= done.Secrets {
		t.Errorf("the second rotation wrapped %d of %d secrets anew, so it did not go on where the first stopped", done.Rewrapped, done.Secrets)
	}
	covered(t, done.Coverage, "cloud")
	server.Kill(t) // nobody needs it any more
	h.again(keeping("keys: [cloud]", cloud))
	h.restores("docs@" + first)
	if u := h.usage("cloud"); u.Secrets != items+2 || len(u.Lost) != items+2 {
		t.Errorf("key cloud opens %d secrets, %d of them alone; want %d", u.Secrets, len(u.Lost), items+2)
	}
	h.coffer("audit", "verify").done()
}
