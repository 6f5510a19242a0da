package policy

import (
	"math/bits"
	"time"
)

// calendar is a set of minutes of local time. Local times are time.Time in UTC here:
// what a clock on the wall shows, without a zone.
type calendar struct {
	minutes  [24]uint64 // of each hour, bits 0 to 59
	days     uint32     // of the month, bits 1 to 31
	lastDay  bool       // of the month
	months   uint16     // bits 1 to 12
	weekdays uint8      // bits 0 (Sunday) to 6
	// either: a day is in the set if days or weekdays have it; else both must.
	either bool
}

const (
	allDays     = 1<<32 - 2
	allMonths   = 1<<13 - 2
	allWeekdays = 1<<7 - 1
)

// everyDay has no minute yet.
func everyDay() calendar {
	return calendar{days: allDays, months: allMonths, weekdays: allWeekdays}
}

// at adds a time of day, in minutes.
func (c *calendar) at(minute int) { c.minutes[minute/60] |= 1 << (minute % 60) }

// everyHour tells whether the set has a minute in each hour of its days.
func (c *calendar) everyHour() bool {
	for _, m := range c.minutes {
		if m == 0 {
			return false
		}
	}
	return true
}

// farthest is how far next looks. The longest wait that can be written is the one for
// a 29 February on a given weekday: 40 years.
const farthest = 100 // years

// next returns the first minute of the set at or after w, which is a whole minute;
// zero if there is none for a hundred years.
func (c *calendar) next(w time.Time) time.Time {
	day := time.Date(w.Year(), w.Month(), w.Day(), 0, 0, 0, 0, time.UTC)
	from := w.Hour()*60 + w.Minute()
	for last := w.Year() + farthest; day.Year() <= last; from = 0 {
		if c.months>>day.Month()&1 == 0 {
			day = time.Date(day.Year(), day.Month()+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		}
		if c.has(day) {
			if m := c.minute(from); m >= 0 {
				return day.Add(time.Duration(m) * time.Minute)
			}
		}
		day = day.AddDate(0, 0, 1)
	}
	return time.Time{}
}

// has tells whether a day of one of the months is in the set.
func (c *calendar) has(day time.Time) bool {
	inMonth := c.days>>day.Day()&1 == 1 || c.lastDay && day.AddDate(0, 0, 1).Day() == 1
	inWeek := c.weekdays>>day.Weekday()&1 == 1
	if c.either {
		return inMonth || inWeek
	}
	return inMonth && inWeek
}

// minute returns the first minute of the day at or after from; -1 if there is none.
func (c *calendar) minute(from int) int {
	for h, skip := from/60, from%60; h < 24; h, skip = h+1, 0 {
		if m := c.minutes[h] >> skip; m != 0 {
			return h*60 + skip + bits.TrailingZeros64(m)
		}
	}
	return -1
}

// stretch is a time in which a zone keeps its offset from UTC.
type stretch struct {
	offset     time.Duration
	before     time.Duration // the offset before start
	start, end time.Time     // zero: without one
}

func stretchOf(t time.Time, zone *time.Location) stretch {
	local := t.In(zone)
	_, offset := local.Zone()
	s := stretch{offset: time.Duration(offset) * time.Second}
	s.start, s.end = local.ZoneBounds()
	if !s.end.IsZero() && !s.end.After(t) {
		// Beyond the table of a zone ZoneBounds takes every year for one of 365 days, and
		// says of 31 December of a leap year that it is over when it begins.
		s.end = t.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	}
	s.before = s.offset
	if !s.start.IsZero() {
		_, before := s.start.Add(-1).Zone()
		s.before = time.Duration(before) * time.Second
	}
	return s
}

// wall returns the local time of t.
func (s stretch) wall(t time.Time) time.Time { return t.UTC().Add(s.offset) }

// has tells whether t, which is not before it, is in the stretch.
func (s stretch) has(t time.Time) bool { return s.end.IsZero() || t.Before(s.end) }

// fresh returns the first local time of the stretch that did not exist before it too.
func (s stretch) fresh() time.Time {
	if s.start.IsZero() || s.before <= s.offset {
		return time.Time{}
	}
	return minuteUp(s.start.UTC().Add(s.before))
}

// minuteUp returns the first whole minute at or after w.
func minuteUp(w time.Time) time.Time {
	if m := w.Truncate(time.Minute); !m.Equal(w) {
		return m.Add(time.Minute)
	}
	return w
}

// after returns the first moment later than t that the set stands for in a zone; zero
// if there is none for a hundred years.
//
// Where clocks are put forward, the local times that are left out stand for the first
// moment after them. Where clocks are put back, the local times that come twice count
// the first time, unless the set has every hour: that is not about the time of day,
// and a pause of two hours is not what its owner asked for.
func (c *calendar) after(t time.Time, zone *time.Location) time.Time {
	s := stretchOf(t, zone)
	from := s.wall(t).Truncate(time.Minute).Add(time.Minute)
	for last := t.Year() + farthest; ; {
		if fresh := s.fresh(); !c.everyHour() && fresh.After(from) {
			from = fresh
		}
		w := c.next(from)
		if w.IsZero() || w.Year() > last {
			return time.Time{}
		}
		if run := w.Add(-s.offset); s.has(run) {
			return run.In(zone)
		}
		change := s.end
		s = stretchOf(change, zone)
		if from = s.wall(change); w.Before(from) { // w is left out
			return change.In(zone)
		}
		from = minuteUp(from)
	}
}
