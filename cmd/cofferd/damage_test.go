//go:build linux

package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// damages are what a bad disk makes of a file. What is left of an empty file is what it was.
var damages = map[string]func(b []byte, r *rand.Rand){
	"a bit":  func(b []byte, r *rand.Rand) { b[r.IntN(len(b))] ^= 1 << r.IntN(8) },
	"a byte": func(b []byte, r *rand.Rand) { b[r.IntN(len(b))] ^= byte(1 + r.IntN(255)) },
	"half a sector": func(b []byte, r *rand.Rand) {
		at := r.IntN(len(b))
		clear(b[at:min(len(b), at+256)])
	},
	"zeros": func(b []byte, _ *rand.Rand) { clear(b) },
}

// TestStateDamaged damages each file of the state in each way. The agent starts, says what
// is damaged, sets it aside and goes on: what it restores is right, and it backs up. The
// one thing that it asks for is the id of a vault that it does not know any more.
func TestStateDamaged(t *testing.T) {
	h := newHost(t, one)
	fill(t, h.path("docs"), 1, 30, 2000)
	h.write("docs/letter.txt", "Dear vault,\n")
	id := h.allState()
	h.stop()
	image := h.path("image")
	must(t, os.CopyFS(image, os.DirFS(h.path("state"))))
	pinned := strings.Replace(one, "keys: [main]}", "keys: [main], id: "+id+"}", 1)

	for _, f := range []struct {
		pattern string
		says    string // in the status; "" if there may be nothing to say
		trials  int    // of each way
	}{
		{"vaults.json", "vaults.json was damaged", 1},
		{"custody.json", "custody.json was damaged", 1},
		{"schedule.json", "schedule.json was damaged", 1},
		{"proofs.json", "proofs.json was damaged", 1},
		{"notify.json", "notify.json was damaged", 1},
		{"floors/*.json", ".json was damaged", 1},
		{"jobs/00000001.json", "00000001.json was damaged", 1},
		{"audit/000001.jsonl", "audit log", 1},
		{"audit/head", "audit log", 1},
		{"index/*/*", "", 6},
	} {
		t.Run(f.pattern, func(t *testing.T) {
			h := h.in(t)
			r := rand.New(rand.NewPCG(1, uint64(len(f.pattern))))
			aside := 0
			for how, damage := range damages {
				for range f.trials {
					must(t, os.RemoveAll(h.path("state")))
					must(t, os.CopyFS(h.path("state"), os.DirFS(image)))
					found, err := filepath.Glob(h.path("state", f.pattern))
					must(t, err)
					if len(found) != 1 {
						t.Fatalf("%s is %q", f.pattern, found)
					}
					b, err := os.ReadFile(found[0])
					must(t, err)
					good := slices.Clone(b)
					damage(b, r)
					if bytes.Equal(b, good) { // there were zeros
						continue
					}
					must(t, os.Chmod(found[0], 0o600)) // sealed files are read-only
					must(t, os.WriteFile(found[0], b, 0o600))
					if f.pattern == "vaults.json" {
						h.forgets(pinned)
					} else {
						h.start()
					}
					what := fmt.Sprintf("%s of %s", how, f.pattern)
					h.goesOn(what, f.says)
					if _, err := os.Stat(found[0] + ".damaged"); err == nil {
						aside++
					}
					h.stop()
					must(t, os.RemoveAll(h.path("back "+what)))
				}
			}
			t.Logf("set aside %d times", aside)
			if aside == 0 && !strings.HasPrefix(f.pattern, "audit/") {
				t.Error("nothing was set aside")
			}
		})
	}
}

// forgets starts an agent that does not know the id of its vault any more, and tells it.
func (h *host) forgets(pinned string) {
	h.Helper()
	h.configure(one)
	h.start()
	h.coffer("restore", "docs", h.path("nowhere")).fails(control.ExitFailed, "recovery sheet", "vaults.local.id")
	if _, err := os.Stat(h.path("nowhere")); err == nil {
		h.Error("it restored from a vault that it does not know")
	}
	h.configure(pinned)
	h.coffer("config", "reload").done()
}

// goesOn requires that the agent says what it has to, restores and backs up.
func (h *host) goesOn(what, says string) {
	h.Helper()
	h.givesBack("docs", what)
	h.backup("docs")
	h.coffer("verify", "docs").done()
	if says != "" {
		h.coffer("status").says(control.ExitDone, says)
	}
}

// TestStateLost removes each file of the state, the lock of an agent that does not run
// too. It is as if it had never been, but for the id of the vault.
func TestStateLost(t *testing.T) {
	h := newHost(t, one)
	fill(t, h.path("docs"), 1, 30, 2000)
	h.write("docs/letter.txt", "Dear vault,\n")
	id := h.allState()
	h.stop()
	image := h.path("image")
	must(t, os.CopyFS(image, os.DirFS(h.path("state"))))
	pinned := strings.Replace(one, "keys: [main]}", "keys: [main], id: "+id+"}", 1)
	known := []string{"audit/000001.jsonl", "audit/head", "audit/head.spare", "audit/lock", "custody.json", "floors/*.json", "index/*/*",
		"jobs/*.json", "lock", "notify.json", "proofs.json", "schedule.json", "vaults.json"}
	for _, path := range objects(t, image, "") {
		name, err := filepath.Rel(image, path)
		must(t, err)
		if !slices.ContainsFunc(known, func(pattern string) bool { ok, _ := filepath.Match(pattern, name); return ok }) {
			t.Errorf("%s is in the state, and nobody has said what its loss does", name)
		}
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			must(t, os.RemoveAll(h.path("state")))
			must(t, os.CopyFS(h.path("state"), os.DirFS(image)))
			must(t, os.Remove(h.path("state", name)))
			if name == "vaults.json" {
				h.forgets(pinned)
			} else {
				h.start()
			}
			says := "All well"
			if strings.HasPrefix(name, "audit/0") || name == "audit/head" {
				says = "audit log"
			}
			h.goesOn(name[strings.LastIndexByte(name, '/')+1:], says)
			h.stop()
		})
	}
}
