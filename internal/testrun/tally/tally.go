// Package tally reads the event stream of go test -json (cmd/test2json), counts
// the tests that ran by group, and keeps what the failed ones printed.
//
// A test with subtests is not counted itself; its subtests are.
package tally

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// PartKey is the attribute (testing.T.Attr) by which a test, or what it starts,
// names the group that it and its subtests belong to.
const PartKey = "part"

// Group is a kind of test that is counted by itself.
type Group struct {
	Name  string
	Match func(pkg, test string) bool
}

// Count is how the tests of a group ended.
type Count struct {
	Group   string
	Passed  int
	Failed  int
	Skipped int
}

// Ran is the number of tests that came to an end other than a skip.
func (c Count) Ran() int { return c.Passed + c.Failed }

// Tally collects the results of one or several runs. It is used by one goroutine.
type Tally struct {
	groups   []Group
	counts   map[string]*Count
	failures []string
	skips    []string
}

// New returns a tally over groups. A test belongs to the group that it names by
// PartKey, or to the first that matches it; one that none matches is counted
// under "unit".
func New(groups []Group) *Tally {
	return &Tally{groups: groups, counts: make(map[string]*Count)}
}

// event is a line of go test -json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build that failed
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
	Key, Value  string // of an attribute (testing.T.Attr)
}

// result is a test of the package that is being read.
type result struct {
	action string // "" while it runs
	part   string // the group that the test names itself
	output strings.Builder
}

// pkg is what is known of one package so far.
type pkg struct {
	order  []string
	tests  map[string]*result
	output strings.Builder
}

// Read reads the stream of one run to its end and writes a line per package to
// progress. If group is not empty, every test of the run counts under it. A line
// that is not an event is passed on to progress.
func (t *Tally) Read(stream io.Reader, progress io.Writer, group string) error {
	pkgs := make(map[string]*pkg)
	builds := make(map[string]*strings.Builder)
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(progress, "%s", line)
			} else {
				t.add(e, pkgs, builds, progress, group)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

func (t *Tally) add(e event, pkgs map[string]*pkg, builds map[string]*strings.Builder, progress io.Writer, group string) {
	if e.Action == "build-output" {
		if builds[e.ImportPath] == nil {
			builds[e.ImportPath] = new(strings.Builder)
		}
		builds[e.ImportPath].WriteString(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := pkgs[e.Package]
	if p == nil {
		p = &pkg{tests: make(map[string]*result)}
		pkgs[e.Package] = p
	}
	if e.Test == "" {
		t.addPackage(e, p, builds, progress, group)
		return
	}
	r := p.tests[e.Test]
	if r == nil {
		r = new(result)
		p.tests[e.Test] = r
		p.order = append(p.order, e.Test)
	}
	switch e.Action {
	case "output":
		r.output.WriteString(e.Output)
	case "attr":
		if e.Key == PartKey {
			r.part = e.Value
		}
	case "pass", "fail", "skip":
		r.action = e.Action
	}
}

// addPackage takes an event of the package itself; at its end its tests are counted.
func (t *Tally) addPackage(e event, p *pkg, builds map[string]*strings.Builder, progress io.Writer, group string) {
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		failed := len(t.failures)
		passed := t.count(e.Package, p, group)
		if e.Action == "fail" && len(t.failures) == failed { // it did not build, or died outside a test
			text := p.output.String()
			if b := builds[e.FailedBuild]; b != nil {
				text = b.String()
			}
			t.fail(p, e.Package, "", text, group)
		}
		if len(p.tests) == 0 && e.Action != "fail" {
			return
		}
		word := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "ok  "}[e.Action]
		took := time.Duration(e.Elapsed * float64(time.Second)).Round(100 * time.Millisecond)
		fmt.Fprintf(progress, "%s  %-60s %8s  %d passed\n", word, e.Package, took, passed)
	}
}

// count counts the tests of p that have no subtests and returns how many passed.
func (t *Tally) count(name string, p *pkg, group string) int {
	passed := 0
	for _, test := range p.order {
		r := p.tests[test]
		if r.action == "" { // the process died in it
			r.action = "fail"
		}
		if p.parent(test) {
			if r.action == "fail" && !p.childFailed(test) {
				t.fail(p, name, test, r.output.String(), group)
			}
			continue
		}
		switch r.action {
		case "pass":
			passed++
			t.in(p, name, test, group).Passed++
		case "skip":
			t.in(p, name, test, group).Skipped++
			t.skips = append(t.skips, fmt.Sprintf("%s %s: %s", name, test, reason(r.output.String())))
		default:
			t.fail(p, name, test, r.output.String(), group)
		}
	}
	return passed
}

func (p *pkg) parent(test string) bool {
	return slices.ContainsFunc(p.order, func(other string) bool { return strings.HasPrefix(other, test+"/") })
}

func (p *pkg) childFailed(test string) bool {
	return slices.ContainsFunc(p.order, func(other string) bool {
		return strings.HasPrefix(other, test+"/") && p.tests[other].action != "pass" && p.tests[other].action != "skip"
	})
}

// part returns the group that a test or the nearest test above it names.
func (p *pkg) part(test string) string {
	for test != "" {
		if r := p.tests[test]; r != nil && r.part != "" {
			return r.part
		}
		test = test[:max(0, strings.LastIndexByte(test, '/'))]
	}
	return ""
}

func (t *Tally) fail(p *pkg, name, test, output, group string) {
	t.in(p, name, test, group).Failed++
	t.failures = append(t.failures, fmt.Sprintf("%s %s\n%s", name, test, output))
}

// in returns the count that a test belongs to.
func (t *Tally) in(p *pkg, name, test, group string) *Count {
	if group == "" {
		group = p.part(test)
	}
	if group == "" {
		group = "unit"
		for _, g := range t.groups {
			if g.Match(name, test) {
				group = g.Name
				break
			}
		}
	}
	if t.counts[group] == nil {
		t.counts[group] = &Count{Group: group}
	}
	return t.counts[group]
}

// reason finds what a skipped test said: its last line but the verdict.
func reason(output string) string {
	why := "no reason given"
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			why = line
		}
	}
	return why
}

// Counts returns the groups in the order they were given, with those in which
// nothing ran, and then the others by name.
func (t *Tally) Counts() []Count {
	var list []Count
	for _, g := range t.groups {
		c := Count{Group: g.Name}
		if got := t.counts[g.Name]; got != nil {
			c = *got
		}
		list = append(list, c)
	}
	var others []Count
	for name, c := range t.counts {
		if !slices.ContainsFunc(t.groups, func(g Group) bool { return g.Name == name }) {
			others = append(others, *c)
		}
	}
	slices.SortFunc(others, func(a, b Count) int { return strings.Compare(a.Group, b.Group) })
	return append(list, others...)
}

// Failures returns package, test and output of everything that failed.
func (t *Tally) Failures() []string { return slices.Clone(t.failures) }

// Skips returns package, test and reason of everything that was skipped.
func (t *Tally) Skips() []string { return slices.Clone(t.skips) }
