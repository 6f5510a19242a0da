//go:build unix

package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
)

// listen is a system's log.
func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// TestSyslog: each line of the log is a message; a system's log that is gone is an
// alarm and loses no line of ours, and one that is back is used again.
func TestSyslog(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "log")
	sink := audit.SyslogAt(filepath.Join(dir, "none"), path)
	var alarms bytes.Buffer
	conn := listen(t, path)
	l := open(t, audit.Config{Dir: dir, Sinks: []audit.Sink{sink}, Log: slog.New(slog.NewTextHandler(&alarms, nil))})
	record(t, l, 0, 1)
	prefix := fmt.Sprintf("<85>%s[%d]: {", filepath.Base(os.Args[0]), os.Getpid())
	for _, kind := range []string{"log.opened", "key.unwrapped"} {
		if got := receive(t, conn); !strings.HasPrefix(got, prefix) || !strings.Contains(got, `"kind":"`+kind+`"`) || !strings.HasSuffix(got, "}") {
			t.Errorf("message is %q, want %s of kind %s", got, prefix, kind)
		}
	}
	if alarms.Len() > 0 {
		t.Errorf("alarms while all is well: %s", &alarms)
	}

	conn.Close()
	os.Remove(path)
	record(t, l, 1, 4)
	if got := alarms.String(); strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, "sink of the audit log fails") {
		t.Errorf("alarms of a system's log that is gone: %s", got)
	}
	conn = listen(t, path)
	record(t, l, 4, 5)
	if got := receive(t, conn); !strings.Contains(got, `"item":"item4"`) {
		t.Errorf("message is %q", got)
	}
	if got := alarms.String(); !strings.Contains(got, "works again") || !strings.Contains(got, "lost=3") {
		t.Errorf("alarms of a system's log that is back: %s", got)
	}
	if r := whole(t, dir); r.Lines != 6 {
		t.Errorf("%d lines in the file, want 6", r.Lines)
	}
}

// TestSyslogRestarted: a listener that was exchanged between two lines loses none.
func TestSyslogRestarted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	sink := audit.SyslogAt(path)
	for n := range 3 {
		conn := listen(t, path)
		if err := sink.Send(fmt.Appendf(nil, "line %d", n)); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, conn); !strings.HasSuffix(got, fmt.Sprintf(": line %d", n)) {
			t.Errorf("message is %q", got)
		}
		conn.Close()
		os.Remove(path)
	}
}

// TestSyslogStuck: a listener that takes nothing does not stop the log.
func TestSyslogStuck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listen(t, path)
	sink := audit.SyslogAt(path)
	line := make([]byte, 4096)
	for range 10_000 {
		err := sink.Send(line)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("10,000 messages that nobody read were taken")
}
