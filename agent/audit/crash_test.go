package audit_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/audit"
)

// The ways in which a write can go wrong.
const (
	notApplied = iota
	halfApplied
	applied
	ways
)

var errFault = errors.New("fault")

// quick is a disk that waits for nothing.
type quick struct{ audit.OSDisk }

func (quick) Replace(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (d quick) Update(path string, data []byte) error { return d.Replace(path, data) }

func (d quick) Open(path string) (audit.File, error) {
	f, err := d.OSDisk.Open(path)
	if err != nil {
		return nil, err
	}
	return quickFile{f}, nil
}

type quickFile struct{ audit.File }

func (quickFile) Sync() error { return nil }

// faulty is a disk that does the nth thing wrongly. If it stays down, as in a crash,
// nothing is done after that.
type faulty struct {
	quick
	at, way  int
	stayDown bool
	err      error
	done     int // things so far
}

// do does a thing unless it is its turn to go wrong.
func (d *faulty) do(whole, half func() error) error {
	d.done++
	if d.done < d.at || d.done > d.at && !d.stayDown {
		return whole()
	}
	if d.done == d.at && d.way == applied {
		if err := whole(); err != nil {
			return err
		}
	}
	if d.done == d.at && d.way == halfApplied && half != nil {
		if err := half(); err != nil {
			return err
		}
	}
	return d.err
}

// Replace is atomic: half of it is none of it.
func (d *faulty) Replace(path string, data []byte) error {
	return d.do(func() error { return d.quick.Replace(path, data) }, nil)
}

// Update is as atomic.
func (d *faulty) Update(path string, data []byte) error { return d.Replace(path, data) }

func (d *faulty) Seal(path string) error {
	return d.do(func() error { return d.quick.Seal(path) }, nil)
}

func (d *faulty) Open(path string) (f audit.File, err error) {
	err = d.do(func() error {
		f, err = d.quick.Open(path)
		return err
	}, nil)
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	if err != nil {
		return nil, err
	}
	return faultyFile{f, d}, nil
}

type faultyFile struct {
	audit.File
	d *faulty
}

func (f faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.d.do(func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	}, func() error {
		n, err = f.File.WriteAt(p[:len(p)/2], off)
		return err
	})
	return n, err
}

func (f faultyFile) Sync() error { return f.d.do(f.File.Sync, nil) }
func (f faultyFile) Truncate(size int64) error {
	return f.d.do(func() error { return f.File.Truncate(size) }, nil)
}

// TestCrash: whatever is cut short, in a run with rotations or in the opening after
// it, what was told to be written is there once and in order, the log is whole, and
// it goes on.
func TestCrash(t *testing.T) {
	const events = 10
	for way := range ways {
		for at := 1; ; at++ {
			dir := t.TempDir()
			d := &faulty{at: at, way: way, stayDown: true, err: errFault}
			told := 0
			if l, err := audit.OpenOn(d, audit.Config{Dir: dir, MaxSize: 1500, Clock: clock()}); err == nil {
				for told < events && l.Record(t.Context(), event(told)) == nil {
					told++
				}
				crash(l)
			}
			if d.done < at {
				if at < 30 {
					t.Fatalf("there were only %d things to go wrong", d.done)
				}
				break
			}
			where := fmt.Sprintf("%d things done, the last one %d", at, way)
			for again := 1; again < 12; again++ {
				again := &faulty{at: again, way: way, stayDown: true, err: errFault}
				l, err := audit.OpenOn(again, audit.Config{Dir: dir, MaxSize: 1500, Clock: clock()})
				if err == nil {
					crash(l)
					break
				}
			}
			checkAfter(t, dir, told, where)
		}
	}
}

// crash ends a process that has a log open: nothing is flushed, the lock is free.
func crash(l *audit.Log) { _ = l.Close() }

// checkAfter checks a log after a crash, of which that many events were told to be
// written, and goes on with it.
func checkAfter(t *testing.T, dir string, told int, where string) {
	t.Helper()
	l, err := audit.OpenOn(quick{}, audit.Config{Dir: dir, MaxSize: 1500, Clock: clock()})
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	record(t, l, 1000, 1012)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir)
	if len(r.Faults) > 0 || r.Torn != 0 {
		t.Fatalf("%s: faults are %v", where, r.Faults)
	}
	var jobs []int64
	repairs := ""
	for _, line := range read(t, dir) {
		switch line.Kind {
		case audit.KeyUnwrapped:
			jobs = append(jobs, line.Job)
		case audit.LogRepaired:
			repairs += " " + line.Fields["aside"]
		}
	}
	if len(jobs) < told+12 || len(jobs) > told+13 {
		t.Fatalf("%s: %d events were told to be written and 12 after it, there are %v", where, told, jobs)
	}
	for i, job := range jobs[:len(jobs)-12] {
		if job != int64(i) {
			t.Fatalf("%s: events are %v", where, jobs)
		}
	}
	// What was moved aside is named in the log.
	torn, err := filepath.Glob(filepath.Join(dir, "*.torn"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range torn {
		if !slices.Contains(strings.Fields(repairs), filepath.Base(path)) {
			t.Fatalf("%s: %s was moved aside, and repairs name %q", where, filepath.Base(path), repairs)
		}
	}
}

// TestFull: whichever write fails once, for want of space, Record says so, nothing is
// lost, and the next one is written as if nothing had been.
func TestFull(t *testing.T) {
	for way := range ways {
		for at := 4; ; at++ {
			dir := t.TempDir()
			d := &faulty{at: at, way: way, err: syscall.ENOSPC}
			l, err := audit.OpenOn(d, audit.Config{Dir: dir, MaxSize: 1500, Clock: clock()})
			if err != nil {
				t.Fatal(err)
			}
			var refused []int
			for n := range 14 {
				if err := l.Record(t.Context(), event(n)); err != nil {
					if !errors.Is(err, syscall.ENOSPC) {
						t.Fatalf("the error is %v", err)
					}
					refused = append(refused, n)
				} else if r := verifyFrom(t, dir, d.done >= at); len(r.Faults) > 0 || r.Torn > 0 {
					t.Fatalf("%d things done, the last one %d: after event %d faults are %v", at, way, n, r.Faults)
				}
			}
			if len(refused) > 1 {
				t.Fatalf("events %v were refused, and one write failed", refused)
			}
			if err := l.Close(); err != nil && d.done < at {
				t.Fatal(err)
			}
			whole(t, dir)
			there := make(map[int64]bool)
			for _, line := range read(t, dir) {
				there[line.Job] = true
			}
			for n := range 14 {
				if !there[int64(n)] && !slices.Contains(refused, n) {
					t.Fatalf("%d things done, the last one %d: event %d is not there", at, way, n)
				}
			}
			if d.done < at {
				break
			}
		}
	}
}

// verifyFrom verifies a log once there is something to find.
func verifyFrom(t *testing.T, dir string, begun bool) audit.Report {
	t.Helper()
	if !begun {
		return audit.Report{}
	}
	return verify(t, dir)
}

// TestTorn: what was torn is moved aside, byte for byte, and a line names it.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	made(t, audit.Config{Dir: dir}, 3)
	path := filepath.Join(dir, "000001.jsonl")
	for _, torn := range []string{`{"seq":5,"prev":"ab`, "\x00\x00\x00", "\x00\n{}\nhalf", "\n"} {
		before := whole(t, dir)
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(torn); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, dir); !strings.Contains(torn, "\n") && (len(r.Faults) > 0 || r.Torn != int64(len(torn))) {
			t.Errorf("before the repair of %q: %+v", torn, r)
		}
		made(t, audit.Config{Dir: dir}, 1)
		after := whole(t, dir)
		if after.Repairs != before.Repairs+1 || after.Lines != before.Lines+2 {
			t.Errorf("after the repair of %q: %+v, before it %+v", torn, after, before)
		}
		all := read(t, dir)
		repaired := all[len(all)-2]
		aside, err := os.ReadFile(filepath.Join(dir, repaired.Fields["aside"]))
		if err != nil || string(aside) != torn {
			t.Errorf("aside is %q, %v; want %q", aside, err, torn)
		}
	}
}
