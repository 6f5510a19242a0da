//go:build linux

package notify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify"
)

// TestCommand: the body comes on standard input, what it is about in the environment,
// and nothing else of the agent's.
func TestCommand(t *testing.T) {
	t.Setenv("COFFER_TEST_PASSWORD", "hunter2")
	out := filepath.Join(t.TempDir(), "out")
	b := newBench(t)
	b.use(map[string]config.Notify{"c": {Body: "{{.Subject}}; $(touch /tmp/never)", Command: []string{"/bin/sh", "-c", `{ env; echo; cat; } >"$0.tmp"; mv "$0.tmp" "$0"`, out}}})
	b.start()
	b.fail("etc", notify.Again)
	var text []byte
	b.until(func() bool {
		text, _ = os.ReadFile(out)
		return len(text) > 0
	})
	for _, want := range []string{"COFFER_KIND=failure\n", "COFFER_SUBJECT=[coffer web1] etc\n", "COFFER_ITEM=etc\n", "PATH=", "\n\netc; $(touch /tmp/never)"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	if strings.Contains(string(text), "hunter2") || strings.Contains(string(text), "HOME=") {
		t.Errorf("the agent's environment is in %q", text)
	}
}

// TestCommandFails: what fails, floods or leaves things running is told, and bounded.
func TestCommandFails(t *testing.T) {
	for name, test := range map[string]struct{ script, fault string }{
		"exit code": {`echo "no route" >&2; exit 3`, `exit status 3: "no route"`},
		"flood":     {`yes | head -c 10000000; exit 1`, "exit status 1"},
		"killed":    {`kill -9 $$`, "killed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.use(map[string]config.Notify{"c": {Command: []string{"/bin/sh", "-c", test.script}}})
			b.start()
			b.fail("etc", notify.Again)
			b.until(func() bool { return b.channel("c").Error != "" })
			if said := b.channel("c").Error; !strings.Contains(said, test.fault) || len(said) > 1000 {
				t.Errorf("%q", said)
			}
		})
	}
	b := newBench(t)
	b.use(map[string]config.Notify{"c": {Command: []string{"/bin/sh", "-c", "sleep 1000 & exit 0"}}})
	b.start()
	b.fail("etc", notify.Again)
	b.until(func() bool { return b.channel("c").Sent == 1 }) // what it left running does not matter
}

// TestCommandHangs: a command that does not end is killed with all that it started
// when the agent stops.
func TestCommandHangs(t *testing.T) {
	out := filepath.Join(t.TempDir(), "pid")
	b := newBench(t)
	b.use(map[string]config.Notify{"c": {Command: []string{"/bin/sh", "-c", `trap "" TERM; sleep 1000 & echo $! >"$0.tmp"; mv "$0.tmp" "$0"; wait`, out}}})
	b.start()
	b.fail("etc", notify.Again)
	var pid []byte
	b.until(func() bool {
		pid, _ = os.ReadFile(out)
		return len(pid) > 0
	})
	begun := time.Now()
	b.stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	b.until(func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
