//go:build unix

package hook_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/hook"
)

// sh runs a script with a timeout that no test should come to.
func sh(t *testing.T, script string) (string, error) {
	t.Helper()
	return hook.Run(t.Context(), hook.Config{Command: []string{"/bin/sh", "-c", script}, Timeout: time.Minute})
}

func TestRun(t *testing.T) {
	out, err := sh(t, "echo one; echo two >&2; cat")
	if err != nil || out != "one\ntwo\n" {
		t.Errorf("%q, %v", out, err)
	}
	out, err = sh(t, "echo why; exit 3")
	if err == nil || err.Error() != "hook /bin/sh ended with exit code 3" || out != "why\n" {
		t.Errorf("%q, %v", out, err)
	}
	out, err = hook.Run(t.Context(), hook.Config{Command: []string{"/bin/cat"}, Stdin: strings.NewReader("read")})
	if err != nil || out != "read" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err = hook.Run(t.Context(), hook.Config{Command: []string{"/bin/true"}, Stdin: strings.NewReader(strings.Repeat("x", 1<<20))}); err != nil {
		t.Errorf("a command that does not read: %v", err)
	}
	if _, err = sh(t, "kill -9 $$"); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("ended by a signal: %v", err)
	}
	if _, err = hook.Run(t.Context(), hook.Config{Command: []string{"/no/such/program"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that there is not: %v", err)
	}
	if out, err = sh(t, `printf 'a\377b'`); err != nil || out != "a?b" {
		t.Errorf("what is not text: %q, %v", out, err)
	}
}

// TestEnvironment: it gets what it is about, and nothing of the agent's secrets.
func TestEnvironment(t *testing.T) {
	t.Setenv("COFFER_PIN", "hunter2")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	t.Setenv("LC_ALL", "C")
	out, err := hook.Run(t.Context(), hook.Config{Command: []string{"/usr/bin/env"}, Env: []string{"COFFER_ITEM=etc", "COFFER_RESULT=done"}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, want := range []string{"COFFER_ITEM=etc", "COFFER_RESULT=done", "LC_ALL=C", "PATH=" + os.Getenv("PATH")} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing in %q", want, lines)
		}
	}
	if strings.Contains(out, "hunter2") {
		t.Error("it sees secrets of the agent")
	}
}

// TestFlood: of a flood the end is kept, and nothing is held up.
func TestFlood(t *testing.T) {
	out, err := sh(t, "yes 0123456789abcdef | head -c 50000000; echo; echo the end")
	if err != nil || len(out) > hook.MaxOutput || len(out) < hook.MaxOutput-10 || !strings.HasSuffix(out, "\nthe end\n") {
		t.Errorf("%d bytes, %v, at the end %q", len(out), err, out[max(0, len(out)-20):])
	}
	out, err = sh(t, "yes äöü | head -c 301000")
	if err != nil || len(out) > hook.MaxOutput || strings.Contains(out, "?") {
		t.Errorf("characters were cut: %d bytes, %v", len(out), err)
	}
}

// TestTimeout: what ignores that it is asked to stop is killed, and its children too.
func TestTimeout(t *testing.T) {
	for name, script := range map[string]string{
		"ignores":  "trap '' TERM; echo $$ > $1; echo begun; while :; do sleep 0.1; done",
		"child":    "sh -c 'trap \"\" TERM; echo $$ > $1; while :; do sleep 0.1; done' x $1 & echo begun; wait",
		"orphan":   "(trap '' TERM; sh -c 'echo $$ > $1; exec sleep 300' x $1) & echo begun; sleep 300",
		"obedient": "echo $$ > $1; echo begun; exec sleep 300",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pid := filepath.Join(t.TempDir(), "pid")
			began := time.Now()
			out, err := hook.Run(t.Context(), hook.Config{Command: []string{"/bin/sh", "-c", script, "x", pid}, Timeout: time.Second})
			if !errors.Is(err, hook.ErrTimeout) || !strings.Contains(err.Error(), "after 1s") || out != "begun\n" {
				t.Errorf("%q, %v", out, err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			gone(t, pid)
		})
	}
}

// gone wants the process of that number not to run any more, and soon.
func gone(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	late := time.After(20 * time.Second)
	for running(pid) {
		select {
		case <-late:
			t.Errorf("process %d is still there", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// running tells whether a process runs, and is not only waiting to be reaped.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

// TestLeftRunning: a command that is done is done, though it has left something running
// that holds its output open.
func TestLeftRunning(t *testing.T) {
	t.Parallel()
	pid := filepath.Join(t.TempDir(), "pid")
	out, err := hook.Run(t.Context(), hook.Config{
		Command: []string{"/bin/sh", "-c", "sleep 300 & echo $! > $1; echo done", "x", pid}, Timeout: time.Minute,
	})
	if err != nil || out != "done\n" {
		t.Errorf("%q, %v", out, err)
	}
	raw, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || !running(n) {
		t.Errorf("what it has left running was ended: %v", err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestCancel: the end of the job is the end of its hook, and its cause is told.
func TestCancel(t *testing.T) {
	t.Parallel()
	pid := filepath.Join(t.TempDir(), "pid")
	why := errors.New("the deadline is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for ctx.Err() == nil {
			if raw, err := os.ReadFile(pid); err == nil && len(raw) > 0 {
				cancel(why)
			}
		}
	}()
	_, err := hook.Run(ctx, hook.Config{Command: []string{"/bin/sh", "-c", "echo $$ > $1; exec sleep 300", "x", pid}})
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	gone(t, pid)
	if _, err := hook.Run(ctx, hook.Config{Command: []string{"/bin/true"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("begun after the end: %v", err)
	}
}
