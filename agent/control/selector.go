package control

import (
	"errors"
	"strings"
	"time"
)

// Selector says which point of an item is meant. Exactly one of the fields is
// set; of an id, Prefix is the whole.
type Selector struct {
	Latest     bool
	AtOrBefore time.Time // the newest point that began then or before
	Prefix     string    // the only point whose id begins so
}

// ErrSelector is returned for text that cannot name a point.
var ErrSelector = errors.New("not a point, a date or a time")

// ParseSelector reads how people name points: "" or "latest"; a date
// (2026-09-02: the end of that day) or a date and time (2026-09-02T14:00 or
// 2026-09-02 14:00, with seconds or without, in loc unless it ends in Z or an
// offset); anything else is an id or the beginning of one. The point that has
// exactly this id goes before all of these; the caller looks for it first.
func ParseSelector(s string, loc *time.Location) (Selector, error) {
	if s == "" || s == "latest" {
		return Selector{Latest: true}, nil
	}
	if day, err := time.ParseInLocation(time.DateOnly, s, loc); err == nil {
		return Selector{AtOrBefore: day.AddDate(0, 0, 1).Add(-time.Nanosecond)}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		text := strings.Replace(s, " ", "T", 1)
		for _, l := range []string{layout, layout + "Z07:00"} {
			if t, err := time.ParseInLocation(l, text, loc); err == nil {
				return Selector{AtOrBefore: endOf(t, layout)}, nil
			}
		}
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '/' || c == '@' {
			return Selector{}, ErrSelector
		}
	}
	return Selector{Prefix: s}, nil
}

// endOf returns the last moment that t, written in layout, can mean.
func endOf(t time.Time, layout string) time.Time {
	if strings.HasSuffix(layout, ":05") {
		return t.Add(time.Second - time.Nanosecond)
	}
	return t.Add(time.Minute - time.Nanosecond)
}
