package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

// Bounds of what policies may ask for.
const (
	maxJitter   = Duration(24 * time.Hour)
	maxRank     = 100 // of a priority, either way
	maxTries    = 100
	maxWait     = Duration(7 * 24 * time.Hour)
	maxHook     = Duration(24 * time.Hour)
	minRate     = Size(16 << 10) // bytes a second
	maxKept     = 1_000_000
	rateAtLeast = `use "16 KiB" or more, or leave it out`
)

func checkPolicies(p *problems, c *Config) {
	owners := map[string]string{} // policy by item
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		pol, field := c.Policies[name], "policies."+name
		checkName(p, field, "a policy", name)
		checkMembers(p, c, field+".items", name, pol.Items, owners)
		checkWhen(p, field, &pol)
		if pol.Priority < -maxRank || pol.Priority > maxRank {
			p.add(field+".priority", "use -100 to 100", "a priority of %d makes no sense", pol.Priority)
		}
		checkRetry(p, field+".retry", pol.Retry)
		checkHook(p, field+".hooks.pre", pol.Hooks.Pre)
		checkHook(p, field+".hooks.post", pol.Hooks.Post)
		checkRate(p, field+".read_limit", pol.ReadLimit)
		if r := pol.Retention; r != nil && !p.bad[field+".retention"] {
			checkRetention(p, field+".retention", r)
		}
	}
}

// checkMembers checks that a policy has items, which are there and in no other policy.
func checkMembers(p *problems, c *Config, field, name string, items []string, owners map[string]string) {
	if len(items) == 0 {
		p.add(field, "name the items that it is for, from items", "it has no items")
	}
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", field, i)
		owner, owned := owners[item]
		_, known := c.Items[item]
		switch {
		case !known:
			p.add(at, suggest(item, "items", slices.Sorted(maps.Keys(c.Items))), "there is no item %q", item)
		case owner == name:
			p.add(at, "name it once", "item %s is named twice", item)
		case owned:
			p.add(at, "keep it in one of them", "item %s is in policy %s already, and a point can be kept by one policy alone", item, owner)
		default:
			owners[item] = name
		}
	}
}

// checkWhen checks when a policy runs.
func checkWhen(p *problems, field string, pol *Policy) {
	if pol.Timezone != "" {
		if _, err := zone(pol.Timezone); err != nil {
			p.add(field+".timezone", `use a name such as "Europe/Berlin", or UTC`, "there is no time zone %q", pol.Timezone)
		}
	}
	if pol.Jitter > maxJitter {
		p.add(field+".jitter", "use 0 to 24h", "it is longer than a day")
	}
	var windows []policy.Window
	for i, text := range pol.Not {
		w, err := policy.ParseWindow(text)
		if err != nil {
			addParse(p, fmt.Sprintf("%s.not[%d]", field, i), err)
			continue
		}
		windows = append(windows, w)
	}
	if pol.Schedule == "" && !p.given(field+".schedule") {
		const alone = "add schedule, or leave it out"
		if pol.Jitter > 0 {
			p.add(field+".jitter", alone, "it is a schedule's, and there is none")
		}
		if len(pol.Not) > 0 {
			p.add(field+".not", alone, "it is a schedule's, and there is none")
		}
		return
	}
	checkSchedule(p, field+".schedule", field+".not", pol.Schedule, windows)
}

// checkSchedule checks the text of a schedule, and that the windows leave it time.
func checkSchedule(p *problems, field, not, text string, windows []policy.Window) {
	_, err := policy.ParseSchedule(text, policy.Options{Not: windows})
	if errors.Is(err, policy.ErrNever) {
		p.add(not, "leave some time between them", "the windows cover the whole week, so that nothing ever runs")
	} else if err != nil {
		addParse(p, field, err)
	}
}

// checkTimes checks a schedule that has no windows, if there is one.
func checkTimes(p *problems, field, text string) {
	if text != "" || p.given(field) {
		checkSchedule(p, field, field, text, nil)
	}
}

// addParse notes what is wrong with the text of a schedule or window.
func addParse(p *problems, field string, err error) {
	wrong, ok := errors.AsType[*policy.ParseError](err)
	if !ok {
		p.add(field, "", "%v", err)
		return
	}
	p.add(field, wrong.Next, "%q, column %d: %s", wrong.Text, wrong.Column, wrong.Message)
}

func checkRetry(p *problems, field string, r Retry) {
	if (p.given(field+".tries") || r.Tries != 0) && (r.Tries < 1 || r.Tries > maxTries) {
		p.add(field+".tries", "use 1 to 100; 1 is no retry", "%d tries make no sense", r.Tries)
	}
	for _, f := range []struct {
		name string
		wait Duration
	}{{".first", r.First}, {".longest", r.Longest}} {
		if p.given(field+f.name) && (f.wait < Duration(time.Second) || f.wait > maxWait) {
			p.add(field+f.name, "use 1s to 7d", "such a wait makes no sense")
		}
	}
	if r.First > 0 && r.Longest > 0 && r.First > r.Longest {
		p.add(field+".longest", "make it as long, or leave it out", "it is shorter than first")
	}
}

func checkHook(p *problems, field string, h *Hook) {
	if h == nil || p.bad[field] {
		return
	}
	checkCommand(p, field+".command", h.Command)
	if p.given(field+".timeout") && (h.Timeout < Duration(time.Second) || h.Timeout > maxHook) {
		p.add(field+".timeout", "use 1s to 24h", "such a timeout makes no sense")
	}
}

// checkCommand checks a command that must be there.
func checkCommand(p *problems, field string, command []string) {
	switch {
	case len(command) == 0:
		p.add(field, "write [/path/of/program, argument, ...]", "it has no command")
	case !filepath.IsAbs(command[0]):
		p.add(field+"[0]", "write it from the root; for a pipeline: [/bin/sh, -c, ...]", "%q is not an absolute path", command[0])
	}
}

func checkRate(p *problems, field string, rate Size) {
	if p.given(field) && rate < minRate {
		p.add(field, rateAtLeast, "a limit of %d bytes a second makes no sense", rate)
	}
}

func checkRetention(p *problems, field string, r *Retention) {
	for _, f := range []struct {
		name string
		n    int
	}{
		{"last", r.Last}, {"hourly", r.Hourly}, {"daily", r.Daily}, {"weekly", r.Weekly}, {"monthly", r.Monthly}, {"yearly", r.Yearly},
	} {
		if f.n < 0 || f.n > maxKept {
			p.add(field+"."+f.name, "write how many to keep, up to 1000000, or leave it out", "%d points make no sense", f.n)
		}
	}
	if at := field + ".minimum"; p.given(at) && (r.Minimum < 1 || r.Minimum > maxKept) {
		p.add(at, "use 1 to 1000000", "a minimum of %d points makes no sense", r.Minimum)
	}
	seen := map[string]bool{}
	for i, tag := range r.Tags {
		at := fmt.Sprintf("%s.tags[%d]", field, i)
		switch {
		case strings.TrimSpace(tag) == "":
			p.add(at, "leave it out", "it is an empty tag")
		case seen[tag]:
			p.add(at, "name it once", "tag %s is named twice", tag)
		}
		seen[tag] = true
	}
	if err := r.rules(nil).Check(policy.Allow{}); errors.Is(err, policy.ErrKeepsNothing) && !p.badIn(field) {
		p.add(field, "say what is kept (last, hourly, daily, weekly, monthly, yearly, within, tags); without retention everything is",
			"it has no rule, so that nothing would be kept")
	}
}
