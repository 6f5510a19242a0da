package notify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// How long a channel that failed is left alone: twice as long each time.
const (
	retryFirst = 20 * time.Second
	retryMost  = 15 * time.Minute
)

// sickAfter is after how many failures in a row a channel is told of on the others.
const sickAfter = 3

// sendWait is how long one try may take.
const sendWait = 30 * time.Second

// separate is how many notices at once are told one by one. More are told in one.
const separate = 5

// maxLines of a notice that stands for many.
const maxLines = 50

// delivery is what a channel is told in one go.
type delivery struct {
	notice message.Notice
	about  []string // the faults that it tells of
	told   []told   // of each: what it tells
	ping   *ping
}

// pass begins what is to be told now, at most one delivery of a channel at a time, and
// returns how long it is until there is more; 0 if nothing waits for the clock.
func (n *Notifier) pass(ctx context.Context, sending *sync.WaitGroup) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, channels := n.cfg.Clock(), n.cfg.Channels()
	for about, f := range n.faults {
		f.mend(now)
		if f.done(now, channels) {
			delete(n.faults, about)
			n.changed = true
		}
	}
	var next time.Time
	wait := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, name := range slices.Sorted(maps.Keys(channels)) {
		c := n.channel(name)
		if c.busy || ctx.Err() != nil {
			continue // it pokes when it is back
		}
		if c.retry.After(now) && c.retry.Sub(now) <= retryMost {
			wait(c.retry)
			continue
		}
		d, at := n.next(name, channels[name], c, now)
		switch {
		case d != nil:
			c.busy = true
			sending.Go(func() { n.deliver(ctx, name, channels[name], *d) })
		case !at.IsZero():
			wait(at)
		}
	}
	for _, f := range n.faults {
		if f.over() {
			wait(f.Ended.Add(flapMemory))
		}
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), time.Second)
}

// next returns what a channel is to be told now, or when there will be something. The
// caller holds mu.
func (n *Notifier) next(name string, cfg config.Notify, c *channel, now time.Time) (*delivery, time.Time) {
	for len(c.pings) > 0 {
		p := c.pings[0]
		if age := now.Sub(p.at); age < pingAge {
			return &delivery{ping: &p}, time.Time{}
		}
		c.pings = c.pings[1:] // who watches has missed it by now
	}
	var soon time.Time
	var due []string
	for _, about := range slices.Sorted(maps.Keys(n.faults)) {
		if about == sickness(name) {
			continue // the channel would be told of itself
		}
		at, ok := n.faults[about].due(name, cfg)
		switch {
		case !ok:
		case !at.After(now):
			due = append(due, about)
		case soon.IsZero() || at.Before(soon):
			soon = at
		}
	}
	switch {
	case len(due) > separate:
		return n.digest(due, now), time.Time{}
	case len(due) > 0:
		first := slices.MinFunc(due, func(a, b string) int { return n.faults[a].notice().Time.Compare(n.faults[b].notice().Time) })
		f := n.faults[first]
		return &delivery{notice: f.notice(), about: []string{first}, told: []told{f.telling(now)}}, time.Time{}
	case len(c.passing) > 0:
		return &delivery{notice: c.passing[0]}, time.Time{}
	}
	return nil, soon
}

// digest is one notice for many faults.
func (n *Notifier) digest(due []string, now time.Time) *delivery {
	d := &delivery{about: due, notice: message.Notice{Kind: message.Recovery, Host: n.cfg.Host, Time: now, Count: len(due),
		Next: "see how it stands: coffer status"}}
	var lines []string
	wrong := 0
	for _, about := range due {
		f := n.faults[about]
		d.told = append(d.told, f.telling(now))
		m := f.notice()
		if !f.over() {
			wrong++
			d.notice.Kind = message.Alarm
		}
		if len(lines) < maxLines {
			lines = append(lines, fmt.Sprintf("%s: %s", m.Subject, m.Message))
		}
	}
	if more := len(due) - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	d.notice.Subject = fmt.Sprintf("%d things are wrong, %d are well again", wrong, len(due)-wrong)
	d.notice.Message = strings.Join(lines, "\n")
	return d
}

// deliver tells a channel, and notes what came of it.
func (n *Notifier) deliver(ctx context.Context, name string, cfg config.Notify, d delivery) {
	trying, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	err := n.send(trying, cfg, d)
	n.mu.Lock()
	defer n.mu.Unlock()
	c, now := n.channel(name), n.cfg.Clock()
	c.busy = false
	n.poke()
	if ctx.Err() != nil && err != nil {
		return // cut off, not failed
	}
	if err != nil {
		n.fail(c, now, err)
		return
	}
	c.Sent++
	c.inRow, c.retry, c.Failing, c.Error = 0, time.Time{}, time.Time{}, ""
	n.clear(sickness(name), message.Notice{Subject: "notify " + name, Message: "it takes notices again"})
	switch {
	case d.ping != nil:
		if len(c.pings) > 0 && c.pings[0] == *d.ping {
			c.pings = c.pings[1:]
		}
	case d.about == nil:
		if len(c.passing) > 0 && c.passing[0] == d.notice {
			c.passing = c.passing[1:]
		}
	}
	for i, about := range d.about {
		if f := n.faults[about]; f != nil {
			f.Told[name] = d.told[i]
			n.changed = true
		}
	}
}

// fail notes that a channel could not be told. The caller holds mu.
func (n *Notifier) fail(c *channel, now time.Time, err error) {
	if c.inRow == 0 {
		c.Failing = now
	}
	c.Failures++
	wait := retryMost
	if c.inRow < 10 {
		wait = min(retryFirst<<c.inRow, retryMost)
	}
	c.inRow++
	c.retry, c.Error = now.Add(wait), err.Error()
	n.cfg.Log.Warn("notice not told, trying again", "channel", c.Name, "tries", c.inRow, "wait", wait, "err", err)
	if c.inRow >= sickAfter {
		n.report(Report{About: sickness(c.Name), How: Lasts, Notice: message.Notice{Kind: message.Alarm, Subject: "notify " + c.Name,
			Message: "notices do not get through: " + err.Error(), Next: "see what is wrong: coffer doctor; and correct notify." + c.Name + " in the config"}})
	}
}

// sickness is what the fault of a channel is about.
func sickness(channel string) string { return "notify " + channel }

// makeRoom drops the fault that has been over for longest. The caller holds mu.
func (n *Notifier) makeRoom() bool {
	oldest := ""
	for about, f := range n.faults {
		if f.over() && (oldest == "" || f.Ended.Before(n.faults[oldest].Ended)) {
			oldest = about
		}
	}
	delete(n.faults, oldest)
	return oldest != ""
}
