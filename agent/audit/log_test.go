package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/internal/durable"
)

// clock returns a clock that goes a second each time it is read.
func clock() func() time.Time {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func open(t testing.TB, cfg audit.Config) *audit.Log {
	t.Helper()
	if cfg.Clock == nil {
		cfg.Clock = clock()
	}
	l, err := audit.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func event(n int) audit.Event {
	return audit.Event{Kind: audit.KeyUnwrapped, Vault: "site", Item: fmt.Sprintf("item%d", n), Key: "main", Outcome: "opened", Job: int64(n)}
}

func record(t testing.TB, l *audit.Log, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := l.Record(t.Context(), event(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// made makes a log of that many events and closes it.
func made(t testing.TB, cfg audit.Config, events int) {
	t.Helper()
	l := open(t, cfg)
	record(t, l, 0, events)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, dir string) audit.Report {
	t.Helper()
	r, err := audit.Verify(t.Context(), dir, audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// whole verifies a log that must be whole.
func whole(t testing.TB, dir string) audit.Report {
	t.Helper()
	r := verify(t, dir)
	if len(r.Faults) > 0 {
		t.Fatalf("faults of a log that nobody touched: %v", r.Faults)
	}
	return r
}

// read returns all lines of a log in order.
func read(t testing.TB, dir string) []audit.Line {
	t.Helper()
	var out []audit.Line
	for _, path := range files(t, dir) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(string(raw)) {
			line, err := audit.Decode([]byte(strings.TrimSuffix(text, "\n")))
			if err != nil {
				t.Fatalf("%s: %v: %q", path, err, text)
			}
			out = append(out, line)
		}
	}
	return out
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestRecord: the bytes of a log are those that are documented.
func TestRecord(t *testing.T) {
	dir := t.TempDir()
	l := open(t, audit.Config{Dir: dir})
	err := l.Record(t.Context(), audit.Event{
		Kind: audit.KeyRefused, Vault: "site", Item: "etc", Point: "p1", Key: "main", Fingerprint: "ab12", By: "root <0>", Outcome: "not opened",
		Says: "key provider refuses: \"PIN\" & more\n", Job: 118, Fields: map[string]string{"b": "2", "a": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	want := `^\{"seq":1,"prev":"0{64}","time":"2026-11-22T09:00:01Z","kind":"log.opened"\}
\{"seq":2,"prev":"[0-9a-f]{64}","time":"2026-11-22T09:00:02Z","kind":"key.refused","vault":"site","item":"etc","point":"p1","key":"main","fingerprint":"ab12","by":"root <0>","outcome":"not opened","says":"key provider refuses: \\"PIN\\" & more\\n","job":118,"fields":\{"a":"1","b":"2"\}\}
$`
	if !regexp.MustCompile(want).Match(raw) {
		t.Errorf("the file is\n%s", raw)
	}
	r := whole(t, dir)
	seq, hash := l.Head()
	if r.Lines != 2 || r.Seq != seq || seq != 2 || r.Head != hash || !r.First.Equal(clock()()) || r.Last.Sub(r.First) != time.Second || r.Files != 1 {
		t.Errorf("report is %+v, head %d %s", r, seq, hash)
	}
	for _, path := range []string{"000001.jsonl", "head"} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
}

// TestReopen: the chain goes on over restarts, and each hash noted on the way is
// found later.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	var noted []string
	for n := range 5 {
		l := open(t, audit.Config{Dir: dir, MaxSize: 1000})
		record(t, l, n, n+3)
		_, hash := l.Head()
		noted = append(noted, hash)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if r := whole(t, dir); r.Files < 3 || r.Repairs != 0 {
		t.Errorf("report is %+v", r)
	}
	for _, hash := range append(noted, strings.ToUpper(noted[0])) {
		if r, err := audit.Verify(t.Context(), dir, audit.Options{Head: hash}); err != nil || len(r.Faults) > 0 {
			t.Errorf("hash %s that was noted: %v, %v", hash, r.Faults, err)
		}
	}
	r, err := audit.Verify(t.Context(), dir, audit.Options{Head: strings.Repeat("ab", 32)})
	if err != nil || len(r.Faults) != 1 || !strings.Contains(r.Faults[0].String(), "no line has the hash") {
		t.Errorf("a hash that was never there: %v, %v", r.Faults, err)
	}
	if _, err := audit.Verify(t.Context(), dir, audit.Options{Head: "abc"}); err == nil || !strings.Contains(err.Error(), "not a hash") {
		t.Errorf("what is not a hash: %v", err)
	}
}

// TestRotate: full files are sealed, read-only and linked, and nothing is lost.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	made(t, audit.Config{Dir: dir, MaxSize: 2000}, 100)
	r := whole(t, dir)
	if r.Files < 10 {
		t.Fatalf("%d files of 2000 bytes", r.Files)
	}
	paths := files(t, dir)
	jobs := int64(0)
	for _, line := range read(t, dir) {
		if line.Kind == audit.KeyUnwrapped {
			if line.Job != jobs {
				t.Fatalf("event %d comes at %d", line.Job, jobs)
			}
			jobs++
		}
	}
	if jobs != 100 {
		t.Errorf("%d events of 100", jobs)
	}
	for i, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if sealed := info.Mode().Perm()&0o222 == 0; sealed != (i < len(paths)-1) || info.Size() > 2400 {
			t.Errorf("%s: mode %v, %d bytes", path, info.Mode(), info.Size())
		}
	}
	raw, err := os.ReadFile(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	first, last := lines[0], lines[len(lines)-1]
	if !strings.Contains(first, `"kind":"log.opened"`) || !strings.Contains(first, `"after":"000001.jsonl"`) {
		t.Errorf("the second file begins with %s", first)
	}
	if !strings.Contains(last, `"kind":"log.sealed"`) || !strings.Contains(last, fmt.Sprintf(`"lines":"%d"`, len(lines)-1)) {
		t.Errorf("the second file of %d lines ends with %s", len(lines), last)
	}
}

// TestConcurrent: whoever records at once, each event is there once.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, audit.Config{Dir: dir, MaxSize: 4000, Clock: time.Now})
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 25 {
				if err := l.Record(context.Background(), event(100*n+i)); err != nil {
					t.Error(err)
				}
				l.Head()
			}
		})
	}
	all.Go(func() {
		for range 5 {
			// A log that is written to is whole at any moment.
			if r, err := audit.Verify(context.Background(), dir, audit.Options{}); err != nil || len(r.Faults) > 0 {
				t.Errorf("verify meanwhile: %v, %v", r.Faults, err)
			}
		}
	})
	all.Wait()
	whole(t, dir)
	seen := make(map[int64]bool)
	for _, line := range read(t, dir) {
		if line.Kind == audit.KeyUnwrapped {
			if seen[line.Job] {
				t.Errorf("event %d is there twice", line.Job)
			}
			seen[line.Job] = true
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d events of 200", len(seen))
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	l := open(t, audit.Config{Dir: dir})
	if _, err := audit.Open(audit.Config{Dir: dir}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	for _, e := range []audit.Event{
		{}, {Kind: "key"}, {Kind: "key."}, {Kind: "Key.opened"}, {Kind: audit.LogSealed}, {Kind: audit.LogOpened},
		{Kind: "key.x", Fields: map[string]string{"a": strings.Repeat("x", 70<<10)}},
	} {
		if err := l.Record(t.Context(), e); !errors.Is(err, audit.ErrEvent) {
			t.Errorf("event of kind %q: %v", e.Kind, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Record(ctx, event(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
	if err := l.Record(t.Context(), audit.Event{Kind: audit.KeyRefused, Says: strings.Repeat("ö", 70<<10), Vault: "\xff"}); err != nil {
		t.Errorf("a long text: %v", err)
	}
	if r := whole(t, dir); r.Lines != 2 {
		t.Errorf("%d lines, want the first and the long one", r.Lines)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Record(t.Context(), event(1)); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := audit.Verify(t.Context(), filepath.Join(dir, "none"), audit.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := audit.Verify(ctx, dir, audit.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("verify with a context that is done: %v", err)
	}
	if r := verify(t, t.TempDir()); len(r.Faults) != 1 {
		t.Errorf("an empty folder: %v", r.Faults)
	}
}

// TestMemory: a line of any length is passed over in bounded memory.
func TestMemory(t *testing.T) {
	dir := t.TempDir()
	made(t, audit.Config{Dir: dir}, 3)
	path := filepath.Join(dir, "000001.jsonl")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for range 64 {
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := verify(t, dir)
	runtime.ReadMemStats(&after)
	if len(r.Faults) != 1 || !strings.Contains(r.Faults[0].String(), "000001.jsonl line 5: it has 67108865 bytes") {
		t.Errorf("faults are %v", r.Faults)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
}
