package audit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// TestFullDisk: on a file system without space Record refuses, what was told to be
// written stays, and with space it goes on.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=128k"); err != nil {
		testkit.Missing(t, "a small file system", "mount tmpfs: "+err.Error()+": run as root")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	dir, filler := filepath.Join(mount, "audit"), filepath.Join(mount, "filler")
	l, err := audit.Open(audit.Config{Dir: dir, MaxSize: 8000, Clock: clock()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // before the file system goes
	record(t, l, 0, 20)
	if err := os.WriteFile(filler, make([]byte, 256<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the file system: %v", err)
	}
	told, refused := 20, 0
	for range 100 {
		switch err := l.Record(context.Background(), event(told)); {
		case err == nil && refused == 0:
			told++
		case errors.Is(err, unix.ENOSPC):
			refused++
		case err != nil:
			t.Fatalf("Record = %v", err)
		}
	}
	if refused == 0 {
		t.Fatal("every event was taken")
	}
	if r := whole(t, dir); r.Torn != 0 {
		t.Errorf("%d bytes are torn", r.Torn)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	record(t, l, 1000, 1010)
	whole(t, dir)
	there := make(map[int64]bool)
	for _, line := range read(t, dir) {
		there[line.Job] = true
	}
	for n := range told {
		if !there[int64(n)] {
			t.Errorf("event %d was told to be written and is not there", n)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
