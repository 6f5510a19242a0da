//go:build linux

// Bench runs coffer beside restic and borg: the same data, the same machine, one
// run, repositories in memory. It measures wall time, CPU time, peak memory and
// stored bytes of a first backup, an unchanged one, a restore and a verify, and
// prints medians and ratios as a Markdown table.
//
// Programs take turns, the first round warms up and is not counted, and every
// round starts with an empty repository. After the restore of the first round
// what came back is compared byte for byte with what was backed up: a program
// that loses data gets no figures.
//
// Usage: make bench, or bench -h for the flags.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// options are the command line.
type options struct {
	cases      []string
	programs   []string
	rounds     int
	dir        string // data, repositories and restored files
	keep       bool
	out        string // Markdown page that gets the tables
	bin        string // folder with cofferd and coffer
	restic     string
	borg       string
	making     string // set in the child that makes the data of this case
	pruneFiles int    // of the case p
	pruning    string // set in the child that does this phase of the case p
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	var cases, programs string
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&cases, "case", "a,b,c,p", "cases to run: a source files, b random bytes, c disk image, d a million tiny files, p prune of a million chunks")
	f.StringVar(&programs, "program", "coffer,coffer-better,restic,borg", "programs to run; coffer-better is coffer with compression: better")
	f.IntVar(&o.rounds, "n", 3, "rounds that count, after one that warms up")
	f.StringVar(&o.dir, "dir", cmp.Or(os.Getenv("BENCH_DIR"), "/dev/shm/coffer-bench"), "folder for data and repositories, best in memory ($BENCH_DIR)")
	f.BoolVar(&o.keep, "keep", false, "keep the data of the cases for the next run")
	f.StringVar(&o.out, "o", "", "Markdown page whose bench blocks are replaced")
	f.StringVar(&o.bin, "bin", "bin", "folder with cofferd and coffer")
	f.StringVar(&o.restic, "restic", "restic", "restic program")
	f.StringVar(&o.borg, "borg", "borg", "borg program")
	f.StringVar(&o.making, "make", "", "make the data of one case and end")
	f.IntVar(&o.pruneFiles, "prune-files", 1_000_000, "files of the case p")
	f.StringVar(&o.pruning, "pruning", "", "do one phase of the case p and end")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.cases, o.programs = strings.Split(cases, ","), strings.Split(programs, ",")
	for _, name := range o.cases {
		if _, ok := caseNamed(name); !ok && name != pruneCase {
			return o, fmt.Errorf("no case %q: there are a, b, c, d and p", name)
		}
	}
	for _, name := range o.programs {
		if !slices.Contains([]string{"coffer", "coffer-better", "restic", "borg"}, name) {
			return o, fmt.Errorf("no program %q: there are coffer, coffer-better, restic and borg", name)
		}
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-n %d: at least one round must count", o.rounds)
	}
	var err error
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return o, err
	}
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}

func run(ctx context.Context, o options) (err error) {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	if o.making != "" {
		return makeData(ctx, o, o.making)
	}
	if o.pruning != "" {
		return doPhase(ctx, o, prunePhase(o.pruning))
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	for _, name := range o.cases {
		c, ok := caseNamed(name)
		var text string
		var err error
		if ok {
			text, err = runCase(ctx, o, c)
		} else {
			c.name = pruneCase
			text, err = runPrune(ctx, o)
		}
		if err != nil {
			return fmt.Errorf("case %s: %w", name, err)
		}
		if err := publish(o, c, text); err != nil {
			return err
		}
	}
	return nil
}
