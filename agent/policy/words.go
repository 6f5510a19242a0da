package policy

import (
	"fmt"
	"strings"
	"time"
)

// words reads a schedule in words. The grammar is with ParseSchedule.
type words struct {
	source
	rest []token
	c    calendar
}

func (w *words) peek() token {
	if len(w.rest) == 0 {
		return w.end()
	}
	return w.rest[0]
}

func (w *words) next() token {
	t := w.peek()
	if len(w.rest) > 0 {
		w.rest = w.rest[1:]
	}
	return t
}

// take goes on if the next token is one of these.
func (w *words) take(texts ...string) bool {
	for _, text := range texts {
		if w.peek().text == text && len(w.rest) > 0 {
			w.rest = w.rest[1:]
			return true
		}
	}
	return false
}

// comma goes over what separates things in a list.
func (w *words) comma() bool {
	if w.take(",") {
		w.take("and")
		return true
	}
	return w.take("and")
}

// schedule reads it all.
func (w *words) schedule() (calendar, error) {
	w.c = everyDay()
	at, err := w.days()
	if err != nil {
		return w.c, err
	}
	switch {
	case !at:
	case w.take("at"):
		err = w.times()
	case len(w.rest) == 0:
		w.c.at(0)
	default:
		return w.c, w.fail(w.peek(), `write "at" and a time: "daily at 02:00"`, "%q is not expected here", w.peek().text)
	}
	if err == nil && len(w.rest) > 0 {
		hint := "leave it out"
		if at && w.peek().text == "on" {
			hint = `write the days before the times: "mon, wed at 02:00"`
		}
		err = w.fail(w.peek(), hint, "%q is not expected here", w.peek().text)
	}
	return w.c, err
}

// days reads the days. at: times follow.
func (w *words) days() (at bool, err error) {
	switch t := w.peek(); {
	case w.take("hourly"):
		return false, w.hours(1)
	case w.take("every"):
		return w.every()
	case w.take("daily"):
	case w.take("weekly"):
		w.c.weekdays = 1 << time.Sunday
		if w.take("on") {
			return true, w.weekdays()
		}
	case w.take("monthly"):
		w.c.days = 1 << 1
		if w.take("on") {
			return true, w.dates()
		}
	case w.take("yearly"):
		w.c.days, w.c.months = 1<<1, 1<<time.January
		if w.take("on") {
			return true, w.date()
		}
	case dayWord(t.text):
		return true, w.weekdays()
	default:
		return false, w.fail(t, `write "daily at 02:00", "weekdays at 22:30", "every 4 hours" or a cron expression`,
			"%q is not the beginning of a schedule", t.text)
	}
	return true, nil
}

// dayWord tells whether a list of weekdays begins so.
func dayWord(text string) bool {
	first, _, _ := strings.Cut(text, "-")
	return text == "weekdays" || text == "weekends" || weekday(first) >= 0
}

// every reads what comes behind "every".
func (w *words) every() (at bool, err error) {
	t := w.peek()
	if dayWord(t.text) || t.text == "weekday" || t.text == "weekend" {
		return true, w.weekdays()
	}
	n := number(t.text)
	if n >= 0 {
		w.next()
	} else {
		n = 1
	}
	switch unit := w.next(); strings.TrimSuffix(unit.text, "s") {
	case "minute", "min", "m":
		if n < 1 || n > 30 || 60%n != 0 {
			return false, w.fail(t, "write 1, 2, 3, 4, 5, 6, 10, 12, 15, 20 or 30 minutes, or hours", "%d minutes do not divide an hour", n)
		}
		for m := 0; m < 24*60; m += n {
			w.c.at(m)
		}
		return false, nil
	case "hour", "h":
		if n < 1 || n > 24 || 24%n != 0 {
			return false, w.fail(t, "write 1, 2, 3, 4, 6, 8, 12 or 24 hours", "%d hours do not divide a day", n)
		}
		return false, w.hours(n)
	case "day":
		if n == 1 {
			return true, nil
		}
		return false, w.fail(t, `name the days: "mon, wed, fri at 02:00"`, "every %d days is no fixed time", n)
	case "week", "month", "year":
		return false, w.fail(unit, `write "weekly on sunday at 02:00", "monthly on 1 at 02:00" or "yearly on 1 jan at 02:00"`, "it does not say which day")
	default:
		if unit.text == "" {
			return false, w.fail(unit, `write "every 4 hours" or "every 15 minutes"`, "a unit is missing")
		}
		return false, w.fail(unit, "write minutes or hours", "%q is not a unit", unit.text)
	}
}

// hours sets every nth hour, on the hour or, with "at :30", past it.
func (w *words) hours(n int) error {
	past := 0
	if w.take("at") {
		t := w.next()
		text, colon := strings.CutPrefix(t.text, ":")
		if past = number(text); !colon || len(text) != 2 || past < 0 || past > 59 {
			return w.fail(t, `write minutes past the hour, ":00" to ":59", or "daily at 02:00"`, "%q is not minutes past the hour", t.text)
		}
	}
	for h := 0; h < 24; h += n {
		w.c.at(60*h + past)
	}
	return nil
}

// times reads times of day.
func (w *words) times() error {
	for {
		minute, err := w.clock(w.next())
		if err != nil {
			return err
		}
		w.c.at(minute)
		if !w.comma() {
			return nil
		}
	}
}

// clock reads a time of day.
func (s source) clock(t token) (minute int, err error) {
	hour, past, ok := strings.Cut(t.text, ":")
	h, m := number(hour), number(past)
	hint := "write a time from 00:00 to 23:59"
	switch {
	case ok && len(hour) <= 2 && len(past) == 2 && h >= 0 && h < 24 && m >= 0 && m < 60:
		return 60*h + m, nil
	case t.text == "24:00" || t.text == "midnight":
		hint = "write 00:00"
	case t.text == "noon":
		hint = "write 12:00"
	case strings.HasSuffix(t.text, "am") || strings.HasSuffix(t.text, "pm"):
		hint = "write it with 24 hours: 02:00, 14:00"
	case !ok && h >= 0 && h < 24 && len(hour) <= 2:
		hint = fmt.Sprintf("write %02d:00", h)
	}
	if t.text == "" {
		return 0, s.fail(t, hint, "a time is missing")
	}
	return 0, s.fail(t, hint, "%q is not a time of day", t.text)
}

// weekdays reads a list of days of the week and ranges of them.
func (w *words) weekdays() error {
	w.c.weekdays = 0
	for {
		t := w.next()
		switch t.text {
		case "weekday", "weekdays":
			w.c.weekdays |= 1<<time.Monday | 1<<time.Tuesday | 1<<time.Wednesday | 1<<time.Thursday | 1<<time.Friday
		case "weekend", "weekends":
			w.c.weekdays |= 1<<time.Saturday | 1<<time.Sunday
		case "daily":
			w.c.weekdays |= allWeekdays
		default:
			if err := w.weekdayRange(t); err != nil {
				return err
			}
		}
		if !w.comma() {
			return nil
		}
	}
}

func (w *words) weekdayRange(t token) error {
	ends := t.cut("-")
	if len(ends) > 2 {
		return w.fail(ends[2], fmt.Sprintf(`write "%s-%s"`, ends[0].text, ends[1].text), "%q has more than two ends", t.text)
	}
	for _, end := range ends {
		switch {
		case weekday(end.text) >= 0:
		case end.text == "":
			return w.fail(end, "write sun to sat", "a day of the week is missing")
		default:
			return w.fail(end, "write sun to sat", "%q is not a day of the week", end.text)
		}
	}
	low, high := weekday(ends[0].text), weekday(ends[len(ends)-1].text)
	if high < low { // over the end of the week
		high += 7
	}
	for d := low; d <= high; d++ {
		w.c.weekdays |= 1 << (d % 7)
	}
	return nil
}

// dates reads days of the month.
func (w *words) dates() error {
	w.c.days = 0
	for first := true; first || w.comma(); first = false {
		w.take("the")
		t := w.next()
		if t.text == "last" {
			if day := w.next(); day.text != "day" {
				return w.fail(day, `write "last day", or the first to the fourth of a weekday`, "the last of what is not clear")
			}
			w.c.lastDay = true
			continue
		}
		if nth := ordinal(t.text); nth > 0 && dayWord(w.peek().text) {
			if !first {
				return w.fail(t, "write two policies", "a weekday does not go together with dates")
			}
			w.c.days = 0x7f << (7*nth - 6)
			return w.weekdays()
		}
		day, err := w.day(t)
		if err != nil {
			return err
		}
		w.c.days |= 1 << day
	}
	return nil
}

// ordinal returns the number of a word; 0 if it is none.
func ordinal(s string) int {
	for i, names := range [][]string{{"first", "1st"}, {"second", "2nd"}, {"third", "3rd"}, {"fourth", "4th"}} {
		if s == names[0] || s == names[1] {
			return i + 1
		}
	}
	return 0
}

// day reads a day of the month: 1, 1st, first.
func (w *words) day(t token) (int, error) {
	text := t.text
	for _, suffix := range []string{"st", "nd", "rd", "th", "."} {
		if short, ok := strings.CutSuffix(text, suffix); ok && number(short) >= 0 {
			text = short
		}
	}
	n := number(text)
	if n < 0 {
		n = ordinal(text)
	}
	switch {
	case t.text == "":
		return 0, w.fail(t, `write a day from 1 to 31, or "last day"`, "a day of the month is missing")
	case n < 1 || n > 31:
		return 0, w.fail(t, `write a day from 1 to 31, or "last day"`, "%q is not a day of the month", t.text)
	}
	return n, nil
}

// date reads a day of the year: "1 jan" or "jan 1".
func (w *words) date() error {
	w.take("the")
	first, second := w.next(), w.next()
	if month(first.text) >= 0 {
		first, second = second, first
	}
	day, err := w.day(first)
	if err != nil {
		return err
	}
	m := month(second.text)
	if m < 0 {
		return w.fail(second, `write a date: "1 jan"`, "%q is not a month", second.text)
	}
	w.c.days, w.c.months = 1<<day, 1<<m
	return w.possible(w.c, first)
}
