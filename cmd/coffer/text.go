package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cofferbackup/coffer/agent/control"
)

// safe makes text that came from elsewhere fit to be shown in one line: what could
// steer a terminal or turn the text around is written as an escape.
func safe(s string) string {
	plain := true
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += size
	}
	return b.String()
}

// said is a message in one line, without the name of what it is about where that
// stands before it already.
func said(message, about string) string {
	return strings.ReplaceAll(strings.TrimPrefix(message, about+": "), "\n", "; ")
}

// safeText is safe for text of several lines.
func safeText(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = safe(l)
	}
	return strings.Join(lines, "\n")
}

// lasting writes a duration: "2.9 s", "5 min 3 s", "3 d 4 h".
func lasting(d time.Duration) string {
	pair := func(unit time.Duration, big string, part time.Duration, small string) string {
		whole, rest := int64(d/unit), int64(d%unit/part)
		if rest == 0 {
			return fmt.Sprintf("%d %s", whole, big)
		}
		return fmt.Sprintf("%d %s %d %s", whole, big, rest, small)
	}
	switch d = max(d, 0); {
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", math.Floor(d.Seconds()))
	case d < time.Hour:
		return pair(time.Minute, "min", time.Second, "s")
	case d < 24*time.Hour:
		return pair(time.Hour, "h", time.Minute, "min")
	}
	return pair(24*time.Hour, "d", time.Hour, "h")
}

// seconds is a number of seconds as a duration.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// roughly writes a duration in one unit: "40 s", "7 h".
func roughly(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// when writes a time as seen from now: "02:00 today (7 h ago)", "02:00 tomorrow".
func when(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	t, now = t.In(now.Location()), now.Round(0)
	day := func(t time.Time) time.Time {
		y, m, d := t.Date()
		return time.Date(y, m, d, 12, 0, 0, 0, time.UTC)
	}
	clock := t.Format("15:04")
	ago := ""
	if t.Before(now) {
		ago = " (" + roughly(now.Sub(t)) + " ago)"
	}
	switch day(t).Sub(day(now)) / (24 * time.Hour) {
	case 0:
		return clock + " today" + ago
	case -1:
		return clock + " yesterday" + ago
	case 1:
		return clock + " tomorrow"
	}
	return t.Format("2006-01-02 15:04") + ago
}

// page gathers text to be shown.
type page struct {
	strings.Builder
	now   time.Time
	width int // that tables are made to fit into, where they can; 0: as wide as they are
}

// line adds a line.
func (p *page) line(format string, args ...any) {
	fmt.Fprintf(p, format, args...)
	p.WriteByte('\n')
}

// fact adds a name and its value, if it has one.
func (p *page) fact(name, value string) {
	if value != "" {
		p.line("%-12s %s", name, safe(value))
	}
}

// detail adds a name and its value beneath a line, if it has one.
func (p *page) detail(name, value string) {
	if value != "" {
		p.line("     %-11s  %s", name, safe(value))
	}
}

// fault adds why something is not as it should be, and what to do about it.
func (p *page) fault(e *control.Error) {
	if e == nil {
		return
	}
	p.fact("because", said(e.Message, ""))
	for _, need := range e.Needs {
		p.fact("needs", need)
	}
	p.fact("next", e.Next)
}
