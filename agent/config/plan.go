package config

import (
	"cmp"
	"errors"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

// zone returns a time zone by its name; "" is this machine's.
func zone(name string) (*time.Location, error) {
	switch name {
	case "":
		return time.Local, nil
	case "Local": // of whoever reads the file: nobody knows whose that is
		return nil, errors.New("it has no place")
	}
	return time.LoadLocation(name)
}

// PolicyOf returns the policy that an item is in; "" if it is in none.
func (c *Config) PolicyOf(item string) (string, Policy) {
	name, in := c.owners[item]
	if !in {
		return "", Policy{}
	}
	return name, c.Policies[name]
}

// own notes which policy each item is in.
func (c *Config) own() {
	if len(c.Policies) == 0 {
		return
	}
	c.owners = make(map[string]string)
	for name, p := range c.Policies {
		for _, item := range p.Items {
			c.owners[item] = name
		}
	}
}

// Tries returns how often a run of the policy is tried.
func (p Policy) Tries() policy.Attempts {
	return policy.Attempts{Tries: p.Retry.Tries, First: time.Duration(p.Retry.First), Longest: time.Duration(p.Retry.Longest),
		Deadline: time.Duration(p.Deadline)}
}

// Keeps returns what the policy keeps. ok is false if that is everything.
func (p Policy) Keeps() (r policy.Retention, ok bool) {
	if p.Retention == nil {
		return policy.Retention{}, false
	}
	loc, err := zone(p.Timezone)
	if err != nil { // it was there when the file was read; UTC keeps as many
		loc = time.UTC
	}
	return p.Retention.rules(loc), true
}

func (r *Retention) rules(loc *time.Location) policy.Retention {
	return policy.Retention{Last: r.Last, Hourly: r.Hourly, Daily: r.Daily, Weekly: r.Weekly, Monthly: r.Monthly, Yearly: r.Yearly,
		Within: time.Duration(r.Within), Tags: r.Tags, Minimum: r.Minimum, Zone: loc}
}

// defaults fills in what a policy may leave out.
func (p *Policy) defaults() {
	r := &p.Retry
	r.Tries = cmp.Or(r.Tries, 5)
	if r.First == 0 {
		r.First = Duration(time.Minute)
		if r.Longest > 0 {
			r.First = min(r.First, r.Longest)
		}
	}
	if r.Longest == 0 {
		r.Longest = max(Duration(time.Hour), r.First)
	}
	for _, h := range []*Hook{p.Hooks.Pre, p.Hooks.Post} {
		if h != nil && h.Timeout == 0 {
			h.Timeout = Duration(10 * time.Minute)
		}
	}
	if p.Retention != nil {
		p.Retention.Minimum = cmp.Or(p.Retention.Minimum, 1)
	}
}
