package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cofferbackup/coffer/agent/control"
)

// env is the world of one run.
type env struct {
	args                    []string
	in                      io.Reader
	out, err                io.Writer
	getenv                  func(string) string
	now                     func() time.Time
	version                 string
	wait                    time.Duration   // for an agent that is just starting
	hard                    context.Context // ends at the second Ctrl-C
	inTerminal, errTerminal bool
	columns                 int // of the terminal that out is; 0: it is none
}

// width is what a page may be wide; 0 is without a limit.
func (e *env) width() int {
	if n, err := strconv.Atoi(e.getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return e.columns
}

// app is what the verbs share.
type app struct {
	*env
	*control.Client
	socket  string
	json    bool
	started bool // flags and arguments were right
	code    int  // exit code of a run without an error
}

// usageError is a command line that cannot be meant.
type usageError struct{ message, next string }

func (e *usageError) Error() string { return e.message }

// run does what the arguments say and returns the exit code.
func run(ctx context.Context, e *env) int {
	a := &app{env: e}
	root := a.root()
	root.SetArgs(e.args)
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	cmd, err := root.ExecuteContextC(ctx)
	if a.Client != nil {
		a.skew()
		a.Close()
	}
	if err == nil {
		return a.code
	}
	var usage *usageError
	if !a.started && !errors.As(err, &usage) {
		err = &usageError{err.Error(), "see " + cmd.CommandPath() + " --help"}
	}
	return a.fail(err)
}

// root is coffer itself.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "coffer",
		Short: "Back up and restore under your own keys",
		Long: `Coffer keeps backups that only your own key can open. The service, cofferd, does
the work; coffer tells it what to do, over its socket.

Where a verb takes ITEM@POINT, POINT is "latest" (the default), an id or the
beginning of one, or a date or time: the newest point at or before it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some entries were
skipped, 4 the vault's keys are inaccessible.`,
		Example: `  coffer status
  coffer backup etc
  coffer point list etc
  coffer restore etc@2026-09-02 /srv/restored --path /etc/fstab`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // group has the better words
		RunE:          group,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := emptyFlag(cmd); err != nil {
				return err
			}
			a.started = true
			a.Client = control.NewClient(control.ClientConfig{Socket: a.socket, Wait: a.wait})
			return nil
		},
	}
	socketDefault := a.getenv("COFFER_SOCKET")
	if socketDefault == "" {
		socketDefault = control.DefaultSocket
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socketDefault, "the agent's `socket`; also COFFER_SOCKET")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write JSON")
	root.PersistentFlags().SortFlags = false
	root.CompletionOptions.HiddenDefaultCmd = true // packages bring what it makes
	root.AddCommand(
		a.statusCmd(), a.doctorCmd(), a.versionCmd(), a.configCmd(), a.vaultCmd(), a.keyCmd(), a.itemCmd(), a.backupCmd(),
		a.pointCmd(), a.restoreCmd(), a.catCmd(), a.verifyCmd(), a.pruneCmd(), a.jobCmd(), a.policyCmd(), a.auditCmd(),
	)
	a.complete(root)
	return root
}

// group is a command that only has others beneath it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2
	next := "see " + cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		next = "did you mean " + cmd.CommandPath() + " " + near[0] + "?"
	}
	return &usageError{fmt.Sprintf("%s has no verb %q", verb(cmd), args[0]), next}
}

// verb returns the name of a command as messages say it: "vault create".
func verb(cmd *cobra.Command) string {
	_, path, found := strings.Cut(cmd.CommandPath(), " ")
	if !found {
		return "coffer"
	}
	return path
}

// takes checks the number of arguments; what names those that a verb takes.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		next := "see " + cmd.CommandPath() + " --help"
		switch {
		case len(args) < least:
			return &usageError{fmt.Sprintf("%s needs %s", verb(cmd), what), next}
		case len(args) > most && most == 0:
			return &usageError{fmt.Sprintf("%s takes no arguments, and there is %q", verb(cmd), args[0]), next}
		case len(args) > most:
			return &usageError{fmt.Sprintf("%s takes only %s, and there is %q", verb(cmd), what, args[most]), next}
		case slices.Contains(args, ""):
			return &usageError{fmt.Sprintf("%s takes %s, and what stands for one is empty", verb(cmd), what), emptyNext}
		}
		return nil
	}
}

// emptyNext is what to do about an empty word: nobody writes one on purpose.
const emptyNext = "see what the shell made of the line: a variable that is not set is an empty word"

// emptyFlag refuses a flag that was given and has nothing in it. Without it, one that
// narrows would mean everything.
func emptyFlag(cmd *cobra.Command) error {
	var empty error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		words := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			words = list.GetSlice()
		}
		if slices.Contains(words, "") {
			empty = &usageError{"--" + f.Name + " is empty", emptyNext}
		}
	})
	return empty
}

// fail says what went wrong and returns the exit code.
func (a *app) fail(err error) int {
	code, e := control.ExitCode(err), control.AsError(err)
	var usage *usageError
	if errors.As(err, &usage) {
		code, e = control.ExitUsage, &control.Error{Code: control.CodeBadRequest, Message: usage.message, Next: usage.next}
	}
	if a.json {
		writeJSON(a.err, struct { //nolint:errcheck // nobody is left to tell
			Error *control.Error `json:"error"`
		}{e})
		return code
	}
	fmt.Fprintf(a.err, "coffer: %s\n", strings.ReplaceAll(safeText(e.Message), "\n", "\n  "))
	for _, need := range e.Needs {
		fmt.Fprintf(a.err, "  needs   %s\n", safe(need))
	}
	if e.Next != "" {
		fmt.Fprintf(a.err, "  next    %s\n", safeText(e.Next))
	}
	return code
}

// skew tells of an agent of another version.
func (a *app) skew() {
	agent := a.AgentVersion()
	if agent == "" || agent == a.version || a.version == "(devel)" || agent == "(devel)" {
		return
	}
	fmt.Fprintf(a.err, "coffer: note: the agent is %s and this coffer is %s; install the same version of both\n", safe(agent), a.version)
}

// print writes v as JSON if that was asked for, or as text does.
func (a *app) print(v any, text func(w *page)) error {
	if a.json {
		return writeJSON(a.out, v)
	}
	p := &page{now: a.now()}
	text(p)
	_, err := io.WriteString(a.out, p.String())
	return unwritten(err)
}

// writeJSON writes v, indented, as people and jq read it.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return unwritten(enc.Encode(v))
}

// unwritten is the fault of a result that could not be written, or nil.
func unwritten(err error) error {
	if err == nil {
		return nil
	}
	return &control.Error{
		Code: control.CodeFailed, Message: fmt.Sprintf("write the result: %v", err), Next: "see that there is room where the output goes",
	}
}

// splitPoint reads ITEM[@POINT].
func splitPoint(arg string) (item, point string, err error) {
	item, point, found := strings.Cut(arg, "@")
	if item == "" || found && point == "" {
		return "", "", &usageError{fmt.Sprintf("%q does not name an item", arg), "write ITEM or ITEM@POINT"}
	}
	if _, err := control.ParseSelector(point, time.UTC); err != nil {
		return "", "", &usageError{
			fmt.Sprintf("%q is %v", point, err),
			"write an id or its beginning, latest, 2026-09-02, or 2026-09-02T14:00; coffer point list " + item + " shows what there is",
		}
	}
	return item, point, nil
}
