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
	mount := small(t, "128k")
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

// small mounts a small file system in memory and returns where.
func small(t *testing.T, size string) string {
	t.Helper()
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size="+size); err != nil {
		testkit.Missing(t, "a small file system", "mount tmpfs: "+err.Error()+": run as root")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	return mount
}

// fill writes to a file until its file system has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the file system: %v", err)
	}
}

// TestRoomIsKept: on a disk that has filled up two thousand events are still recorded,
// over a restart and the size at which a file is sealed; then Record refuses, and with
// space all is as before.
func TestRoomIsKept(t *testing.T) {
	mount := small(t, "4m")
	dir, filler := filepath.Join(mount, "audit"), filepath.Join(mount, "filler")
	cfg := audit.Config{Dir: dir, MaxSize: 1 << 20, Clock: clock()}
	l, err := audit.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	record(t, l, 0, 700) // the file is to be sealed when the disk is full
	fill(t, filler)
	record(t, l, 700, 1500)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fill(t, filler+"2") // whatever the end of the log gave back
	if l, err = audit.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer func() { l.Close() }() // before the file system goes
	record(t, l, 1500, 2000)
	told := 2000
	for ; err == nil; told++ {
		err = l.Record(t.Context(), event(told))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("without any room Record = %v", err)
	}
	t.Logf("%d events were recorded on a full disk", told-1-700)
	if err := errors.Join(os.Remove(filler), os.Remove(filler+"2")); err != nil {
		t.Fatal(err)
	}
	record(t, l, told, told+10)
	if r := whole(t, dir); r.Files < 2 {
		t.Errorf("with room again there are %d files: the full one was not sealed", r.Files)
	}
	seen := make(map[int64]bool)
	for _, line := range read(t, dir) {
		seen[line.Job] = true
	}
	for n := range told - 1 {
		if !seen[int64(n)] {
			t.Fatalf("event %d was told to be written and is not there", n)
		}
	}
}
