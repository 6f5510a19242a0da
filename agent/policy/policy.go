// Package policy decides what runs when and what is kept. It is pure: time, points
// and time zones are given to it. It has no clock, does no I/O and starts nothing,
// and the same question always has the same answer, on every host.
//
// Invariants, for every input:
//   - Schedule.Next is later than the time it is asked about, and never earlier for
//     a later one; no run begins in a window in which none may.
//   - Decide does not depend on the order of points, keeps what it kept when it is
//     asked again without what it let go, and lets nothing go because a keep rule or
//     a hold was added.
//   - Time alone lets no point go: only a newer good point does. So a clock that jumps
//     changes nothing until a backup is made by it, and that backup counts as one.
package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ClockSkew is how far in the future a point may be dated: clocks differ by less.
const ClockSkew = 10 * time.Minute

// ParseError says where a text is wrong, why, and what to write instead.
type ParseError struct {
	What    string // "schedule" or "window"
	Text    string // all of it
	Column  int    // from 1, in characters
	Message string // what is wrong
	Next    string // what to do
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("%s %q, column %d: %s; %s", e.What, e.Text, e.Column, e.Message, e.Next)
}

// token is a piece of a text.
type token struct {
	text   string // in lower case
	column int    // from 1, in characters
}

// source is a text that is read. It makes the errors about it.
type source struct {
	what, text string
}

// maxText is more than any sensible schedule or window has.
const maxText = 1000

func (s source) fail(at token, next, format string, args ...any) error {
	return &ParseError{What: s.what, Text: s.text, Column: at.column, Message: fmt.Sprintf(format, args...), Next: next}
}

// check refuses what is too long, or not text.
func (s source) check() error {
	if len(s.text) > maxText || !utf8.ValidString(s.text) {
		short := source{what: s.what, text: strings.ToValidUTF8(s.text[:min(len(s.text), 40)], "?") + "..."}
		return short.fail(token{column: 1}, "shorten it", "it is longer than %d bytes, or not UTF-8", maxText)
	}
	return nil
}

// end is the place behind the text.
func (s source) end() token {
	return token{column: utf8.RuneCountInString(strings.TrimRight(s.text, " \t")) + 1}
}

// split cuts a text at blanks, and makes each character of marks a token of its own.
func (s source) split(marks string) []token {
	var out []token
	column, begin := 0, -1 // begin: byte where the token began
	beginColumn := 0
	flush := func(end int) {
		if begin >= 0 {
			out = append(out, token{strings.ToLower(s.text[begin:end]), beginColumn})
			begin = -1
		}
	}
	for i, c := range s.text {
		column++
		switch {
		case c == ' ' || c == '\t':
			flush(i)
		case strings.ContainsRune(marks, c):
			flush(i)
			out = append(out, token{string(c), column})
		case begin < 0:
			begin, beginColumn = i, column
		}
	}
	flush(len(s.text))
	return out
}

// cut splits a token at each sep, as strings.Split does.
func (t token) cut(sep string) []token {
	var out []token
	column := t.column
	for _, part := range strings.Split(t.text, sep) {
		out = append(out, token{part, column})
		column += utf8.RuneCountInString(part) + utf8.RuneCountInString(sep)
	}
	return out
}

// number reads a plain number without a sign; -1 if it is none.
func number(s string) int {
	if s == "" || len(s) > 6 || strings.Trim(s, "0123456789") != "" {
		return -1
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// weekday returns the number of a day of the week, Sunday 0; -1 if it is none.
func weekday(s string) int {
	for d := time.Sunday; d <= time.Saturday; d++ {
		full := strings.ToLower(d.String())
		if s == full || s == full[:3] || s == full+"s" {
			return int(d)
		}
	}
	return -1
}

// month returns the number of a month, January 1; -1 if it is none.
func month(s string) int {
	for m := time.January; m <= time.December; m++ {
		if full := strings.ToLower(m.String()); s == full || s == full[:3] {
			return int(m)
		}
	}
	return -1
}

// Span writes a duration as people do: 30d, 36h, 1h30m.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
