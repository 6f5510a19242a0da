//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cofferbackup/coffer/internal/bench/report"
)

// command is one program to run and measure.
type command struct {
	argv []string
	env  []string // added to the environment
	dir  string   // working directory
	keep string   // file that gets standard output, "" for none
}

func (c command) String() string { return strings.Join(c.argv, " ") }

// run runs c and returns what it took. Stored is left to the caller.
func (c command) run(ctx context.Context) (report.Sample, error) {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = c.dir
	cmd.Stdout, cmd.Stderr = &said, &said
	if c.keep != "" {
		out, err := os.Create(c.keep)
		if err != nil {
			return report.Sample{}, err
		}
		defer out.Close()
		cmd.Stdout = out
	}
	begin := time.Now()
	err := cmd.Run()
	wall := time.Since(begin)
	if err != nil {
		return report.Sample{}, fmt.Errorf("%s: %w: %s", c, err, tail(said.String()))
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return report.Sample{}, fmt.Errorf("%s: no resource usage", c)
	}
	return report.Sample{
		Wall: wall,
		CPU:  time.Duration(usage.Utime.Nano() + usage.Stime.Nano()),
		Peak: usage.Maxrss << 10,
	}, nil
}

func tail(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 600 {
		s = "..." + s[len(s)-600:]
	}
	return s
}

// ticksPerSecond is USER_HZ, the unit of CPU times in proc(5). It is 100 on
// every architecture that Go runs on.
const ticksPerSecond = 100

// cpuOf returns the CPU time that process pid and the children it has waited
// for have used so far.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(b, []byte(") ")) // the name may hold spaces
	fields := strings.Fields(string(rest))
	if !ok || len(fields) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat: %q is not what proc(5) says", pid, b)
	}
	var ticks int64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// resetPeak makes the kernel forget the peak memory of pid.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// peakOf returns the most resident bytes of pid since resetPeak.
func peakOf(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

// bytesIn sums the lengths of the files below dir.
func bytesIn(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
