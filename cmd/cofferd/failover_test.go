//go:build linux

package main_test

import (
	"os"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// TestThreeKeys has a vault with an HSM, a Key Vault and an escrow key, and takes the
// first two away, in turn and both. Work goes on with what there is, it is said what
// is missing, and what was made meanwhile is wrapped for a key that comes back.
func TestThreeKeys(t *testing.T) {
	t.Parallel()
	tok, server := testkit.ServeHSM(t, testkit.SoftHSMApart(t))
	c := newCloud(t, kvtest.Options{})
	h := newHost(t, keeping("keys: [main, cloud, escrow]", onToken("main", tok), c.entry("cloud", c.KeyURI(inVault, "backup", "")), "  escrow: {public: $DIR/escrow.pub}\n"))
	h.env = tok.Env
	h.escrow("escrow.pub")
	furnish(t, h.path("docs"))
	h.start()
	h.coffer("key", "create", "main").done()
	h.coffer("key", "create", "cloud").done()
	h.vaultCreate()
	h.backup("docs")
	h.restores("docs")
	h.coffer("status").says(control.ExitDone, "accessible", "main (HSM", "cloud (Key Vault", "escrow (offline")
	drill := fromJSON[control.Job](h.coffer("key", "drill", "local", "--json").done()).Result.Drill
	if drill.Without != "main" || !slices.Equal(drill.With, []string{"cloud"}) || drill.Secrets != 2 || drill.Bytes == 0 {
		t.Errorf("the drill says %+v", drill)
	}

	server.Kill(t)
	h.coffer("key", "check", "main").says(control.ExitFailed, "next")
	h.coffer("status").says(control.ExitDone, "degraded", "1 of 2 keys open the vault: main")
	h.backup("docs")
	h.stop()
	h.start() // to an agent that has nothing cached, and never saw main
	h.coffer("status").says(control.ExitDone, "degraded", "main")
	h.backup("docs")
	h.restores("docs")
	h.backup("more") // made while main is away

	c.Down() // both are
	h.coffer("key", "check", "cloud").says(control.ExitFailed)
	h.coffer("status").says(control.ExitDone, "degraded", "main", "cloud")
	h.backup("more") // the cached secret goes on
	h.restores("docs")

	server.Start(t)
	c.Up()
	h.coffer("key", "check", "cloud").done()
	patiently(t, "main answers again", func() bool { return h.coffer("key", "check", "main").code == 0 })
	patiently(t, "main has a wrapping of every secret", func() bool {
		all := h.vault().Coverage
		return len(all) == 3 && !slices.ContainsFunc(all, func(c control.Coverage) bool { return !c.InUse || c.Owed > 0 })
	})
	covered(t, h.vault().Coverage, "main", "cloud", "escrow")
	h.coffer("status").says(control.ExitDone, "accessible", "All well")
	h.stop()

	c.Down() // main alone opens what was made without it
	h.start()
	h.restores("more")
	h.coffer("status").says(control.ExitDone, "degraded", "cloud")
	c.Up()
	h.coffer("audit", "verify").done()
}

// TestPause kills the server of the only key before and under backups. They wait for
// it, say so, and go on by themselves.
func TestPause(t *testing.T) {
	t.Parallel()
	tok, server := testkit.ServeHSM(t, testkit.SoftHSMApart(t))
	h := newHost(t, keeping("keys: [main]", onToken("main", tok)))
	h.env = tok.Env
	fill(t, h.path("docs"), 1, 24, 8<<20)
	h.start()
	h.coffer("key", "create", "main").done()
	h.vaultCreate()

	under := h.beside("backup", "docs")
	until(t, "some packs are stored", func() bool { return packs(h.path("vault")) >= 2 })
	server.Kill(t)
	under.ended().done() // its secret is open already
	h.stop()

	h.start() // with nothing open, and nobody to ask
	before := h.beside("backup", "docs")
	before.said("paused until the keys answer")
	if j := h.job(h.newest()); j.State != control.JobRunning || j.Progress.Phase != "waiting for keys" {
		t.Errorf("the job is %s, %s", j.State, j.Progress.Phase)
	}
	must(t, os.WriteFile(h.path("docs/new"), []byte("written while the key was away"), 0o600))
	server.Start(t)
	before.ended().says(control.ExitDone, "the keys answer again: going on")
	if got := len(h.points("docs")); got != 2 {
		t.Errorf("%d points, want 2", got)
	}
	h.restores("docs")
	h.coffer("verify").done()
}
