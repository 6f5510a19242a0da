package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/cofferbackup/coffer/agent/control"
)

// confirmation is what a verb asks for that cannot be undone: the name of what it
// is done to, once more.
type confirmation struct {
	verb  string // "item erase"
	what  string // whose name it is: "item"
	name  string
	given string // with --confirm
	// warn says what is about to happen, to somebody at a terminal.
	warn func(context.Context, *page) error
}

// confirm returns nil if the verb is meant: by --confirm, or by what is typed at a
// terminal.
func (a *app) confirm(ctx context.Context, c confirmation) error {
	switch {
	case c.given == c.name:
		return nil
	case c.given != "":
		return &usageError{
			fmt.Sprintf("--confirm %q is not the name of the %s, %q; nothing was done", c.given, c.what, c.name),
			"confirm with the name itself",
		}
	case !a.inTerminal:
		return &usageError{
			c.verb + " cannot be undone, and nobody is at a terminal to be asked",
			"add --confirm " + c.name,
		}
	}
	p := &page{now: a.now()}
	if err := c.warn(ctx, p); err != nil {
		return err
	}
	p.WriteString("Type the name of the " + c.what + " to go on: ")
	fmt.Fprint(a.err, p.String())
	answer, err := a.readLine(ctx)
	if err == nil && answer != c.name {
		err = &control.Error{
			Code: control.CodeCancelled, Message: fmt.Sprintf("%q is not the name of the %s; nothing was done", answer, c.what),
			Next: "to do it, run this again and type " + c.name,
		}
	}
	return err
}

// readLine reads what somebody types. It returns when ctx ends, too; the read
// itself then ends with the process.
func (a *app) readLine(ctx context.Context) (string, error) {
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n') //nolint:errcheck // what came before it is the answer
		typed <- line
	}()
	select {
	case line := <-typed:
		if !strings.HasSuffix(line, "\n") {
			fmt.Fprintln(a.err) // the prompt's line ends here, as it does with Enter
		}
		return strings.TrimSpace(line), nil
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return "", &control.Error{Code: control.CodeCancelled, Message: "interrupted before the answer; nothing was done"}
	}
}
