//go:build linux

package main_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestStateFull fills the disk that the agent's state is on, under it and before it
// starts, with its local index and without. It answers, says what it cannot do for want of
// room and does not half of it; restores go on; and all is well, without a restart, when
// there is room.
func TestStateFull(t *testing.T) {
	h := newHost(t, one)
	small(t, h.path("state"), 96) // less than 64 MiB free is a problem
	t.Cleanup(h.kill)             // before its state goes
	furnish(t, h.path("docs"))
	id := h.ready()
	first := h.backup("docs").ID
	stored := objects(t, h.path("vault"), "")
	h.coffer("status").says(control.ExitDone, "All well")
	filler := h.path("state", "filler")
	for _, when := range []string{"under it", "before it starts", "and its index is lost"} {
		t.Run(when, func(t *testing.T) {
			h := h.in(t)
			if when != "under it" {
				h.stop()
			}
			if when == "and its index is lost" {
				must(t, os.RemoveAll(h.path("state", "index")))
			}
			fillUp(t, filler)
			if when != "under it" {
				h.start()
				patiently(t, "the metrics have the problem", func() bool { return h.metric("coffer_problems") > 0 })
			}
			h.coffer("status").says(control.ExitDone, "docs", h.path("state")+": 0 MiB free", "make room on its disk")
			h.coffer("backup", "docs").fails(control.ExitFailed, "no space left", h.path("state"), "state folder")
			if got := objects(t, h.path("vault"), ""); !slices.Equal(got, stored) {
				t.Errorf("the backup that failed changed the vault: %v, it was %v", got, stored)
			}
			if when == "and its index is lost" {
				h.givesBack("docs", when).says(control.ExitDone, "in memory", "no space left")
			} else {
				h.givesBack("docs", when)
			}
			back := h.path("rescued " + when)
			h.run(nil, "cofferd", "rescue", "--store", "file://"+h.path("vault"), "--vault-id", id, "--key", "file://"+h.path("kek.pem"), "restore", "docs", back).done()
			sameTree(t, h.path("docs"), back+h.path("docs"))
			must(t, os.Remove(filler))
			h.coffer("status").says(control.ExitDone, "All well")
		})
	}
	if got := h.points("docs"); len(got) != 1 || got[0] != first {
		t.Errorf("points %q without room for a backup, want %s", got, first)
	}
	h.backup("docs")
	h.coffer("verify", "docs").done()
	h.coffer("audit", "verify").done()
}

// givesBack has the agent restore an item and show a file and the points of it, and
// compares. It returns what the restore said.
func (h *host) givesBack(item, name string) result {
	h.Helper()
	back := h.path("back " + name)
	restored := h.coffer("restore", item, back).done()
	sameTree(h, h.path(item), back+h.path(item))
	if got := h.coffer("cat", item, h.path(item, "letter.txt")).done().out; got != h.read(item+"/letter.txt") {
		h.Errorf("it shows %q", got)
	}
	if n := len(h.points(item)); n == 0 {
		h.Errorf("no point is listed")
	}
	return restored
}

// metric returns the value of a metric without labels.
func (h *host) metric(name string) float64 {
	h.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.path("metrics"))
		}}}
	resp, err := client.Get("http://agent/metrics")
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) { // not yet
		return 0
	}
	must(h, err)
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			must(h, err)
			return v
		}
	}
	h.Fatalf("there is no metric %s", name)
	return 0
}

// fillUp leaves no room on the file system of a file.
func fillUp(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer f.Close()
	for size := 1 << 16; size > 0; size /= 2 {
		for err == nil {
			_, err = f.Write([]byte(strings.Repeat("x", size)))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
		err = nil
	}
}
