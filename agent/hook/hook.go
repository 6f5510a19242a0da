// Package hook runs an operator's command around a job, so that nothing which it does
// holds up or fills up the agent.
//
// Invariants:
//   - Run returns by the timeout and a few seconds at the latest: whatever the command
//     ignores, prints, or leaves running with its output open.
//   - A command that is stopped goes with all that it started, but for what has left its
//     process group (on Windows: its job object).
//   - It gets the names of what it is about, and of the agent's environment only what has
//     no secrets: where the agent's PINs are is none of its business.
package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// MaxOutput is how much of what a command prints is kept, in bytes: the last.
const MaxOutput = 64 << 10

// graceful is how long a command has from being asked to stop to being killed, and how
// long its output is waited for that something it has left running holds open.
const graceful = 3 * time.Second

// Config of a run. Command must be set.
type Config struct {
	Command []string // a program, by its absolute path, and its arguments
	Timeout time.Duration
	Env     []string  // NAME=value, besides what is passed on from the agent
	Stdin   io.Reader // what it reads, all of it in memory; nil is nothing
}

// ErrTimeout: the command did not end in time, and was killed.
var ErrTimeout = errors.New("it did not end in time, and was killed")

// Run runs the command, and returns the last of what it printed, to both of its
// outputs, also beside an error. If ctx ends the command is asked to stop, and soon
// killed.
func Run(ctx context.Context, cfg Config) (output string, err error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("hook %s: %w", cfg.Command[0], err)
	}
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if cfg.Timeout > 0 {
		late := time.AfterFunc(cfg.Timeout, func() { cancel(ErrTimeout) })
		defer late.Stop()
	}
	out := new(tail)
	cmd := exec.CommandContext(run, cfg.Command[0], cfg.Command[1:]...)
	cmd.Env = append(passed(os.Environ()), cfg.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = cfg.Stdin, out, out
	group := contain(cmd)
	cmd.WaitDelay = graceful // then the program itself is killed
	cmd.Cancel = group.stop
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("hook %s: %w", cfg.Command[0], err)
	}
	group.started()
	defer group.release()
	err = cmd.Wait()
	if stopped := context.Cause(run); stopped != nil {
		group.kill() // what is left of it
		if errors.Is(stopped, ErrTimeout) {
			stopped = fmt.Errorf("%w after %s", ErrTimeout, cfg.Timeout)
		}
		return out.String(), fmt.Errorf("hook %s: %w", cfg.Command[0], stopped)
	}
	return out.String(), ended(cfg.Command[0], err)
}

// ended says how a command ended by itself. What it left running does not matter.
func ended(name string, err error) error {
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case exited && exit.ExitCode() >= 0:
		return fmt.Errorf("hook %s ended with exit code %d", name, exit.ExitCode())
	}
	return fmt.Errorf("hook %s: %w", name, err) // by a signal
}

// passed picks what is passed on of an environment.
func passed(env []string) []string {
	names := []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR",
		"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROGRAMDATA", "PROGRAMFILES", "TEMP", "TMP"}
	return slices.DeleteFunc(env, func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		name = strings.ToUpper(name)
		return !slices.Contains(names, name) && !strings.HasPrefix(name, "LC_")
	})
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte // at most twice MaxOutput
	cut  bool   // there was more before it
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if n > MaxOutput {
		p, t.cut = p[n-MaxOutput:], true
	}
	if len(t.data)+len(p) > 2*MaxOutput {
		t.data, t.cut = append(t.data[:0], t.data[len(t.data)-MaxOutput:]...), true
	}
	t.data = append(t.data, p...)
	return n, nil
}

// String returns the last MaxOutput bytes at the most, as text.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	data := t.data
	if len(data) > MaxOutput {
		data, t.cut = data[len(data)-MaxOutput:], true
	}
	if t.cut {
		for len(data) > 0 && !utf8.RuneStart(data[0]) {
			data = data[1:]
		}
	}
	return strings.ToValidUTF8(string(data), "?")
}
