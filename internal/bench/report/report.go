// Package report turns the benchmark's measurements into tables: medians over
// the repetitions, ratios against one program, and a block in a Markdown page
// that is replaced each time and leaves the rest of the page alone.
package report

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Sample is one step of one program, run once.
type Sample struct {
	Wall   time.Duration
	CPU    time.Duration // user and system, of everything that the program ran
	Peak   int64         // resident bytes at the most
	Stored int64         // bytes in the repository after the step
}

// Row is the samples of one step of one program.
type Row struct {
	Step    string
	Program string
	Samples []Sample
}

// Median returns the middle of the samples, each field by itself. Of an even
// number it is the lower of the two in the middle.
func (r Row) Median() Sample {
	return Sample{
		Wall:   median(r.Samples, func(s Sample) time.Duration { return s.Wall }),
		CPU:    median(r.Samples, func(s Sample) time.Duration { return s.CPU }),
		Peak:   median(r.Samples, func(s Sample) int64 { return s.Peak }),
		Stored: median(r.Samples, func(s Sample) int64 { return s.Stored }),
	}
}

func median[T cmp.Ordered](samples []Sample, field func(Sample) T) T {
	var zero T
	if len(samples) == 0 {
		return zero
	}
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = field(s)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// Table writes rows as a Markdown table. The last column says how many times as
// fast as the program base each one is at the same step.
func Table(rows []Row, base string) string {
	baseline := make(map[string]time.Duration)
	for _, r := range rows {
		if r.Program == base {
			baseline[r.Step] = r.Median().Wall
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| step | program | wall | CPU | peak memory | stored | speed, %s = 1 |\n", base)
	b.WriteString("|---|---|--:|--:|--:|--:|--:|\n")
	for _, r := range rows {
		m := r.Median()
		ratio := ""
		if wall, ok := baseline[r.Step]; ok && m.Wall > 0 {
			ratio = fmt.Sprintf("%.2f", wall.Seconds()/m.Wall.Seconds())
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.Step, r.Program,
			seconds(m.Wall), seconds(m.CPU), mebibytes(m.Peak), megabytes(m.Stored), ratio)
	}
	return b.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<19)>>20) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// ErrNoBlock: the page has no place for the block.
var ErrNoBlock = errors.New("block markers not found")

// Replace puts text between the markers "<!-- bench NAME -->" and
// "<!-- /bench NAME -->" of the page at path and leaves the rest as it is.
func Replace(path, name, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := "<!-- bench "+name+" -->", "<!-- /bench "+name+" -->"
	head, rest, ok := bytes.Cut(page, []byte(begin))
	if !ok {
		return fmt.Errorf("%s: %w: put a line %s and a line %s where the table belongs", path, ErrNoBlock, begin, end)
	}
	_, tail, ok := bytes.Cut(rest, []byte(end))
	if !ok {
		return fmt.Errorf("%s: %w: no line %s after %s", path, ErrNoBlock, end, begin)
	}
	page = slices.Concat(head, []byte(begin+"\n"+strings.TrimSpace(text)+"\n"+end), tail)
	return os.WriteFile(path, page, 0o644)
}
