package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/cofferbackup/coffer/agent/control"
)

const (
	// rateOver is the time over which a rate is measured.
	rateOver = 10 * time.Second
	// lineEvery is the time between two lines of progress where there is no terminal.
	lineEvery = 5 * time.Second
	barWidth  = 22
)

// meter turns what a job tells into words. All times are the agent's.
type meter struct {
	label  string
	things string // what entries are called

	mu    sync.Mutex
	last  control.Progress
	marks []mark // oldest first, spanning rateOver
}

type mark struct {
	at    time.Time
	bytes int64
}

// see takes the progress at a time.
func (m *meter) see(p control.Progress, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.Phase != m.last.Phase || p.Bytes < m.last.Bytes {
		m.marks = nil
	}
	m.last = p
	m.marks = append(m.marks, mark{at, p.Bytes})
	for len(m.marks) > 2 && at.Sub(m.marks[1].at) >= rateOver {
		m.marks = m.marks[1:]
	}
}

// share returns how much of how much is done, in bytes or else in entries. A total
// of 0 is one that is not known.
func share(p control.Progress) (done, total int64) {
	if p.BytesTotal > 0 {
		return min(p.Bytes, p.BytesTotal), p.BytesTotal
	}
	return min(p.Entries, p.EntriesTotal), p.EntriesTotal
}

// rate returns bytes per second, or 0 if there is nothing to tell it by.
func (m *meter) rate() float64 {
	if len(m.marks) < 2 {
		return 0
	}
	first, last := m.marks[0], m.marks[len(m.marks)-1]
	if !last.at.After(first.at) {
		return 0
	}
	return float64(last.bytes-first.bytes) / last.at.Sub(first.at).Seconds()
}

// parts says how far the job is, without the bar.
func (m *meter) parts() []string {
	p, rate := m.last, m.rate()
	var parts []string
	if done, total := share(p); total > 0 {
		parts = append(parts, fmt.Sprintf("%d %%", done*100/total))
	}
	switch {
	case p.BytesTotal > 0:
		parts = append(parts, control.Size(p.Bytes)+" of "+control.Size(p.BytesTotal))
	case p.Bytes > 0 || p.Entries == 0 && p.EntriesTotal == 0:
		parts = append(parts, control.Size(p.Bytes))
	}
	switch {
	case p.BytesTotal > 0:
	case p.EntriesTotal > 0:
		parts = append(parts, control.Count(p.Entries)+" of "+control.Count(p.EntriesTotal)+" "+m.things)
	case p.Entries > 0:
		parts = append(parts, control.Count(p.Entries)+" "+m.things)
	}
	if rate >= 1 {
		parts = append(parts, control.Size(int64(rate))+"/s")
		if left := p.BytesTotal - p.Bytes; left > 0 {
			parts = append(parts, roughly(seconds(float64(left)/rate)+time.Second-1)+" left")
		}
	}
	if p.Skipped > 0 {
		parts = append(parts, control.Count(p.Skipped)+" skipped")
	}
	if p.Faults > 0 {
		parts = append(parts, control.Counted(p.Faults, "fault"))
	}
	return parts
}

// line is one line for a log: "etc: reading, 71 %, 852 MiB of 1.2 GiB".
func (m *meter) line() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	parts := m.parts()
	if m.last.Phase != "" {
		parts = append([]string{safe(m.last.Phase)}, parts...)
	}
	return safe(m.label) + ": " + strings.Join(parts, ", ")
}

// bar is one line for a terminal, at most width columns wide.
func (m *meter) bar(width int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := safe(m.label) + "  "
	if done, total := share(m.last); total > 0 {
		full := int(done * barWidth / total)
		text += strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "  "
	} else if m.last.Phase != "" {
		text += safe(m.last.Phase) + "  "
	}
	text += strings.Join(m.parts(), "  ")
	if r := []rune(text); len(r) > width {
		text = string(r[:max(width, 0)])
	}
	return text
}

// drawer shows a job while it runs.
type drawer interface {
	progress(p control.Progress, at time.Time)
	note(text string)
	close() // takes away what is only of the moment
}

// newDrawer returns what fits to where standard error goes.
func (a *app) newDrawer(j control.Job) drawer {
	m := &meter{label: jobLabel(j), things: "entries"}
	if j.Kind == control.KindRekey || j.Kind == control.KindDrill {
		m.things = "secrets"
	}
	switch {
	case a.json:
		return silent{}
	case a.errTerminal:
		return newBars(a.err, m)
	}
	return &lines{w: a.err, m: m}
}

// silent is for programs, which read the result.
type silent struct{}

func (silent) progress(control.Progress, time.Time) {}
func (silent) note(string)                          {}
func (silent) close()                               {}

// lines writes one line every few seconds.
type lines struct {
	m    *meter
	next time.Time

	mu sync.Mutex
	w  io.Writer
}

func (l *lines) progress(p control.Progress, at time.Time) {
	l.m.see(p, at)
	if l.next.IsZero() {
		l.next = at.Add(lineEvery) // a job that is done sooner needs no line
	}
	if at.Before(l.next) {
		return
	}
	l.next = at.Add(lineEvery)
	l.note(l.m.line())
}

func (l *lines) note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.w, safeText(text))
}

func (l *lines) close() {}

// bars draws a bar on a terminal.
type bars struct {
	m    *meter
	pool *mpb.Progress
	bar  *mpb.Bar
}

func newBars(w io.Writer, m *meter) *bars {
	b := &bars{m: m, pool: mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh())}
	b.bar = b.pool.MustAdd(0, mpb.BarFillerFunc(func(w io.Writer, st decor.Statistics) error {
		_, err := io.WriteString(w, m.bar(st.AvailableWidth))
		return err
	}), mpb.BarFillerTrim())
	return b
}

func (b *bars) progress(p control.Progress, at time.Time) { b.m.see(p, at) }

func (b *bars) note(text string) {
	fmt.Fprintln(b.pool, safeText(text)) //nolint:errcheck // a note that cannot be shown
}

func (b *bars) close() {
	b.bar.Abort(true)
	b.pool.Wait()
}
