//go:build linux

package agent_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store/dir"
)

// inChild is set in the process that TestSecretsAreGone looks into.
const inChild = "COFFER_TEST_CHILD"

// TestSecretsAreGone looks through all memory of an agent for the secrets of a
// vault: they are there while its key is, and gone when the key was taken away.
func TestSecretsAreGone(t *testing.T) {
	if os.Getenv(inChild) != "" {
		denied(t)
		return
	}
	exe, err := os.Executable()
	must(t, err)
	child := exec.CommandContext(t.Context(), exe, "-test.run=^TestSecretsAreGone$", "-test.v")
	child.Env = append(os.Environ(), inChild+"=1")
	in, err := child.StdinPipe()
	must(t, err)
	out, err := child.StdoutPipe()
	must(t, err)
	child.Stderr = t.Output()
	must(t, child.Start())
	lines := bufio.NewScanner(out)
	folder := await(t, lines, "ready ")
	secrets := secretsOf(t, folder)
	if n := found(t, child.Process.Pid, secrets); n == 0 {
		t.Error("no secret is in the memory of an agent that works: the search is blind")
	}
	fmt.Fprintln(in, "deny")
	await(t, lines, "denied")
	if n := found(t, child.Process.Pid, secrets); n != 0 {
		t.Errorf("%d copies of secrets are in the memory of an agent whose key was taken away", n)
	}
	fmt.Fprintln(in, "end")
	await(t, lines, "--- PASS")
	must(t, child.Wait())
}

// denied is the agent that is looked into.
func denied(t *testing.T) {
	b := furnished(t)
	orders := bufio.NewScanner(os.Stdin)
	fmt.Println("ready " + b.dir)
	orders.Scan()
	b.keys.breaks("main", fmt.Errorf("%w: disabled", kek.ErrDenied))
	b.keys.breaks("spare", fmt.Errorf("%w: disabled", kek.ErrDenied))
	b.pass(11)
	fmt.Println("denied")
	orders.Scan()
}

func await(t *testing.T, lines *bufio.Scanner, start string) string {
	t.Helper()
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), start); ok {
			return rest
		}
		t.Log(lines.Text())
	}
	t.Fatalf("the agent never said %q", start)
	return ""
}

// secretsOf opens the secrets of both vaults in folder.
func secretsOf(t *testing.T, folder string) [][]byte {
	t.Helper()
	k, err := software.Open(t.Context(), "main", "file://"+folder+"/main.pem")
	must(t, err)
	ring := kek.NewRing(k)
	var out [][]byte
	for _, vault := range []string{"one", "both"} {
		st, err := dir.Open(folder + "/" + vault)
		must(t, err)
		ids, err := os.ReadFile(folder + "/state/vaults.json")
		must(t, err)
		_, after, _ := strings.Cut(string(ids), `"`+vault+`": "`)
		text, _, _ := strings.Cut(after, `"`)
		id, err := crypt.ParseVaultID(text)
		must(t, err)
		v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: id, Ring: ring})
		must(t, err)
		for r, err := range v.KeyRecords(t.Context()) {
			must(t, err)
			secret, _, err := ring.Unwrap(t.Context(), r.Wrappings)
			must(t, err)
			out = append(out, secret[:32])
			if len(secret) > 32 {
				out = append(out, secret[32:])
			}
		}
		v.Close()
	}
	return out
}

// found counts the secrets in the memory that a process may write to.
func found(t *testing.T, pid int, secrets [][]byte) int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	must(t, err)
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	must(t, err)
	defer mem.Close()
	n := 0
	for _, line := range strings.Split(string(maps), "\n") {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		page := make([]byte, 1<<20)
		for at := from; at < to; at += int64(len(page)) - 64 { // a secret may lie across
			b := page[:min(int64(len(page)), to-at)]
			if _, err := mem.ReadAt(b, at); err != nil && err != io.EOF {
				break // reserved and never touched
			}
			for _, s := range secrets {
				n += bytes.Count(b, s)
			}
		}
	}
	return n
}
