package policy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

// retentionCase is a file of testdata/retention: fields, an empty line, and points, one
// a line, with what is decided of each behind "|".
type retentionCase struct {
	head   []string
	rows   []string // the points as they are written
	zone   *time.Location
	now    time.Time
	keep   policy.Retention
	allow  policy.Allow
	points []policy.Point
}

func readCase(t *testing.T, name string) retentionCase {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := strings.Cut(string(text), "\n\n")
	if !ok {
		t.Fatalf("%s has no empty line", name)
	}
	c := retentionCase{head: strings.Split(head, "\n"), zone: time.UTC}
	for _, line := range c.head {
		field, value, _ := strings.Cut(line, ": ")
		switch {
		case strings.HasPrefix(line, "#"):
		case field == "zone":
			c.zone = zone(t, value)
		case field == "now":
			c.now = c.time(t, value)
		case field == "keep":
			c.rules(t, value)
		default:
			t.Fatalf("%s: %q", name, line)
		}
	}
	c.keep.Zone = c.zone
	for line := range strings.Lines(body) {
		row, _, _ := strings.Cut(strings.TrimSpace(line), "|")
		c.rows = append(c.rows, strings.TrimSpace(row))
		c.points = append(c.points, c.point(t, len(c.rows), strings.Fields(row)))
	}
	return c
}

func (c *retentionCase) time(t *testing.T, text string) time.Time {
	if local, err := time.ParseInLocation(minutes, text, c.zone); err == nil {
		return local
	}
	return at(t, text)
}

func (c *retentionCase) rules(t *testing.T, text string) {
	for _, rule := range strings.Fields(text) {
		name, value, _ := strings.Cut(rule, "=")
		n, _ := strconv.Atoi(strings.TrimRight(value, "dh"))
		switch name {
		case "last":
			c.keep.Last = n
		case "hourly":
			c.keep.Hourly = n
		case "daily":
			c.keep.Daily = n
		case "weekly":
			c.keep.Weekly = n
		case "monthly":
			c.keep.Monthly = n
		case "yearly":
			c.keep.Yearly = n
		case "minimum":
			c.keep.Minimum = n
		case "within":
			c.keep.Within = time.Duration(n) * time.Hour
			if strings.HasSuffix(value, "d") {
				c.keep.Within *= 24
			}
		case "tags":
			c.keep.Tags = strings.Split(value, ",")
		case "allow-empty":
			c.allow.Empty = true
		default:
			t.Fatalf("%q is no rule", rule)
		}
	}
}

func (c *retentionCase) point(t *testing.T, n int, fields []string) policy.Point {
	p := policy.Point{ID: fmt.Sprintf("p%03d", n), Time: c.time(t, fields[0])}
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "tag":
			p.Tags = append(p.Tags, value)
		case "hold":
			owner, reason, _ := strings.Cut(value, ":")
			p.Holds = append(p.Holds, policy.Hold{Owner: owner, Reason: strings.ReplaceAll(reason, "_", " ")})
		case "damaged":
			p.Damaged = true
		case "asked":
			p.Asked = true
		default:
			t.Fatalf("%q is nothing of a point", field)
		}
	}
	return p
}

// verdict writes a decision as the files have it.
func (c *retentionCase) verdict(d policy.Decision) string {
	out := "expire: "
	if d.Keep {
		out = "keep: "
	}
	out += strings.Join(d.Reasons, "; ")
	if !d.Expires.IsZero() {
		out += " | not before " + d.Expires.In(c.zone).Format(minutes)
	}
	if d.Pinned {
		out += " | pinned"
	}
	return out
}

func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/retention/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c := readCase(t, name)
			decisions := decide(t, c.points, c.keep, c.now, c.allow)
			if len(decisions) != len(c.points) {
				t.Fatalf("%d decisions of %d points", len(decisions), len(c.points))
			}
			width := 0
			for _, row := range c.rows {
				width = max(width, len(row))
			}
			got := strings.Join(c.head, "\n") + "\n\n"
			for i, d := range decisions {
				if d.Point.ID != c.points[i].ID {
					t.Fatalf("decision %d is of %s", i, d.Point.ID)
				}
				got += fmt.Sprintf("%-*s | %s\n", width, c.rows[i], c.verdict(d))
			}
			golden(t, name, got)
		})
	}
}

func decide(t testing.TB, points []policy.Point, r policy.Retention, now time.Time, allow policy.Allow) []policy.Decision {
	t.Helper()
	decisions, err := policy.Decide(points, r, now, allow)
	if err != nil {
		t.Fatal(err)
	}
	return decisions
}

// kept returns the points that are kept.
func kept(decisions []policy.Decision) []policy.Point {
	var out []policy.Point
	for _, d := range decisions {
		if d.Keep {
			out = append(out, d.Point)
		}
	}
	return out
}

// lost returns the points of before that after does not have.
func lost(before, after []policy.Point) []policy.Point {
	ids := make(map[string]bool)
	for _, p := range after {
		ids[p.ID] = true
	}
	return slices.DeleteFunc(slices.Clone(before), func(p policy.Point) bool { return ids[p.ID] })
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		r     policy.Retention
		allow policy.Allow
		fault string
	}{
		{policy.Retention{Last: 1}, policy.Allow{}, ""},
		{policy.Retention{Within: time.Hour}, policy.Allow{}, ""},
		{policy.Retention{Tags: []string{"x"}}, policy.Allow{}, ""},
		{policy.Retention{}, policy.Allow{}, "--allow-empty"},
		{policy.Retention{Minimum: 1}, policy.Allow{}, "--allow-empty"},
		{policy.Retention{}, policy.Allow{Empty: true}, ""},
		{policy.Retention{Daily: -1, Last: 3}, policy.Allow{Empty: true}, "daily is -1"},
		{policy.Retention{Minimum: -1, Last: 3}, policy.Allow{}, "minimum is -1"},
		{policy.Retention{Within: -1, Last: 3}, policy.Allow{}, "within"},
		{policy.Retention{Tags: []string{""}, Last: 3}, policy.Allow{}, "empty tag"},
	} {
		points := []policy.Point{{ID: "a", Time: at(t, "2026-11-20T02:00")}}
		decisions, err := policy.Decide(points, test.r, at(t, "2026-11-22T09:00"), test.allow)
		switch {
		case test.fault == "" && (err != nil || len(decisions) != 1):
			t.Errorf("%+v %+v: %v, %v", test.r, test.allow, decisions, err)
		case test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault) || decisions != nil):
			t.Errorf("%+v %+v: %v, %v; want %q", test.r, test.allow, decisions, err, test.fault)
		}
	}
	if err := (policy.Retention{}).Check(policy.Allow{}); !errors.Is(err, policy.ErrKeepsNothing) {
		t.Errorf("no rule: %v", err)
	}
}

func TestTwiceListed(t *testing.T) {
	when := at(t, "2026-11-20T02:00")
	points := []policy.Point{
		{ID: "a", Time: when},
		{ID: "b", Time: when.Add(time.Hour)},
		{ID: "b", Time: when.Add(time.Hour), Holds: []policy.Hold{{Owner: "anna", Reason: "audit"}}},
		{ID: "b", Time: when.Add(time.Hour)},
	}
	got := decide(t, points, policy.Retention{Last: 2}, when.Add(2*time.Hour), policy.Allow{})
	if len(got) != 2 || !got[0].Keep || !slices.Contains(got[1].Reasons, "held by anna: audit") {
		t.Errorf("%+v", got)
	}
	if empty := decide(t, nil, policy.Retention{Last: 2}, when, policy.Allow{}); len(empty) != 0 {
		t.Errorf("of nothing: %+v", empty)
	}
}

func TestMillionPoints(t *testing.T) {
	now := at(t, "2026-11-22T09:00")
	points := make([]policy.Point, 1_000_000)
	for i := range points {
		points[i] = policy.Point{ID: "p", Time: now.Add(-time.Duration(i) * 5 * time.Minute)}
	}
	r := policy.Retention{Last: 3, Hourly: 24, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 100, Zone: zone(t, "Europe/Berlin")}
	decisions := decide(t, points, r, now, policy.Allow{})
	// 9.5 years: 3, 23 hours more, 6 days, 3 weeks (one is a kept day), 11 months, 9 years.
	if got := len(kept(decisions)); got < 40 || got > 60 || len(decisions) != len(points) {
		t.Errorf("%d of %d points are kept", got, len(decisions))
	}
}
