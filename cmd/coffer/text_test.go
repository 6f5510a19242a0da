package main

import (
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/passwd":      "/etc/passwd",
		"/Grüße/日本":        "/Grüße/日本",
		"a b":              "a b",
		"\x1b[2J\x07":      `\x1b[2J\a`,
		"line\nline\r\t":   `line\nline\r\t`,
		"\xff\xfe":         `\xff\xfe`,
		"\u009b31m":        `\u009b31m`,
		"evil\u202egnp":    `evil\u202egnp`,
		"\u2066x\u2069":    `\u2066x\u2069`,
		"a\u00a0b\ufffd":   `a\u00a0b` + "\ufffd",
		"\x7f\x00":         `\x7f\x00`,
		"zero\u200bwidth":  `zero\u200bwidth`,
		`back\slash "q" '`: `back\slash "q" '`,
	} {
		if got := safe(in); got != want {
			t.Errorf("safe(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 2940 * time.Millisecond: "2.9 s", 12 * time.Second: "12 s", 303 * time.Second: "5 min 3 s",
		time.Hour: "1 h", 76 * time.Hour: "3 d 4 h", -time.Second: "0.0 s",
	} {
		if got := lasting(d); got != want {
			t.Errorf("lasting(%v) = %q, want %q", d, got, want)
		}
	}
	zone := time.FixedZone("x", -5*3600)
	at := time.Date(2026, 11, 22, 1, 0, 0, 0, zone)
	for ago, want := range map[time.Duration]string{
		40 * time.Second: "00:59 today (40 s ago)",
		2 * time.Hour:    "23:00 yesterday (2 h ago)",
		26 * time.Hour:   "23:00 2026-11-20",
		-3 * time.Hour:   "04:00 today",
		-24 * time.Hour:  "01:00 tomorrow",
		-72 * time.Hour:  "2026-11-25 01:00",
	} {
		if ago == 26*time.Hour {
			want = "2026-11-20 23:00 (26 h ago)"
		}
		if got := when(at.Add(-ago).UTC(), at); got != want {
			t.Errorf("when(%v ago) = %q, want %q", ago, got, want)
		}
	}
	if got := when(time.Time{}, at); got != "never" {
		t.Error(got)
	}
}

// TestMeter pins what a bar says through the life of a job.
func TestMeter(t *testing.T) {
	m := &meter{label: "etc", things: "entries"}
	see := func(second int, p control.Progress) { m.see(p, now.Add(time.Duration(second)*time.Second)) }
	expect := func(bar string) {
		t.Helper()
		if got := m.bar(100); got != bar {
			t.Errorf("got  %q\nwant %q", got, bar)
		}
	}
	expect("etc  0 B")
	see(0, control.Progress{Phase: "scanning", Entries: 12000})
	expect("etc  scanning  12,000 entries")
	see(1, control.Progress{Phase: "reading", Bytes: 0, BytesTotal: 1200 << 20})
	expect("etc  ----------------------  0 %  0 B of 1.2 GiB")
	see(2, control.Progress{Phase: "reading", Bytes: 400 << 20, BytesTotal: 1200 << 20})
	expect("etc  #######---------------  33 %  400 MiB of 1.2 GiB  400 MiB/s  2 s left")
	for s := 3; s <= 20; s++ { // it stalls: the rate is of the last ten seconds
		see(s, control.Progress{Phase: "reading", Bytes: 400 << 20, BytesTotal: 1200 << 20, Skipped: 1})
	}
	expect("etc  #######---------------  33 %  400 MiB of 1.2 GiB  1 skipped")
	see(21, control.Progress{Phase: "reading", Bytes: 2400 << 20, BytesTotal: 1200 << 20})
	expect("etc  ######################  100 %  2.3 GiB of 1.2 GiB  200 MiB/s")
	if got := m.bar(10); got != "etc  #####" {
		t.Errorf("in a narrow terminal: %q", got)
	}
}

// TestMeterOfSecrets pins what a bar says of a job that counts and has no bytes.
func TestMeterOfSecrets(t *testing.T) {
	m := &meter{label: "site", things: "secrets"}
	for done, want := range map[int64]string{
		0:    "site  ----------------------  0 %  0 of 1,000 secrets",
		250:  "site  #####-----------------  25 %  250 of 1,000 secrets",
		1001: "site  ######################  100 %  1,001 of 1,000 secrets",
	} {
		m.see(control.Progress{Phase: "wrapping", Entries: done, EntriesTotal: 1000}, now)
		if got := m.bar(100); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestPercent(t *testing.T) {
	for share, want := range map[float64]string{0: "0 %", 0.01: "0.1 %", 40: "40 %", 33.3333: "33.3 %", 99.99: "99.9 %", 100: "100 %"} {
		if got := percent(share); got != want {
			t.Errorf("percent(%v) = %q, want %q", share, got, want)
		}
	}
}
