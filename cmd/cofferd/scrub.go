package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog/scrub"
	"github.com/cofferbackup/coffer/store"
)

// scrubOptions are the flags of scrub.
type scrubOptions struct {
	store   string
	json    bool
	workers int
}

func scrubCommand() *cobra.Command {
	var o scrubOptions
	cmd := &cobra.Command{
		Use:   "scrub --store URL",
		Short: "Check every object of a vault, without any key",
		Long: `Read every object of a vault and check it against its own checksums and its name. No
key, no vault id and no configuration is needed, and nothing is changed: it can run on the
machine that has the disks, or with credentials that may only list and read.

It finds what was damaged, cut off, misplaced or put there by somebody else, and key
records that are gone. With credentials that may list versions it finds what somebody
deleted and a delete marker hides. It does not find a forgery, nor a pack or point that is
gone as a whole: that takes the keys, coffer verify.

The exit code is 0 if there is no fault, 1 if there are some or it did not come to an end.`,
		Example: `  cofferd scrub --store file:///srv/backup
  cofferd scrub --store 's3://host:9000/bucket?credentials=file:/root/readonly' --json`,
		Args: cobra.ArbitraryArgs, // what is wrong with them is usage, too
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("scrub takes no arguments, and there is %q", args[0])}
			}
			if o.store == "" {
				return usageError{errors.New("--store is needed: the URL of the store to check")}
			}
			if o.workers < 1 || o.workers > 64 {
				return usageError{fmt.Errorf("--at-once %d: it is 1 to 64", o.workers)}
			}
			return runScrub(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.store, "store", "", "URL of the store")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.IntVar(&o.workers, "at-once", 4, "objects read at once")
	return cmd
}

func runScrub(ctx context.Context, o scrubOptions, out io.Writer) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	st, err := openToRead(ctx, log, time.Now, o.store)
	if errors.Is(err, store.ErrMissing) {
		err = &control.Error{Code: control.CodeStore, Message: err.Error(), Next: "correct --store, or mount what it names"}
	}
	if err != nil {
		return fault.Of(err)
	}
	defer st.Close()
	began := time.Now()
	progress := new(scrub.Progress)
	stop := drawScrub(ctx, progress)
	report, err := scrub.Run(ctx, scrub.Config{Objects: st, Workers: o.workers, Progress: progress})
	stop()
	hidden := false
	if err == nil {
		hidden, err = addConcealed(ctx, st, report, log)
	}
	if err != nil {
		return fault.Of(err)
	}
	if o.json {
		err = printScrubJSON(out, o.store, report)
	} else {
		err = printScrub(out, o.store, report, time.Since(began))
	}
	if err == nil && report.Faulty > 0 {
		next := "see which points they reach: coffer verify; it says what can still be restored, and from what"
		switch {
		case hidden:
			next = fault.HiddenNext
		case len(report.Kinds) == 0:
			next = "correct --store: nothing of a vault is there; the recovery sheet says where the vault is"
		}
		err = &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("%s in %s", number(report.Faulty, "fault"), o.store), Next: next}
	}
	return err
}

// addConcealed adds to what a scrub found what somebody deleted and a delete marker
// hides, if the store keeps versions and the credentials may list them.
func addConcealed(ctx context.Context, st store.Concealer, report *scrub.Report, log *slog.Logger) (found bool, err error) {
	for info, err := range st.Concealed(ctx, "") {
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			return found, nil
		case errors.Is(err, store.ErrDenied):
			log.Warn("versions not listed, so it is not known what delete markers hide", "err", err)
			return found, nil
		case err != nil:
			return found, err
		}
		found = true
		if report.Faulty++; len(report.Faults) < scrub.MaxNamed {
			report.Faults = append(report.Faults, scrub.Fault{Key: info.Key,
				Says: fmt.Sprintf("a delete marker hides it, and the %s behind it, of %s, are there still", binarySize(info.Size), info.Modified.UTC().Format(time.RFC3339))})
		}
	}
	slices.SortStableFunc(report.Faults, func(a, b scrub.Fault) int { return cmp.Compare(a.Key, b.Key) })
	return found, nil
}

// drawScrub shows on a terminal how far the scrub is, until what it returns is called.
func drawScrub(ctx context.Context, p *scrub.Progress) (stop func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(os.Stderr, "\r%s, %s, %s \x1b[K", number(p.Objects.Load(), "object"), binarySize(p.Bytes.Load()), number(p.Faults.Load(), "fault"))
			case <-ctx.Done():
				fmt.Fprint(os.Stderr, "\r\x1b[K")
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func printScrubJSON(out io.Writer, url string, report *scrub.Report) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Store string `json:"store"`
		*scrub.Report
	}{url, report})
}

func printScrub(out io.Writer, url string, r *scrub.Report, took time.Duration) error {
	var objects int64
	for _, c := range r.Kinds {
		objects += c.Objects
	}
	fmt.Fprintf(out, "%s: %s, %s, checked in %s\n\n", url, number(objects, "object"), binarySize(r.TotalSize), took.Round(100*time.Millisecond))
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tOBJECTS\tSIZE")
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		fmt.Fprintf(t, "%s\t%d\t%s\n", kind, r.Kinds[kind].Objects, binarySize(r.Kinds[kind].Bytes))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if n := r.Erased.Objects; n > 0 {
		fmt.Fprintf(out, "%s, %s, left by an erasure: noise that the store has not let go.\n", number(n, "object"), binarySize(r.Erased.Bytes))
	}
	if r.Vanished > 0 {
		fmt.Fprintf(out, "%s deleted by somebody while the scrub ran.\n", number(r.Vanished, "object"))
	}
	if r.Straying > 0 {
		fmt.Fprintf(out, "%s that are none of a vault's, the first of them %s.\n", number(r.Straying, "object"), r.Strays[0])
	}
	for _, f := range r.Faults {
		fmt.Fprintf(out, "fault  %s\n       %s\n", f.Key, f.Says)
	}
	if more := r.Faulty - int64(len(r.Faults)); more > 0 {
		fmt.Fprintf(out, "and %s more.\n", number(more, "fault"))
	}
	if r.Faulty == 0 {
		fmt.Fprintln(out, "No fault. Whether points have all that they need, and nothing is forged, takes the keys: coffer verify.")
	}
	return nil
}

// number is so many of something.
func number(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// binarySize is a number of bytes for people.
func binarySize(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1<<10 {
		value, unit = value/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
