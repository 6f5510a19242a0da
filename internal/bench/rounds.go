//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/internal/bench/report"
)

// runCase measures every program on the data of c and returns the block for the
// page.
func runCase(ctx context.Context, o options, c benchCase) (text string, err error) {
	st, err := prepare(ctx, o, c)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, discard(o, c)) }()
	var programs []program
	var versions []string
	for _, name := range o.programs {
		p := programNamed(o, c, name)
		v, err := p.version(ctx)
		if err != nil {
			return "", err
		}
		programs, versions = append(programs, p), append(versions, v)
	}
	rows := make(map[step]map[string]*report.Row)
	for round := range o.rounds + 1 {
		for _, p := range programs {
			if err := runRound(ctx, o, c, p, round, rows); err != nil {
				return "", fmt.Errorf("%s: %w", p.name(), err)
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d files, %.2f GB", c.title, st.Files, float64(st.Bytes)/1e9)
	if st.Note != "" {
		fmt.Fprintf(&b, " (%s)", st.Note)
	}
	fmt.Fprintf(&b, ".\n%s; %d cores, %s; medians of %d after one warm-up; made by `make bench` on %s.\n\n",
		strings.Join(versions, ", "), runtime.NumCPU(), memory(), o.rounds, time.Now().Format(time.DateOnly))
	b.WriteString(report.Table(ordered(c, o, rows), "restic"))
	b.WriteString("\nThe lines that were measured:\n\n")
	for _, p := range programs {
		for _, line := range slices.Compact(slices.Clone(p.commands())) {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	return b.String(), nil
}

func programNamed(o options, c benchCase, name string) program {
	switch name {
	case "restic":
		return newRestic(o, c)
	case "borg":
		return newBorg(o, c)
	default:
		return newCoffer(o, c, name)
	}
}

// runRound takes p once through all steps. Round 0 warms up and compares; its
// samples are not kept. Of coffer-better only the stored size is of interest:
// one round, one step.
func runRound(ctx context.Context, o options, c benchCase, p program, round int, rows map[step]map[string]*report.Row) (err error) {
	steps := c.steps
	if p.name() == "coffer-better" {
		if round != 1 {
			return nil
		}
		steps = steps[:1]
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.open(ctx, c); err != nil {
		return err
	}
	for _, s := range steps {
		sample, err := p.do(ctx, s)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s round %d  %-13s %-16s %7.2f s wall %7.2f s CPU %5d MiB %8.1f MB stored\n",
			c.name, round, p.name(), s, sample.Wall.Seconds(), sample.CPU.Seconds(), sample.Peak>>20, float64(sample.Stored)/1e6)
		if s == restored {
			if err := checkRestored(o, c, p, round); err != nil {
				return err
			}
		}
		if round > 0 {
			keep(rows, s, p.name(), sample)
		}
	}
	return nil
}

// checkRestored compares what came back in the first round, and makes room.
func checkRestored(o options, c benchCase, p program, round int) error {
	if round == 0 {
		if err := compare(dataDir(o, c), p.restoredTo()); err != nil {
			return err
		}
	}
	return os.RemoveAll(p.restoredTo())
}

func keep(rows map[step]map[string]*report.Row, s step, program string, sample report.Sample) {
	if rows[s] == nil {
		rows[s] = make(map[string]*report.Row)
	}
	if rows[s][program] == nil {
		rows[s][program] = &report.Row{Step: string(s), Program: program}
	}
	rows[s][program].Samples = append(rows[s][program].Samples, sample)
}

// ordered lists the rows by step, then in the order the programs were named.
func ordered(c benchCase, o options, rows map[step]map[string]*report.Row) []report.Row {
	var list []report.Row
	for _, s := range c.steps {
		for _, name := range o.programs {
			if row := rows[s][name]; row != nil {
				list = append(list, *row)
			}
		}
	}
	return list
}

// memory says how much the machine has.
func memory() string {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "memory unknown"
	}
	var kib int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%d GiB", (kib+1<<19)>>20)
}

// publish prints the block of a case and puts it into the page.
func publish(o options, c benchCase, text string) error {
	fmt.Printf("\n%s: %s\n", c.name, text)
	if o.out == "" {
		return nil
	}
	return report.Replace(o.out, c.name, text)
}
