package report_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/bench/report"
)

func samples(walls ...int) []report.Sample {
	s := make([]report.Sample, len(walls))
	for i, w := range walls {
		s[i] = report.Sample{Wall: time.Duration(w) * time.Second, CPU: time.Second, Peak: int64(w) << 20, Stored: 1_500_000}
	}
	return s
}

func TestMedianTakesEachFieldByItself(t *testing.T) {
	for _, tc := range []struct {
		walls []int
		want  time.Duration
	}{
		{[]int{9, 1, 4}, 4 * time.Second},
		{[]int{8, 2}, 2 * time.Second},
		{[]int{5}, 5 * time.Second},
		{nil, 0},
	} {
		if got := (report.Row{Samples: samples(tc.walls...)}).Median().Wall; got != tc.want {
			t.Errorf("median of %v is %s, want %s", tc.walls, got, tc.want)
		}
	}
}

func TestTableGivesRatiosAgainstTheBase(t *testing.T) {
	got := report.Table([]report.Row{
		{Step: "first", Program: "coffer", Samples: samples(2, 2, 2)},
		{Step: "first", Program: "restic", Samples: samples(6, 7, 8)},
		{Step: "one file", Program: "coffer", Samples: samples(1)},
	}, "restic")
	for _, want := range []string{
		"| first | coffer | 2.00 s | 1.00 s | 2 MiB | 1.5 MB | 3.50 |",
		"| first | restic | 7.00 s | 1.00 s | 7 MiB | 1.5 MB | 1.00 |",
		"| one file | coffer | 1.00 s | 1.00 s | 1 MiB | 1.5 MB |  |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no row %q in\n%s", want, got)
		}
	}
}

func TestReplaceLeavesTheRestOfThePage(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	before := "# Title\n<!-- bench a -->\nold\n<!-- /bench a -->\nbetween\n<!-- bench b -->\n<!-- /bench b -->\nend\n"
	if err := os.WriteFile(page, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time gives the same page
		if err := report.Replace(page, "a", "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(before, "old", "new", 1); string(got) != want {
		t.Errorf("page is\n%s\nwant\n%s", got, want)
	}
	for _, name := range []string{"c", "-->"} {
		if err := report.Replace(page, name, "x"); !errors.Is(err, report.ErrNoBlock) {
			t.Errorf("block %s: %v, want ErrNoBlock", name, err)
		}
	}
}
