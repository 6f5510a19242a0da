// Command coffer is how people and scripts talk to the agent, cofferd, over its
// control socket. It has one file per verb and no state of its own.
//
// Results go to standard output, everything else to standard error. The exit codes
// are those of package control.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/cofferbackup/coffer/agent/control"
)

func main() {
	soft, hard, stop := interrupts()
	columns, _, _ := term.GetSize(int(os.Stdout.Fd())) //nolint:errcheck // 0 if it is no terminal
	code := run(soft, &env{
		args: os.Args[1:], in: os.Stdin, out: os.Stdout, err: os.Stderr,
		getenv: os.Getenv, now: time.Now, version: control.BuildVersion(), wait: 5 * time.Second, hard: hard,
		inTerminal:  term.IsTerminal(int(os.Stdin.Fd())),
		errTerminal: term.IsTerminal(int(os.Stderr.Fd())),
		columns:     columns,
	})
	stop()
	os.Exit(code)
}

// interrupts returns a context that ends at the first Ctrl-C, and one that ends at
// the second.
func interrupts() (soft, hard context.Context, stop func()) {
	soft, cancelSoft := context.WithCancel(context.Background())
	hard, cancelHard := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, cancel := range []func(){cancelSoft, cancelHard} {
			if _, ok := <-signals; !ok {
				return
			}
			cancel()
		}
	}()
	return soft, hard, func() {
		signal.Stop(signals)
		close(signals)
		<-ended
		cancelSoft()
		cancelHard()
	}
}
