package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the tables do not hang on the machine's zones

	"github.com/cofferbackup/coffer/agent/policy"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func schedule(t testing.TB, text string, o policy.Options) *policy.Schedule {
	t.Helper()
	s, err := policy.ParseSchedule(text, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func window(t testing.TB, text string) policy.Window {
	t.Helper()
	w, err := policy.ParseWindow(text)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const minutes = "2006-01-02T15:04"

// at reads a time: with an offset, or of UTC.
func at(t testing.TB, text string) time.Time {
	t.Helper()
	for _, layout := range []string{time.RFC3339, minutes + "Z07:00", minutes} {
		if got, err := time.Parse(layout, text); err == nil {
			return got
		}
	}
	t.Fatalf("%q is not a time", text)
	return time.Time{}
}

// runs lists the next runs, with their offsets.
func runs(s *policy.Schedule, after time.Time, n int) string {
	var out []string
	for _, run := range s.Runs(after, n) {
		out = append(out, run.Format(minutes+"Z07:00"))
	}
	return strings.Join(out, " ")
}

func TestNext(t *testing.T) {
	// 22 November 2026 is a Sunday.
	for _, test := range []struct{ text, after, want string }{
		{"0 2 * * *", "2026-11-22T02:00", "2026-11-23T02:00Z 2026-11-24T02:00Z"},
		{"0 2 * * *", "2026-11-22T01:59", "2026-11-22T02:00Z 2026-11-23T02:00Z"},
		{"*/20 8-9 * * *", "2026-11-22T08:30", "2026-11-22T08:40Z 2026-11-22T09:00Z 2026-11-22T09:20Z 2026-11-22T09:40Z 2026-11-23T08:00Z"},
		{"5,10-12,30-40/5 0 * * *", "2026-11-22T00:00", "2026-11-22T00:05Z 2026-11-22T00:10Z 2026-11-22T00:11Z 2026-11-22T00:12Z 2026-11-22T00:30Z 2026-11-22T00:35Z 2026-11-22T00:40Z 2026-11-23T00:05Z"},
		{"0 0 * JAN mon", "2026-11-22T00:00", "2027-01-04T00:00Z 2027-01-11T00:00Z"},
		{"0 0 * * 7", "2026-11-22T00:00", "2026-11-29T00:00Z"},
		{"0 0 * * 0", "2026-11-22T00:00", "2026-11-29T00:00Z"},
		{"0 0 * * fri-mon", "2026-11-22T00:00", "2026-11-23T00:00Z 2026-11-27T00:00Z 2026-11-28T00:00Z 2026-11-29T00:00Z"},
		{"0 0 * * 5-7", "2026-11-22T00:00", "2026-11-27T00:00Z 2026-11-28T00:00Z 2026-11-29T00:00Z 2026-12-04T00:00Z"},
		{"0 0 13 * fri", "2026-11-22T00:00", "2026-11-27T00:00Z 2026-12-04T00:00Z 2026-12-11T00:00Z 2026-12-13T00:00Z"}, // either
		{"0 0 31 * *", "2026-11-22T00:00", "2026-12-31T00:00Z 2027-01-31T00:00Z 2027-03-31T00:00Z"},
		{"0 0 29 2 *", "2026-11-22T00:00", "2028-02-29T00:00Z 2032-02-29T00:00Z"},
		{"0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00Z"}, // 2100 is no leap year
		{"59 23 31 12 *", "2026-12-31T23:59", "2027-12-31T23:59Z"},

		{"@hourly", "2026-11-22T09:30", "2026-11-22T10:00Z 2026-11-22T11:00Z"},
		{"@daily", "2026-11-22T09:30", "2026-11-23T00:00Z"},
		{"@weekly", "2026-11-22T09:30", "2026-11-29T00:00Z"},
		{"@Monthly", "2026-11-22T09:30", "2026-12-01T00:00Z"},
		{"@yearly", "2026-11-22T09:30", "2027-01-01T00:00Z"},

		{"daily at 02:00", "2026-11-22T09:30", "2026-11-23T02:00Z 2026-11-24T02:00Z"},
		{"Every day at 6:00, 12:30 and 18:00", "2026-11-22T00:00", "2026-11-22T06:00Z 2026-11-22T12:30Z 2026-11-22T18:00Z 2026-11-23T06:00Z"},
		{"weekdays at 22:30", "2026-11-20T22:30", "2026-11-23T22:30Z"},
		{"weekends", "2026-11-22T09:30", "2026-11-28T00:00Z 2026-11-29T00:00Z"},
		{"mon, wed and fri-sat at 01:00", "2026-11-22T09:30", "2026-11-23T01:00Z 2026-11-25T01:00Z 2026-11-27T01:00Z 2026-11-28T01:00Z 2026-11-30T01:00Z"},
		{"every tuesday at 01:00", "2026-11-22T09:30", "2026-11-24T01:00Z 2026-12-01T01:00Z"},
		{"hourly at :15", "2026-11-22T09:30", "2026-11-22T10:15Z 2026-11-22T11:15Z"},
		{"every 4 hours", "2026-11-22T09:30", "2026-11-22T12:00Z 2026-11-22T16:00Z 2026-11-22T20:00Z 2026-11-23T00:00Z"},
		{"every 12 hours at :30", "2026-11-22T09:30", "2026-11-22T12:30Z 2026-11-23T00:30Z"},
		{"every hour", "2026-11-22T09:30", "2026-11-22T10:00Z"},
		{"every 30 min", "2026-11-22T09:30", "2026-11-22T10:00Z 2026-11-22T10:30Z"},
		{"every minute", "2026-11-22T23:59:30Z", "2026-11-23T00:00Z 2026-11-23T00:01Z"},
		{"weekly on fri at 21:00", "2026-11-22T09:30", "2026-11-27T21:00Z"},
		{"monthly on the last day at 23:00", "2027-01-31T23:00", "2027-02-28T23:00Z 2027-03-31T23:00Z"},
		{"monthly on 1st, 15 at 03:00", "2026-11-22T09:30", "2026-12-01T03:00Z 2026-12-15T03:00Z"},
		{"monthly on the second sunday at 03:00", "2026-11-22T09:30", "2026-12-13T03:00Z 2027-01-10T03:00Z"},
		{"yearly on 24 dec at 12:00", "2026-11-22T09:30", "2026-12-24T12:00Z 2027-12-24T12:00Z"},
		{"yearly on feb 29", "2026-11-22T09:30", "2028-02-29T00:00Z"},
	} {
		n := len(strings.Fields(test.want))
		if got := runs(schedule(t, test.text, policy.Options{}), at(t, test.after), n); got != test.want {
			t.Errorf("%s after %s:\n got %s\nwant %s", test.text, test.after, got, test.want)
		}
	}
}

func TestNextOverClockChanges(t *testing.T) {
	const berlin, york, howe = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
	for _, test := range []struct{ zone, text, after, want string }{
		// 29 March 2026: 02:00 is 03:00. 25 October: 03:00 is 02:00.
		{berlin, "daily at 02:30", "2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00 2026-03-30T02:30+02:00"},
		{berlin, "daily at 02:00", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00 2026-03-30T02:00+02:00"},
		{berlin, "daily at 03:00", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00 2026-03-30T03:00+02:00"},
		{berlin, "daily at 02:30 and 03:00", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00 2026-03-30T02:30+02:00"},
		{berlin, "every 30 minutes", "2026-03-29T01:00+01:00", "2026-03-29T01:30+01:00 2026-03-29T03:00+02:00 2026-03-29T03:30+02:00"},
		{berlin, "daily at 02:30", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00 2026-10-26T02:30+01:00"},
		{berlin, "daily at 02:30", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"},
		{berlin, "daily at 02:30", "2026-10-25T02:10+01:00", "2026-10-26T02:30+01:00"},
		{berlin, "daily at 03:00", "2026-10-24T12:00+02:00", "2026-10-25T03:00+01:00"},
		{berlin, "*/30 2 * * *", "2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00 2026-10-25T02:30+02:00 2026-10-26T02:00+01:00"},
		{berlin, "hourly", "2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00 2026-10-25T02:00+01:00 2026-10-25T03:00+01:00"},
		{berlin, "every 4 hours", "2026-10-25T00:00+02:00", "2026-10-25T04:00+01:00 2026-10-25T08:00+01:00"},
		{berlin, "0 2 29 3 *", "2026-01-01T00:00+01:00", "2026-03-29T03:00+02:00 2027-03-29T02:00+02:00"},
		// 8 March 2026: 02:00 is 03:00. 1 November: 02:00 is 01:00.
		{york, "daily at 02:15", "2026-03-07T12:00-05:00", "2026-03-08T03:00-04:00 2026-03-09T02:15-04:00"},
		{york, "daily at 01:15", "2026-10-31T12:00-04:00", "2026-11-01T01:15-04:00 2026-11-02T01:15-05:00"},
		{york, "daily at 01:15", "2026-11-01T01:00-05:00", "2026-11-02T01:15-05:00"},
		{york, "@hourly", "2026-11-01T00:30-04:00", "2026-11-01T01:00-04:00 2026-11-01T01:00-05:00 2026-11-01T02:00-05:00"},
		// 4 October 2026: 02:00 is 02:30. 5 April: 02:00 is 01:30.
		{howe, "daily at 02:00", "2026-10-03T12:00+10:30", "2026-10-04T02:30+11:00 2026-10-05T02:00+11:00"},
		{howe, "daily at 02:15", "2026-10-03T12:00+10:30", "2026-10-04T02:30+11:00 2026-10-05T02:15+11:00"},
		{howe, "daily at 02:30", "2026-10-03T12:00+10:30", "2026-10-04T02:30+11:00 2026-10-05T02:30+11:00"},
		{howe, "daily at 01:45", "2026-04-04T12:00+11:00", "2026-04-05T01:45+11:00 2026-04-06T01:45+10:30"},
		{howe, "daily at 01:30", "2026-04-05T01:30+11:00", "2026-04-06T01:30+10:30"},
		{howe, "daily at 02:00", "2026-04-04T12:00+11:00", "2026-04-05T02:00+10:30"},
		{howe, "hourly", "2026-04-05T00:30+11:00", "2026-04-05T01:00+11:00 2026-04-05T02:00+10:30"},
		// A day that was left out, and midnights that were.
		{"Pacific/Apia", "daily at 12:00", "2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00 2011-12-31T12:00+14:00"},
		{"America/Sao_Paulo", "daily", "2018-11-03T12:00-03:00", "2018-11-04T01:00-02:00 2018-11-05T00:00-02:00"},
		{"America/Sao_Paulo", "daily at 23:30", "2018-02-17T12:00-02:00", "2018-02-17T23:30-02:00 2018-02-18T23:30-03:00"},
	} {
		n := len(strings.Fields(test.want))
		s := schedule(t, test.text, policy.Options{Zone: zone(t, test.zone)})
		if got := runs(s, at(t, test.after), n); got != test.want {
			t.Errorf("%s %s after %s:\n got %s\nwant %s", test.zone, test.text, test.after, got, test.want)
		}
	}
}

// TestNextOfEveryDay: over twenty years, beyond the tables of zones, each zone has one run a day, at the hour that was
// asked for unless that day has none.
func TestNextOfEveryDay(t *testing.T) {
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe"} {
		z := zone(t, name)
		for _, clock := range []string{"01:30", "02:00", "02:30", "03:00"} {
			s := schedule(t, "daily at "+clock, policy.Options{Zone: z})
			day := time.Date(2026, 1, 1, 12, 0, 0, 0, z)
			run, odd := day, 0
			for range 7305 {
				run, day = s.Next(run), day.AddDate(0, 0, 1)
				if run.Format(time.DateOnly) != day.Format(time.DateOnly) {
					t.Fatalf("%s at %s: %s, not on %s", name, clock, run, day.Format(time.DateOnly))
				}
				if run.Format("15:04") != clock {
					odd++
				}
			}
			if odd > 20 {
				t.Errorf("%s at %s: %d runs at another time", name, clock, odd)
			}
		}
	}
}

func TestNextFarAway(t *testing.T) {
	s := schedule(t, "0 0 29 2 *", policy.Options{Zone: zone(t, "Europe/Berlin"), Jitter: time.Hour, Not: []policy.Window{window(t, "sun")}})
	for _, after := range []time.Time{{}, at(t, "1600-01-01T00:00"), at(t, "8990-01-01T00:00"), time.Unix(-1<<40, 0)} {
		if run := s.Next(after); !run.After(after) || run.Year() > max(after.Year(), 1)+12 {
			t.Errorf("after %s: %s", after, run)
		}
	}
	for _, after := range []time.Time{at(t, "9001-01-01T00:00"), time.Unix(1<<60, 0)} {
		if run := s.Next(after); !run.IsZero() {
			t.Errorf("after %s: %s", after, run)
		}
	}
}

func TestWindows(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, test := range []struct{ text, not, after, want string }{
		{"daily at 12:00", "08:00-18:00 mon-fri", "2026-11-20T00:00+01:00", "2026-11-20T18:00+01:00 2026-11-21T12:00+01:00 2026-11-22T12:00+01:00 2026-11-23T18:00+01:00"},
		{"daily at 18:00", "08:00-18:00 mon-fri", "2026-11-20T00:00+01:00", "2026-11-20T18:00+01:00"},
		{"daily at 08:00", "08:00-18:00 mon-fri", "2026-11-20T00:00+01:00", "2026-11-20T18:00+01:00"},
		{"hourly", "08:00-18:00", "2026-11-20T06:30+01:00", "2026-11-20T07:00+01:00 2026-11-20T18:00+01:00 2026-11-20T19:00+01:00"},
		{"daily at 12:00", "08:00-18:00", "2026-11-20T15:00+01:00", "2026-11-20T18:00+01:00"}, // it fell due before, and is still to come
		{"daily at 23:00", "22:00-06:00 sat", "2026-11-21T00:00+01:00", "2026-11-22T06:00+01:00 2026-11-22T23:00+01:00"},
		{"daily at 02:00", "sat, sun", "2026-11-20T12:00+01:00", "2026-11-23T00:00+01:00 2026-11-23T02:00+01:00"},
		{"daily at 02:00", "18:00-24:00; 00:00-06:00", "2026-11-20T12:00+01:00", "2026-11-21T06:00+01:00 2026-11-22T06:00+01:00"},
		{"daily at 01:00", "00:30-02:30", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00 2026-03-30T02:30+02:00"},
		{"daily at 01:00", "00:30-02:30", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00 2026-10-26T02:30+01:00"},
		{"monthly on 2 at 00:00", "00:00-02:10; 02:20-24:00", "2026-03-28T12:00+01:00", "2026-04-02T02:10+02:00"},
		// All but ten minutes a week, which the clocks leave out on 29 March.
		{"monthly on 23 at 00:00", "mon-sat; 00:00-02:10 sun; 02:20-24:00 sun", "2026-03-23T00:00+01:00", "2026-04-05T02:10+02:00"},
	} {
		var not []policy.Window
		for _, text := range strings.Split(test.not, ";") {
			not = append(not, window(t, strings.TrimSpace(text)))
		}
		s := schedule(t, test.text, policy.Options{Zone: berlin, Not: not})
		if got := runs(s, at(t, test.after), len(strings.Fields(test.want))); got != test.want {
			t.Errorf("%s, not %s, after %s:\n got %s\nwant %s", test.text, test.not, test.after, got, test.want)
		}
	}
	s := schedule(t, "daily", policy.Options{Not: []policy.Window{window(t, "08:00-18:00")}})
	if got := s.Open(at(t, "2026-11-20T09:00")); !got.Equal(at(t, "2026-11-20T18:00")) {
		t.Errorf("a window ends at %s", got)
	}
	if free := at(t, "2026-11-20T18:00"); !s.Open(free).Equal(free) {
		t.Errorf("18:00 is not free")
	}
	if _, err := policy.ParseSchedule("daily", policy.Options{Not: []policy.Window{window(t, "12:00-24:00"), window(t, "00:00-12:00")}}); !errors.Is(err, policy.ErrNever) {
		t.Errorf("the whole week is closed: %v", err)
	}
}

func TestJitter(t *testing.T) {
	// The shares of seeds are promised: an upgrade moves no host.
	for seed, want := range map[string]string{"": "2026-11-22T02:53:21Z", "site/etc": "2026-11-22T02:05:13Z", "site/vm1": "2026-11-22T02:33:58Z"} {
		s := schedule(t, "daily at 02:00", policy.Options{Jitter: time.Hour, Seed: seed})
		first := s.Next(at(t, "2026-11-22T00:00"))
		if first.Format(time.RFC3339) != want {
			t.Errorf("seed %q runs at %s, not %s", seed, first.Format(time.RFC3339), want)
		}
		for i, run := range s.Runs(first, 5) {
			if run.Sub(first) != time.Duration(i+1)*24*time.Hour {
				t.Errorf("seed %q: %s, then %s", seed, first, run)
			}
		}
	}
	var quarters [4]int
	for i := range 1000 {
		s := schedule(t, "daily", policy.Options{Jitter: time.Hour, Seed: fmt.Sprintf("site/host%d", i)})
		quarters[s.Next(at(t, "2026-11-22T12:00")).Minute()/15]++
	}
	if slices.Min(quarters[:]) < 200 {
		t.Errorf("hosts are not spread: %v", quarters)
	}
	for _, jitter := range []time.Duration{-1, 25 * time.Hour} {
		if _, err := policy.ParseSchedule("daily", policy.Options{Jitter: jitter}); err == nil {
			t.Errorf("a jitter of %s is taken", jitter)
		}
	}
}

// TestOrder: whatever the schedule, runs are in order, none is in a window, and a
// time in between leads to the same next run.
func TestOrder(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "Australia/Lord_Howe"} {
		for _, text := range []string{"hourly", "every 15 minutes", "0 2,3 * * *", "weekdays at 07:50", "*/7 1-3 * * sun"} {
			for _, jitter := range []time.Duration{0, 10 * time.Minute, 5 * time.Hour} {
				o := policy.Options{Zone: zone(t, name), Jitter: jitter, Seed: "site/b", Not: []policy.Window{
					window(t, "08:00-18:00 mon-fri"), window(t, "18:10-18:20"), window(t, "01:00-02:30 sun"),
				}}
				s := schedule(t, text, o)
				for _, month := range []time.Month{3, 4, 10} {
					run := time.Date(2026, month, 1, 0, 0, 0, 0, o.Zone)
					end := run.AddDate(0, 1, 7)
					for steps := 0; run.Before(end) && steps < 400; steps++ {
						next := s.Next(run)
						if !next.After(run) || !s.Open(next).Equal(next) {
							t.Fatalf("%s %s jitter %s: after %s comes %s", name, text, jitter, run, next)
						}
						for _, between := range []time.Time{run.Add(next.Sub(run) / 2), next.Add(-1), run.Add(1)} {
							if again := s.Next(between); !again.Equal(next) {
								t.Fatalf("%s %s jitter %s: after %s comes %s, but after %s %s", name, text, jitter, run, next, between, again)
							}
						}
						run = next
					}
				}
			}
		}
	}
}

func TestMissed(t *testing.T) {
	daily := schedule(t, "daily at 02:00", policy.Options{Zone: zone(t, "Europe/Berlin")})
	leap := schedule(t, "0 0 29 2 *", policy.Options{})
	for _, test := range []struct {
		s               *policy.Schedule
		last, now, want string
	}{
		{daily, "2026-11-20T02:00+01:00", "2026-11-20T12:00+01:00", ""},
		{daily, "2026-11-20T02:00+01:00", "2026-11-21T01:59+01:00", ""},
		{daily, "2026-11-20T02:00+01:00", "2026-11-21T02:00+01:00", "2026-11-21T02:00+01:00"},
		{daily, "2026-11-10T02:00+01:00", "2026-11-21T12:00+01:00", "2026-11-21T02:00+01:00"},
		{daily, "2026-11-21T12:00+01:00", "2026-11-21T12:00+01:00", ""}, // caught up
		{daily, "2026-11-22T02:00+01:00", "2026-11-21T12:00+01:00", ""}, // the clock was ahead
		{daily, "2026-10-24T12:00+02:00", "2026-10-25T02:30+01:00", "2026-10-25T02:00+02:00"},
		{daily, "1066-10-14T12:00", "2026-11-21T12:00+01:00", "2026-11-21T02:00+01:00"},
		{leap, "1990-01-01T00:00", "2026-11-21T12:00", "2024-02-29T00:00"},
	} {
		due, missed := test.s.Missed(at(t, test.last), at(t, test.now))
		if missed != (test.want != "") || missed && !due.Equal(at(t, test.want)) {
			t.Errorf("last %s, now %s: %s, %v", test.last, test.now, due, missed)
		}
	}
	if due, missed := daily.Missed(time.Time{}, at(t, "2026-11-21T12:00")); missed {
		t.Errorf("a thing that never ran missed %s", due)
	}
}
