//go:build linux

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store/dir"
)

// moving is a configuration that has left key main for key next.
const moving = `
agent: {state: $DIR/state, socket: $DIR/s}
keys:
  main: {uri: "file://$DIR/kek.pem"}
  next: {uri: "file://$DIR/next.pem"}
vaults:
  local: {store: "file://$DIR/vault", keys: [next], restore_keys: [main]}
items:
  docs: {vault: local, files: {paths: [$DIR/docs]}}
`

// keysIn opens software keys of the host.
func (h *host) keysIn(files ...string) *kek.Ring {
	h.Helper()
	var keys []kek.Key
	for _, file := range files {
		k, err := software.Open(h.Context(), file, "file://"+h.path(file))
		must(h, err)
		keys = append(keys, k)
	}
	return kek.NewRing(keys...)
}

// openVault opens the host's vault with keys in files, without its agent.
func (h *host) openVault(files ...string) *catalog.Vault {
	h.Helper()
	var ids map[string]string
	must(h, json.Unmarshal([]byte(h.read("state/vaults.json")), &ids))
	id, err := crypt.ParseVaultID(ids["local"])
	must(h, err)
	st, err := dir.Open(h.path("vault"))
	must(h, err)
	v, err := catalog.Open(h.Context(), st, catalog.OpenOptions{ID: id, Ring: h.keysIn(files...)})
	must(h, err)
	return v
}

// opened counts the secrets of a vault that a ring opens.
func opened(t *testing.T, v *catalog.Vault, ring *kek.Ring) int {
	t.Helper()
	n := 0
	for r, err := range v.KeyRecords(t.Context()) {
		must(t, err)
		if secret, _, err := ring.Unwrap(t.Context(), r.Wrappings); err == nil {
			clear(secret)
			n++
		}
	}
	return n
}

// TestRekeyKilled kills the agent again and again while it wraps hundreds of secrets
// with another key. At every moment one key or the other opens each secret, and in
// the end the new one opens all.
func TestRekeyKilled(t *testing.T) {
	const items = 200
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	h.ready()
	kept := h.backup("docs").ID
	h.stop()
	v := h.openVault("kek.pem")
	for i := range items {
		it, err := v.CreateItem(t.Context(), fmt.Sprintf("item%03d", i), time.Now())
		must(t, err)
		it.Close()
	}
	v.Close()

	must(t, software.Create(t.Context(), "file://"+h.path("next.pem"), software.CreateOptions{Bits: 2048}))
	h.configure(moving)
	const secrets = items + 2 // the vault's own, and that of docs
	kills := 0
	for wait := 50 * time.Millisecond; ; wait += wait / 8 {
		h.daemon = h.launch("coffer.yaml")
		<-time.After(wait) // it dies anywhere in its work
		h.kill()
		kills++
		v := h.openVault("kek.pem", "next.pem")
		all, moved := opened(t, v, h.keysIn("kek.pem", "next.pem")), opened(t, v, h.keysIn("next.pem"))
		v.Close()
		if all != secrets {
			t.Fatalf("after %d kills %d of %d secrets open", kills, all, secrets)
		}
		if moved == secrets {
			break
		}
		if kills == 100 {
			t.Fatalf("after %d kills the new key opens only %d of %d secrets", kills, moved, secrets)
		}
	}
	t.Logf("killed %d times", kills)
	must(t, os.Remove(h.path("kek.pem")))
	h.start()
	h.coffer("restore", "docs@"+kept, h.path("back")).done()
	sameTree(t, h.path("docs"), h.path("back", h.path("docs")))
	h.coffer("audit", "verify").done()
}
