package audit_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
)

// TestDaily: what somebody changed is found within a day, and so is that it was put back;
// a look that was broken off is none.
func TestDaily(t *testing.T) {
	dir := t.TempDir()
	l := open(t, audit.Config{Dir: dir})
	record(t, l, 0, 10)
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	d := audit.NewDaily(l, func() time.Time { return now })
	path := files(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, step := range []struct {
		name    string
		ctx     context.Context
		after   time.Duration
		text    []byte
		faulted bool
	}{
		{"at first", t.Context(), 0, whole, false},
		{"changed, and not looked at yet", t.Context(), 23 * time.Hour, bytes.Replace(whole, []byte("item3"), []byte("item8"), 1), false},
		{"changed, and broken off", gone, time.Hour, nil, false},
		{"changed", t.Context(), 0, nil, true},
		{"put back, and not looked at yet", t.Context(), time.Hour, whole, true},
		{"put back, and the clock too", t.Context(), -48 * time.Hour, nil, false},
	} {
		if now = now.Add(step.after); step.text != nil {
			write(step.text)
		}
		d.Look(step.ctx)
		if err := d.Fault(); (err != nil) != step.faulted || err != nil && !strings.Contains(err.Error(), "line 6") {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}
