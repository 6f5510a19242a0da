package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Options of Verify.
type Options struct {
	// Head is a hash that was noted earlier, as Log.Head or a Report gave it. It must
	// be that of a line of the log. "" asks for nothing.
	Head string
}

// Report is what Verify found. Without Faults the log is whole.
type Report struct {
	Files   int
	Lines   int64
	First   time.Time // of the first line
	Last    time.Time // of the last
	Seq     int64     // of the last
	Head    string    // its hash: to be noted elsewhere
	Repairs int       // lines that say that a crash was mended
	// Torn is how many bytes follow the last line. They are being written, or a crash
	// left them and the next start moves them aside.
	Torn   int64
	Faults []Fault // the first hundred
	More   int     // faults beyond those
}

// Fault is a place where the log is not what was written.
type Fault struct {
	File string
	Line int64 // in the file, from 1; 0: the file as a whole
	Says string
}

func (f Fault) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Says
	}
	return fmt.Sprintf("%s line %d: %s", f.File, f.Line, f.Says)
}

const maxFaults = 100

// Verify reads the log in a folder from end to end, in bounded memory, and checks its
// chain. What is wrong with the log is in the report; the error is one of reading it,
// or of ctx. The log may be written to meanwhile.
func Verify(ctx context.Context, dir string, o Options) (Report, error) {
	v := verifier{noted: strings.ToLower(o.Head), hash: origin}
	if v.noted != "" && !isHash(v.noted) {
		return Report{}, fmt.Errorf("verify the audit log: %q is not a hash: give all 64 digits of the one that was noted", o.Head)
	}
	// The head file is read first: lines that are written from here on come after it.
	var broken error
	v.head, broken = readHead(dir)
	files, err := listFiles(dir)
	if err != nil {
		return Report{}, err
	}
	for i, n := range files {
		if i == 0 && n != 1 || i > 0 && n != files[i-1]+1 {
			v.fault(fileName(n), 0, "files before it are missing")
		}
		if err := v.file(ctx, dir, n, i == len(files)-1); err != nil {
			return Report{}, fmt.Errorf("verify the audit log: %w", err)
		}
	}
	v.ending(broken)
	return v.report, nil
}

type verifier struct {
	head  mark
	noted string

	report Report
	seq    int64  // of the last line
	hash   string // of the last line
	headAt bool   // the line that the head file names is there
	seen   bool   // the line that was noted is there
}

func (v *verifier) fault(file string, line int64, format string, args ...any) {
	if len(v.report.Faults) == maxFaults {
		v.report.More++
		return
	}
	v.report.Faults = append(v.report.Faults, Fault{File: file, Line: line, Says: fmt.Sprintf(format, args...)})
}

// file reads the nth file.
func (v *verifier) file(ctx context.Context, dir string, n int, newest bool) error {
	name := fileName(n)
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	v.report.Files++
	c := chapter{name: name, n: n}
	for in := newLines(f); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		t, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if !t.whole && newest && v.seq >= v.head.Seq && v.head.Seq > 0 {
			v.report.Torn = t.size
			break
		}
		v.line(&c, t)
	}
	switch {
	case c.lines == 0:
		v.fault(name, 0, "it is empty")
	case !newest && !c.sealed:
		v.fault(name, 0, "it does not end with a seal: lines at its end are missing")
	}
	return nil
}

// chapter is the file that is being read.
type chapter struct {
	name   string
	n      int
	lines  int64
	sealed bool
}

func (v *verifier) line(c *chapter, t text) {
	c.lines++
	v.report.Lines++
	if t.hash == v.noted {
		v.seen = true
	}
	line, err := t.decode()
	if err != nil {
		v.fault(c.name, c.lines, "%v", err)
		v.seq, v.hash = v.seq+1, t.hash
		return
	}
	v.chain(c, line)
	v.frame(c, line)
	if t.hash == v.head.Hash && line.Seq == v.head.Seq && c.name == v.head.File {
		v.headAt = true
	}
	switch line.Kind {
	case LogBroken:
		v.fault(c.name, c.lines, "when the log was opened at %s: %s", line.Time.Format(time.RFC3339), line.Says)
	case LogRepaired:
		v.report.Repairs++
	}
	if v.report.First.IsZero() {
		v.report.First = line.Time
	}
	v.report.Last = line.Time
	v.seq, v.hash = line.Seq, t.hash
}

// chain checks that a line follows on the one before.
func (v *verifier) chain(c *chapter, line Line) {
	want := v.seq + 1
	switch {
	case line.Seq > want:
		v.fault(c.name, c.lines, "it is line %d of the log: lines %d to %d are missing before it", line.Seq, want, line.Seq-1)
	case line.Seq < want:
		v.fault(c.name, c.lines, "it is line %d of the log, after line %d: it was inserted or moved", line.Seq, v.seq)
	case line.Prev != v.hash:
		v.fault(c.name, c.lines, "the line before it was changed or exchanged, or this one: it has another hash of it")
	}
}

// frame checks the lines that begin and end a file.
func (v *verifier) frame(c *chapter, line Line) {
	switch {
	case c.sealed:
		v.fault(c.name, c.lines, "it comes after the seal of the file")
	case (line.Kind == LogOpened) != (c.lines == 1):
		v.fault(c.name, c.lines, "it is of kind %s: the first line of a file, and no other, is of kind %s", line.Kind, LogOpened)
	case line.Kind == LogOpened:
		after := ""
		if c.n > 1 {
			after = fileName(c.n - 1)
		}
		if line.Fields["after"] != after || after != "" && line.Fields["hash"] != line.Prev {
			v.fault(c.name, c.lines, "the file was begun after %q, not after %q", line.Fields["after"], after)
		}
	case line.Kind == LogSealed:
		c.sealed = true
		if line.Fields["lines"] != strconv.FormatInt(c.lines-1, 10) || line.Fields["hash"] != line.Prev {
			v.fault(c.name, c.lines, "the file was sealed after %s lines, and this is line %d", line.Fields["lines"], c.lines)
		}
	}
}

// ending checks that the log ends where it did.
func (v *verifier) ending(broken error) {
	v.report.Seq, v.report.Head = v.seq, v.hash
	switch {
	case broken != nil:
		v.fault("head", 0, "%v: whether lines at the end are missing cannot be told", broken)
	case v.head.Seq > v.seq:
		v.fault("head", 0, "the log ended with line %d in %s, and now ends with line %d: lines at the end are missing", v.head.Seq, v.head.File, v.seq)
	case !v.headAt:
		v.fault("head", 0, "line %d in %s is not the one that was there", v.head.Seq, v.head.File)
	}
	if v.noted != "" && !v.seen {
		v.fault("head", 0, "no line has the hash that was noted, %s: the log was written anew, or it is of another machine", v.noted)
	}
}
