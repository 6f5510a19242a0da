package policy

import (
	"slices"
	"strings"
	"time"
)

// Window is a time of the week in which nothing may begin.
type Window struct {
	spans []weekSpan
}

// weekSpan is from, up to but without to, in minutes since the beginning of Sunday,
// by the local time.
type weekSpan struct{ from, to int }

const weekMinutes = 7 * 24 * 60

// ParseWindow reads a window: a time, days, or both.
//
//	08:00-18:00 mon-fri       22:00-06:00 fri, sat       sun       12:00-13:00
//
// Without days it is every day; without a time the whole of its days. A time that
// goes over midnight belongs to the day on which it begins. 24:00 may be its end.
func ParseWindow(text string) (Window, error) {
	w := words{source: source{"window", text}}
	if err := w.check(); err != nil {
		return Window{}, err
	}
	w.rest = w.split(",")
	if len(w.rest) == 0 {
		return Window{}, w.fail(w.end(), `write "08:00-18:00 mon-fri"`, "it is empty")
	}
	from, to := 0, 24*60
	if first := w.peek(); strings.Trim(first.text[:1], "0123456789") == "" {
		var err error
		if from, to, err = w.hoursOf(w.next()); err != nil {
			return Window{}, err
		}
	}
	w.c.weekdays = allWeekdays
	if w.take("on"); len(w.rest) > 0 {
		if err := w.weekdays(); err != nil {
			return Window{}, err
		}
	}
	if len(w.rest) > 0 {
		return Window{}, w.fail(w.peek(), `write one time and then the days: "08:00-18:00 mon-fri"`, "%q is not expected here", w.peek().text)
	}
	var out Window
	for day := range 7 {
		if w.c.weekdays>>day&1 == 1 {
			out.spans = append(out.spans, weekSpan{day*24*60 + from, day*24*60 + to})
		}
	}
	return out, nil
}

// hoursOf reads "08:00-18:00".
func (s source) hoursOf(t token) (from, to int, err error) {
	ends := t.cut("-")
	if len(ends) != 2 {
		return 0, 0, s.fail(t, `write "08:00-18:00"`, "%q is not a time from and to", t.text)
	}
	if from, err = s.clock(ends[0]); err != nil {
		return 0, 0, err
	}
	if ends[1].text == "24:00" {
		return from, 24 * 60, nil
	}
	if to, err = s.clock(ends[1]); err != nil {
		return 0, 0, err
	}
	if from == to {
		return 0, 0, s.fail(t, `write "00:00-24:00" if the whole day is meant`, "it ends when it begins")
	}
	if to < from {
		to += 24 * 60
	}
	return from, to, nil
}

// closed is the sum of windows: sorted spans of one week that do not touch.
type closed []weekSpan

func sum(windows []Window) closed {
	var all []weekSpan
	for _, w := range windows {
		for _, s := range w.spans {
			if s.to > weekMinutes {
				all = append(all, weekSpan{0, s.to - weekMinutes})
				s.to = weekMinutes
			}
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b weekSpan) int { return a.from - b.from })
	var out closed
	for _, s := range all {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// always tells whether no time is left.
func (c closed) always() bool {
	return len(c) == 1 && c[0] == weekSpan{0, weekMinutes}
}

// at tells whether a local time is closed, and until which local time that holds at
// least. c is neither empty nor always.
func (c closed) at(wall time.Time) (in bool, until time.Time) {
	minute := (int(wall.Weekday())*24+wall.Hour())*60 + wall.Minute()
	change := weekMinutes // nothing changes before the week's end
	for _, s := range c {
		if minute < s.from {
			change = s.from
			break
		}
		if minute < s.to {
			in, change = true, s.to
			break
		}
	}
	return in, wall.Truncate(time.Minute).Add(time.Duration(change-minute) * time.Minute)
}

// hold tells whether t is in a window, and when the other begins.
func (s *Schedule) hold(t time.Time) (in bool, until time.Time) {
	in, _ = s.closed.at(stretchOf(t, s.zone).wall(t))
	for {
		piece := stretchOf(t, s.zone)
		now, wall := s.closed.at(piece.wall(t))
		if now != in {
			return in, t
		}
		if t = wall.Add(-piece.offset); !piece.has(t) {
			t = piece.end
		}
	}
}
