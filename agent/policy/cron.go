package policy

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// cronField is one of the five fields of a cron expression.
type cronField struct {
	name     string // "hour"
	min, max int
	value    func(string) int // of a name; -1 if it is none
}

func noName(string) int { return -1 }

func cronFields() [5]cronField {
	return [5]cronField{
		{"minute", 0, 59, noName},
		{"hour", 0, 23, noName},
		{"day of the month", 1, 31, noName},
		{"month", 1, 12, month},
		{"day of the week", 0, 7, weekday}, // 7 is Sunday too
	}
}

// cron reads five fields.
func (s source) cron(fields []token) (calendar, error) {
	const layout = "minute, hour, day of the month, month, day of the week"
	var c calendar
	switch n := len(fields); {
	case strings.Contains(fields[0].text, ":"):
		return c, s.fail(fields[0], `write the days first: "daily at 02:00"`, "a schedule does not begin with a time")
	case n == 6:
		return c, s.fail(fields[0], "leave the seconds out: "+layout, "there are 6 fields, not 5")
	case n > 5:
		return c, s.fail(fields[5], "write five fields: "+layout, "there are %d fields, not 5", n)
	case n < 5:
		return c, s.fail(s.end(), "write five fields: "+layout, "there are %d fields, not 5", n)
	}
	var sets [5]uint64
	for i, f := range cronFields() {
		var err error
		if sets[i], err = s.cronSet(fields[i], f); err != nil {
			return c, err
		}
	}
	for h := range c.minutes {
		if sets[1]>>h&1 == 1 {
			c.minutes[h] = sets[0]
		}
	}
	c.days, c.months = uint32(sets[2]), uint16(sets[3])
	c.weekdays = uint8(sets[4]&allWeekdays | sets[4]>>7)
	star := func(t token) bool { return strings.HasPrefix(t.text, "*") }
	c.either = !star(fields[2]) && !star(fields[4])
	return c, s.possible(c, fields[2])
}

// possible refuses days that none of the months has.
func (s source) possible(c calendar, at token) error {
	if c.days == 0 { // the last day: every month has one
		return nil
	}
	first, longest, name := bits.TrailingZeros32(c.days), 0, ""
	for m := time.January; m <= time.December; m++ {
		if n := time.Date(2000, m+1, 0, 0, 0, 0, 0, time.UTC).Day(); c.months>>m&1 == 1 && n > longest {
			longest, name = n, m.String()
		}
	}
	if first > longest {
		return s.fail(at, fmt.Sprintf(`write %d at the most, or "monthly on the last day at 02:00"`, longest),
			"day %d never comes: %s has %d days", first, name, longest)
	}
	return nil
}

// cronSet reads a field: a list of *, values and ranges, the first and last with steps.
func (s source) cronSet(t token, f cronField) (uint64, error) {
	var set uint64
	for _, part := range t.cut(",") {
		got, err := s.cronPart(part, f)
		if err != nil {
			return 0, err
		}
		set |= got
	}
	return set, nil
}

func (s source) cronPart(t token, f cronField) (uint64, error) {
	if err := s.cronForeign(t, f); err != nil {
		return 0, err
	}
	parts := t.cut("/")
	if len(parts) > 2 {
		return 0, s.fail(parts[2], fmt.Sprintf(`write "%s/%s"`, parts[0].text, parts[1].text), "%q has two steps", t.text)
	}
	low, high, err := s.cronRange(parts[0], f)
	if err != nil {
		return 0, err
	}
	step := 1
	if len(parts) == 2 {
		single := parts[0].text != "*" && !strings.Contains(parts[0].text, "-")
		if step, err = s.cronStep(parts[1], f, high-low); err != nil {
			return 0, err
		} else if single {
			return 0, s.fail(t, fmt.Sprintf(`write "%d-%d/%d"`, low, f.top(), step), "a step needs a range, and %s %s is one value", f.name, parts[0].text)
		}
	}
	var set uint64
	for v := low; v <= high; v += step {
		at := v
		if v > f.max { // a range of days over the end of the week
			at = v - 7
		}
		set |= 1 << at
	}
	return set, nil
}

// top is the greatest value to tell people of.
func (f cronField) top() int {
	if f.max == 7 {
		return 6
	}
	return f.max
}

func (s source) cronStep(t token, f cronField, width int) (int, error) {
	step := number(t.text)
	if step < 1 {
		return 0, s.fail(t, `write a number from 1: "*/4"`, "%q is not a step", t.text)
	}
	if width > 0 && step > width {
		return 0, s.fail(t, `write the one value that is meant, or words: "every 4 hours"`,
			"a step of %d leaves one %s of the range, and no interval", step, f.name)
	}
	return step, nil
}

// cronRange returns the bounds of a range. That of days of the week may go over the
// week's end: high is above the field's then.
func (s source) cronRange(t token, f cronField) (low, high int, err error) {
	if t.text == "*" {
		return f.min, f.top(), nil
	}
	ends := t.cut("-")
	if len(ends) > 2 {
		return 0, 0, s.fail(ends[2], fmt.Sprintf(`write "%s-%s"`, ends[0].text, ends[1].text), "%q has more than two ends", t.text)
	}
	if low, err = s.cronValue(ends[0], f); err != nil || len(ends) == 1 {
		return low, low, err
	}
	if high, err = s.cronValue(ends[1], f); err != nil || low <= high {
		return low, high, err
	}
	if f.max == 7 {
		return low % 7, high + 7*(1-low/7), nil
	}
	last := strconv.Itoa(f.top())
	return 0, 0, s.fail(t, fmt.Sprintf(`write "%d-%s,%d-%d"`, low, last, f.min, high), "%q goes backwards", t.text)
}

func (s source) cronValue(t token, f cronField) (int, error) {
	v := number(t.text)
	if v < 0 {
		v = f.value(t.text)
	}
	if v >= f.min && v <= f.max {
		return v, nil
	}
	hint := fmt.Sprintf("write %d to %d", f.min, f.top())
	switch f.name {
	case "month":
		hint += ", or jan to dec"
	case "day of the week":
		hint += ", or sun to sat"
	case "hour":
		if v == 24 {
			hint = "write 0: the day begins with hour 0"
		}
	case "minute":
		if v == 60 {
			hint = "write 0: the hour begins with minute 0"
		}
	}
	if t.text == "" {
		return 0, s.fail(t, hint, "the %s is missing here", f.name)
	}
	return 0, s.fail(t, hint, "%q is no %s", t.text, f.name)
}

// cronForeign refuses what other programs know, and says what to write here.
func (s source) cronForeign(t token, f cronField) error {
	switch {
	case t.text == "?":
		return s.fail(t, `write "*"`, `"?" is not known`)
	case t.text == "h" || strings.HasPrefix(t.text, "h/") || strings.HasPrefix(t.text, "h("):
		return s.fail(t, "write a value, and set jitter to spread hosts", `"H" is not known`)
	case strings.Contains(t.text, "#"):
		return s.fail(t, `write words: "monthly on the first sunday at 02:00"`, `"#" is not known`)
	case f.name == "day of the month" && strings.Contains(t.text, "l"):
		return s.fail(t, `write words: "monthly on the last day at 02:00"`, `"L" is not known`)
	case f.name == "day of the month" && strings.Contains(t.text, "w"):
		return s.fail(t, `write a day, or words: "weekdays at 02:00"`, `"W" is not known`)
	case strings.HasPrefix(t.text, "~") || strings.Contains(t.text, "~"):
		return s.fail(t, "write a value, and set jitter to spread hosts", `"~" is not known`)
	}
	return nil
}

// alias reads @daily and its like.
func (s source) alias(t token) (calendar, error) {
	c := everyDay()
	switch t.text {
	case "@hourly":
		for h := range 24 {
			c.at(60 * h)
		}
		return c, nil
	case "@daily", "@midnight":
	case "@weekly":
		c.weekdays = 1 << time.Sunday
	case "@monthly":
		c.days = 1 << 1
	case "@yearly", "@annually":
		c.days, c.months = 1<<1, 1<<time.January
	case "@reboot":
		return c, s.fail(t, "leave it out: missed runs are caught up when the service starts", "@reboot is not a time")
	case "@every":
		return c, s.fail(t, `write "every 4 hours"`, "@every is not known")
	default:
		return c, s.fail(t, "write @hourly, @daily, @weekly, @monthly or @yearly", "%q is not known", t.text)
	}
	c.at(0)
	return c, nil
}
