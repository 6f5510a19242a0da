package notify_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// TestOnce: a fault is told once, again after a day with its count, and its end once.
func TestOnce(t *testing.T) {
	b := newBench(t)
	b.start()
	b.fail("etc", notify.Again)
	b.expect("failure etc x1")
	for range 5 {
		b.clock.advance(time.Hour)
		b.fail("etc", notify.Again)
		b.fail("etc", notify.Lasts) // is no new occurrence
	}
	b.expect()
	b.clock.advance(19 * time.Hour)
	b.expect("failure etc x6")
	b.clock.advance(23 * time.Hour)
	b.expect()
	b.clock.advance(time.Hour)
	b.expect("failure etc x6")
	b.well("etc")
	b.well("etc")
	b.expect("recovery etc x6")
	b.clock.advance(72 * time.Hour)
	b.expect()
	b.well("what never was")
	b.expect()
	if f := b.Faults(); len(f) != 0 {
		t.Errorf("faults %q", f)
	}
	b.fail("etc", notify.Again)
	b.expect("failure etc x1")
}

// TestGraver: what has become worse is told at once.
func TestGraver(t *testing.T) {
	b := newBench(t)
	b.start()
	for i := range 4 {
		b.fail("keys site", notify.Graver)
		b.expect(fmt.Sprintf("failure keys site x%d", i+1))
		b.fail("keys site", notify.Lasts)
		b.expect()
		b.clock.advance(5 * time.Minute)
	}
}

// TestRestarts: an agent that starts again and again says the same thing once, and
// what ended while it was away is told once.
func TestRestarts(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		b.start()
		b.fail("etc", notify.Again)
		b.fail("vm1", notify.Lasts)
		if i == 0 {
			b.expect("failure etc x1", "failure vm1 x1")
		} else {
			b.expect()
		}
		if f := b.Faults(); !slices.Equal(f, []string{"etc", "vm1"}) {
			t.Errorf("start %d: faults %q", i, f)
		}
		b.stop()
		b.clock.advance(time.Minute)
	}
	b.start()
	b.well("etc")
	b.expect("recovery etc x20")
	b.clock.advance(24 * time.Hour)
	b.expect("failure vm1 x1")
}

// TestKilled: what was told is written down at once, and not at the end.
func TestKilled(t *testing.T) {
	b := newBench(t)
	b.start()
	b.fail("etc", notify.Again)
	b.expect("failure etc x1")
	late := time.After(20 * time.Second)
	for { // until it is on disk
		raw, err := os.ReadFile(b.path)
		if err == nil && strings.Contains(string(raw), `"told":{"hook":{`) {
			break
		}
		select {
		case <-late:
			t.Fatalf("what was told is not on disk: %s, %v", raw, err)
		case <-time.After(time.Millisecond):
		}
	}
	left, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	if err := os.WriteFile(b.path, left, 0o600); err != nil { // as kill -9 leaves it
		t.Fatal(err)
	}
	b.start()
	b.fail("etc", notify.Lasts)
	b.expect()
}

// TestBrokenState: a file that cannot be read is no reason not to tell.
func TestBrokenState(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2,"faults":{}}`, `{"version":1,"faults":{"a":null}}`, `{"version":1}`, "\x00\x00"} {
		b := newBench(t)
		if err := os.WriteFile(b.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b.start()
		b.fail("etc", notify.Again)
		b.expect("failure etc x1")
		if warned := strings.Contains(b.log.String(), "what was told before is not known"); warned == (text == `{"version":1}`) {
			t.Errorf("%q: log: %s", text, b.log)
		}
	}
}

// TestChannelDown: a channel that fails is tried again, later each time; what is over
// by then is not told, what is not is; the other channels hear that it is sick.
func TestChannelDown(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	channels := *b.channels.Load()
	channels["file"] = config.Notify{Command: []string{"/bin/sh", "-c", `cat >>"$0"`, filepath.Join(dir, "out")}, Body: "{{.Kind}} {{.Subject}}\n"}
	b.use(channels)
	b.answer.Store(http.StatusServiceUnavailable)
	b.start()
	b.fail("etc", notify.Again)
	b.fail("gone", notify.Again)
	told := func() string {
		text, _ := os.ReadFile(filepath.Join(dir, "out"))
		return string(text)
	}
	b.until(func() bool { return b.channel("hook").Failures == 1 && strings.Contains(told(), "failure gone\n") })
	b.well("gone")
	b.until(func() bool {
		b.clock.advance(time.Second)
		return b.channel("hook").Failures == 5
	})
	for _, wait := range []string{"20s", "40s", "1m20s", "2m40s", "5m20s"} {
		if !strings.Contains(b.log.String(), "wait="+wait+" ") {
			t.Errorf("no wait of %s in %s", wait, b.log)
		}
	}
	if c := b.channel("hook"); c.Failing != newClock().now || !strings.Contains(c.Error, "503") {
		t.Errorf("%+v", c)
	}
	if f := b.Faults(); !slices.Contains(f, "notify hook") {
		t.Errorf("faults %q", f)
	}
	b.answer.Store(http.StatusOK)
	b.clock.advance(15 * time.Minute)
	b.expect("failure etc x1")
	if c := b.channel("hook"); c.Error != "" || !c.Failing.IsZero() || c.Sent == 0 {
		t.Errorf("%+v", c)
	}
	want := "failure etc\nfailure gone\nrecovery gone\nalarm notify hook\nrecovery notify hook\n"
	b.until(func() bool { return len(told()) == len(want) })
	for line := range strings.Lines(want) {
		if !strings.Contains(told(), line) {
			t.Errorf("the other channel was told %q, without %q", told(), line)
		}
	}
}

// TestFlapping: what comes and goes is told later and later.
func TestFlapping(t *testing.T) {
	b := newBench(t)
	b.start()
	notices := 0
	for range 24 * 60 / 2 { // a day, up and down each minute
		b.fail("store site", notify.Lasts)
		notices += len(b.told())
		b.clock.advance(time.Minute)
		b.well("store site")
		notices += len(b.told())
		b.clock.advance(time.Minute)
	}
	if notices < 2 || notices > 24 {
		t.Errorf("%d notices of a fault that came and went 720 times in a day", notices)
	}
	b.clock.advance(25 * time.Hour)
	b.expect()
	b.fail("store site", notify.Lasts)
	b.expect("failure store site x1")
}

// TestClockJumps: a clock that is put back or forward neither hides a fault nor tells
// it again and again.
func TestClockJumps(t *testing.T) {
	b := newBench(t)
	b.start()
	b.fail("etc", notify.Again)
	b.expect("failure etc x1")
	b.clock.advance(-48 * time.Hour)
	b.fail("etc", notify.Again)
	b.expect()
	b.clock.advance(24 * time.Hour)
	b.expect("failure etc x2")
	b.clock.advance(365 * 24 * time.Hour)
	b.expect("failure etc x2")
	b.expect()
	b.well("etc")
	b.clock.advance(-365 * 24 * time.Hour)
	b.expect("recovery etc x2")
}

// TestWants: a channel is told what it asks for, of the items that it is about.
func TestWants(t *testing.T) {
	b := newBench(t)
	hook := (*b.channels.Load())["hook"]
	hook.On, hook.Items = []string{"alarm", "success"}, []string{"vm1"}
	b.use(map[string]config.Notify{"hook": hook})
	b.start()
	mark := func() {
		t.Helper()
		b.Tell(message.Notice{Kind: message.Success, Subject: "done", Item: "vm1"})
		select {
		case m := <-b.got:
			if m.Subject != "done" {
				t.Errorf("told %+v", m)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("not told")
		}
	}
	b.Report(notify.Report{About: "a", Notice: message.Notice{Kind: message.Failure, Subject: "a", Item: "vm1"}})
	b.Report(notify.Report{About: "b", Notice: message.Notice{Kind: message.Alarm, Subject: "b", Item: "etc"}})
	b.Report(notify.Report{About: "c", Notice: message.Notice{Kind: message.Alarm, Subject: "c"}})
	b.Tell(message.Notice{Kind: message.Success, Subject: "other", Item: "etc"})
	mark()
	b.Report(notify.Report{About: "d", Notice: message.Notice{Kind: message.Alarm, Subject: "d", Item: "vm1"}})
	if m := <-b.got; m.Subject != "d" || m.Host != "web1" {
		t.Errorf("told %+v", m)
	}
	b.well("d")
	mark()
}

// TestStorm: many faults at once are told in one notice, and none is lost.
func TestStorm(t *testing.T) {
	b := newBench(t)
	b.answer.Store(http.StatusBadGateway)
	b.start()
	for i := range 1200 {
		b.fail(fmt.Sprintf("item %04d", i), notify.Again)
	}
	b.until(func() bool { return b.channel("hook").Failures > 0 })
	b.answer.Store(http.StatusOK)
	b.clock.advance(time.Hour)
	b.expect("alarm 1000 things are wrong, 0 are well again x1000")
	if len(b.Faults()) != 1000 || !strings.Contains(b.log.String(), "too many faults") {
		t.Errorf("%d faults are kept", len(b.Faults()))
	}
	for i := range 1000 {
		b.well(fmt.Sprintf("item %04d", i))
	}
	b.Tell(message.Notice{Kind: message.Success, Subject: "mark"})
	told := 0
	for m := range b.got {
		if m.Subject == "mark" {
			break
		}
		told += max(1, strings.Count(m.Message, "\n")) // the digest has 50 lines and one that counts the rest
	}
	if told == 0 || told > 200 {
		t.Errorf("%d lines for 1000 recoveries", told)
	}
	b.fail("item 1100", notify.Again)
	b.expect("failure item 1100 x1")
}

// TestNeverBlocks: who reports does not wait for a channel that hangs, or that nobody
// serves.
func TestNeverBlocks(t *testing.T) {
	b := newBench(t)
	hanging := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hanging)
	channels := *b.channels.Load()
	channels["slow"] = config.Notify{Webhook: &config.Webhook{URL: server.URL}, On: everything()}
	channels["ping"] = config.Notify{Ping: &config.Ping{URL: server.URL}}
	b.use(channels)
	b.start()
	begun := time.Now()
	for i := range 10000 {
		b.fail(fmt.Sprint(i%100), notify.Again)
		b.Tell(message.Notice{Kind: message.Success, Subject: "done"})
		b.Ping("etc", notify.Started)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("10000 reports took %s", took)
	}
	b.until(func() bool { return b.channel("hook").Sent > 0 }) // the other goes on
	b.stop()                                                   // and nothing keeps the agent from stopping
}
