package audit_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/audit"
)

// evidence is a log as lines of files, to be changed and laid out again.
type evidence struct {
	dir   string
	names []string
	lines [][][]byte // of each file, with newlines
}

// seized makes a log of 200 lines or so in several files.
func seized(t *testing.T) *evidence {
	t.Helper()
	e := &evidence{dir: t.TempDir()}
	made(t, audit.Config{Dir: e.dir, MaxSize: 10_000}, 190)
	for _, path := range files(t, e.dir) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		e.names = append(e.names, filepath.Base(path))
		e.lines = append(e.lines, slices.Collect(bytes.Lines(raw)))
	}
	if len(e.names) < 4 {
		t.Fatalf("the log has only %d files", len(e.names))
	}
	return e
}

// with calls do for a log in which the nth file has other lines.
func (e *evidence) with(t *testing.T, file int, lines [][]byte, do func()) {
	t.Helper()
	path := filepath.Join(e.dir, e.names[file])
	for _, text := range [][]byte{bytes.Join(lines, nil), bytes.Join(e.lines[file], nil)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if do != nil {
			do()
		}
		do = nil
	}
}

// found tells whether a report has its first fault at line i of file f, or at what
// comes just after it.
func (e *evidence) found(r audit.Report, f, i int) bool {
	if len(r.Faults) == 0 {
		return false
	}
	fault := r.Faults[0]
	at := slices.Index(e.names, fault.File)
	switch {
	case fault.File == "head":
		return f == len(e.names)-1 && i >= len(e.lines[f])-2
	case at == f:
		return fault.Line == 0 && i >= len(e.lines[f])-2 || fault.Line >= int64(i) && fault.Line <= int64(i)+2
	}
	return at == f+1 && fault.Line == 1 && i >= len(e.lines[f])-2
}

// TestTampering: every line of a log of 200, changed, removed, exchanged with the
// next, and put in twice, is found, and where.
func TestTampering(t *testing.T) {
	e := seized(t)
	random := rand.New(rand.NewPCG(3, 4))
	count := 0
	for f, lines := range e.lines {
		for i, line := range lines {
			try := func(what string, changed [][]byte) {
				e.with(t, f, changed, func() {
					count++
					if r := verify(t, e.dir); !e.found(r, f, i) {
						t.Errorf("%s line %d %s: faults are %v", e.names[f], i+1, what, r.Faults)
					}
				})
			}
			for range 2 {
				flipped := bytes.Clone(line)
				flipped[random.IntN(len(line))] ^= 1 << random.IntN(8)
				try("with a bit flipped", slices.Replace(slices.Clone(lines), i, i+1, flipped))
			}
			end := bytes.Clone(line)
			end[len(end)-1] = ' '
			try("without a newline", slices.Replace(slices.Clone(lines), i, i+1, end))
			try("removed", slices.Delete(slices.Clone(lines), i, i+1))
			try("twice", slices.Insert(slices.Clone(lines), i, line))
			try("after an empty line", slices.Insert(slices.Clone(lines), i, []byte("\n")))
			if i+1 < len(lines) {
				swapped := slices.Clone(lines)
				swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
				try("exchanged with the next", swapped)
			}
		}
	}
	if count < 1200 {
		t.Errorf("only %d changes were tried", count)
	}
	whole(t, e.dir)
}

// TestTruncated: a log that ends early, between lines or inside one, is found.
func TestTruncated(t *testing.T) {
	e := seized(t)
	last := len(e.names) - 1
	text := bytes.Join(e.lines[last], nil)
	for size := range text {
		if size < len(text)-600 && size%41 != 0 {
			continue // every byte of the last two lines, and some before
		}
		e.with(t, last, [][]byte{text[:size]}, func() {
			if r := verify(t, e.dir); len(r.Faults) == 0 {
				t.Errorf("cut to %d bytes of %d: no fault", size, len(text))
			}
		})
	}
}

// TestFilesGone: a file that is removed, exchanged, emptied or renamed is found, and
// so is a head file that is gone, old or changed.
func TestFilesGone(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(dir string) error
		want string
	}{
		"the first removed":  {func(dir string) error { return os.Remove(filepath.Join(dir, "000001.jsonl")) }, "000002.jsonl: files before it are missing"},
		"a middle removed":   {func(dir string) error { return os.Remove(filepath.Join(dir, "000002.jsonl")) }, "000003.jsonl: files before it are missing"},
		"the last removed":   {func(dir string) error { return os.Remove(newest(dir)) }, "head: the log ended with line"},
		"one emptied":        {func(dir string) error { return os.Truncate(filepath.Join(dir, "000002.jsonl"), 0) }, "000002.jsonl: it is empty"},
		"the last two gone":  {func(dir string) error { return removeLast(dir, 2) }, "lines at the end are missing"},
		"two exchanged":      {exchange, "000001.jsonl line 1"},
		"the head removed":   {func(dir string) error { return os.Remove(filepath.Join(dir, "head")) }, "head: the head file is missing"},
		"the head emptied":   {func(dir string) error { return os.Truncate(filepath.Join(dir, "head"), 0) }, "head: the head file is damaged"},
		"the head is a list": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "head"), []byte("[]\n"), 0o600) }, "damaged"},
		"all removed but the head": {func(dir string) error {
			return removeLast(dir, 99)
		}, "now ends with line 0"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			made(t, audit.Config{Dir: dir, MaxSize: 2000}, 40)
			if err := change.do(dir); err != nil {
				t.Fatal(err)
			}
			faults := verify(t, dir).Faults
			if len(faults) == 0 || !slices.ContainsFunc(faults, func(f audit.Fault) bool { return strings.Contains(f.String(), change.want) }) {
				t.Errorf("faults are %v", faults)
			}

			// Whoever opens it then is told, can go on, and the fault stays to be seen.
			l := open(t, audit.Config{Dir: dir, MaxSize: 2000})
			record(t, l, 100, 120)
			faults = verify(t, dir).Faults
			if len(faults) == 0 {
				t.Error("opening the log hid the fault")
			}
			head := name == "the last removed" || name == "the last two gone" || name == "the head removed" || name == "all removed but the head"
			told := slices.ContainsFunc(read(t, dir), func(l audit.Line) bool { return l.Kind == audit.LogBroken })
			if head && !told {
				t.Errorf("no line tells that the log was broken")
			}
		})
	}
}

// TestHeadFlipped: no bit of the head file can be another.
func TestHeadFlipped(t *testing.T) {
	dir := t.TempDir()
	made(t, audit.Config{Dir: dir}, 3)
	path := filepath.Join(dir, "head")
	head, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(head) * 8 {
		flipped := bytes.Clone(head)
		flipped[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, dir); len(r.Faults) == 0 {
			t.Errorf("a head file of %q: no fault", flipped)
		}
	}
}

func newest(dir string) string {
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(paths) == 0 {
		panic("there is no file")
	}
	return paths[len(paths)-1]
}

func removeLast(dir string, n int) error {
	for range n {
		if paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl")); err != nil || len(paths) == 0 {
			return err
		}
		if err := os.Remove(newest(dir)); err != nil {
			return err
		}
	}
	return nil
}

func exchange(dir string) error {
	one, two, aside := filepath.Join(dir, "000001.jsonl"), filepath.Join(dir, "000002.jsonl"), filepath.Join(dir, "aside")
	for _, move := range [][2]string{{one, aside}, {two, one}, {aside, two}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			return err
		}
	}
	return nil
}

// TestManyFaults: a log that is all wrong is reported in bounded memory.
func TestManyFaults(t *testing.T) {
	dir := t.TempDir()
	made(t, audit.Config{Dir: dir}, 1)
	if err := os.WriteFile(filepath.Join(dir, "000001.jsonl"), bytes.Repeat([]byte("{}\n"), 500), 0o600); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir)
	if len(r.Faults) != 100 || r.More != 401 || r.Lines != 500 {
		t.Errorf("%d faults and %d more, in %d lines", len(r.Faults), r.More, r.Lines)
	}
}
