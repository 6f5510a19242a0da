package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// graceful is how long a killed command may keep its pipes open through a process
// that left its group.
const graceful = 5 * time.Second

// command is a program that is running, with all that it starts.
type command struct {
	cmd    *exec.Cmd
	stdout io.ReadCloser
	stderr tail
	ctx    func() error // why the context of its start is done, if it is
	cancel context.CancelFunc
	waited bool
	err    error
}

func start(ctx context.Context, cfg Config) (*command, error) {
	run, cancel := context.WithCancel(ctx)
	c := &command{cmd: exec.CommandContext(run, cfg.Command[0], cfg.Command[1:]...), ctx: ctx.Err, cancel: cancel}
	c.cmd.Dir = cfg.Dir
	if len(cfg.Env) > 0 {
		c.cmd.Env = append(os.Environ(), cfg.Env...)
	}
	c.cmd.Stderr = &c.stderr
	c.cmd.WaitDelay = graceful
	group(c.cmd)
	var err error
	if c.stdout, err = c.cmd.StdoutPipe(); err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("run command %s: %w", cfg.Command[0], err)
	}
	return c, nil
}

// wait returns how the command ended.
func (c *command) wait() error {
	if c.waited {
		return c.err
	}
	c.waited = true
	defer c.cancel()
	err := c.cmd.Wait()
	name := c.cmd.Args[0]
	said := c.stderr.String()
	if said != "" {
		said = "; it said: " + said
	}
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err != nil && c.ctx() != nil:
		c.err = fmt.Errorf("command %s: %w", name, c.ctx())
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // what it left running does not matter
	case exited && exit.ExitCode() >= 0:
		c.err = fmt.Errorf("command %s ended with exit code %d%s", name, exit.ExitCode(), said)
	default: // by a signal
		c.err = fmt.Errorf("command %s: %w%s", name, err, said)
	}
	return c.err
}

// kill ends the command and waits for it.
func (c *command) kill() {
	c.cancel()
	_ = c.wait() // what it was about no longer matters
}
