package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// resume finds where the log ends, and mends what a crash left.
func (l *Log) resume() error {
	files, err := listFiles(l.dir)
	if err != nil {
		return err
	}
	head, err := readHead(l.dir)
	missing := errors.Is(err, errNoHead)
	if missing && len(files) == 0 {
		l.end = end{hash: origin}
		return l.begin()
	}
	why := ""
	switch {
	case err == nil:
	case missing && len(files) == 1 && files[0] == 1:
		// A crash before the first head file leaves one line. More are too many, and
		// walk says so.
		head = mark{Hash: origin, File: fileName(1)}
	case missing, errors.Is(err, errBadHead):
		why = err.Error()
	default: // it may be as it should be
		return err
	}
	if why == "" {
		w := walk{dir: l.dir, head: head, found: head.Seq == 0}
		if err := w.run(files); err != nil {
			return err
		}
		if why = w.why; why == "" && missing && w.end.seq > 1 {
			why = errNoHead.Error()
		}
		l.end = w.end
		if why == "" {
			l.behind = w.end.seq != head.Seq
			return l.carryOn(w.torn)
		}
	}
	return l.startOver(files, head, why)
}

// walk goes through the log from the file that the head file names, looking for the
// line it names, and from there to the last line that is whole and in its place.
type walk struct {
	dir   string
	head  mark
	found bool
	end   end
	torn  []byte // what comes after that
	why   string // the log is not what the head file says; "" if it is
}

func (w *walk) run(files []int) error {
	from := number(w.head.File)
	w.end = end{file: from, hash: w.head.Hash, seq: w.head.Seq}
	files = files[sort.SearchInts(files, from):]
	for i, n := range files {
		if w.why != "" {
			return nil
		}
		if n != from+i || i > 0 && !w.end.sealed {
			w.why = fmt.Sprintf("%s does not follow on %s", fileName(n), fileName(w.end.file))
			return nil
		}
		if i > 0 {
			w.end.file, w.end.size, w.end.lines, w.end.sealed = n, 0, 0, false
		}
		if err := w.read(n); err != nil {
			return fmt.Errorf("read %s: %w", fileName(n), err)
		}
		if !w.found {
			break
		}
		if i < len(files)-1 && w.torn != nil {
			w.why = fmt.Sprintf("%s is damaged after line %d of the log", fileName(n), w.end.seq)
		}
	}
	if !w.found && w.why == "" {
		w.why = fmt.Sprintf("line %d, the last by the head file, is not in %s as it was", w.head.Seq, w.head.File)
	}
	return nil
}

func (w *walk) read(n int) error {
	f, err := os.Open(filepath.Join(w.dir, fileName(n)))
	if err != nil {
		return err
	}
	defer f.Close()
	for in := newLines(f); ; {
		t, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if w.found && !w.follows(t) {
			return w.cut(f, n)
		}
		w.end.size, w.end.lines = w.end.size+t.size, w.end.lines+1
		if !w.found && t.whole && t.hash == w.head.Hash {
			line, err := t.decode()
			w.found, w.end.sealed = true, err == nil && line.Kind == LogSealed
		}
	}
}

// follows takes a line, if it is the next of the chain.
func (w *walk) follows(t text) bool {
	line, err := t.decode()
	if err != nil || line.Seq != w.end.seq+1 || line.Prev != w.end.hash || w.end.sealed {
		return false
	}
	w.end.seq, w.end.hash, w.end.sealed = line.Seq, t.hash, line.Kind == LogSealed
	return true
}

// cut keeps what comes after the end.
func (w *walk) cut(f *os.File, n int) error {
	if w.end.lines == 0 {
		w.why = fmt.Sprintf("%s does not begin as it should", fileName(n)) // files are made whole
		return nil
	}
	if w.end.sealed {
		w.why = fmt.Sprintf("%s goes on after its seal", fileName(n))
		return nil
	}
	torn, err := io.ReadAll(io.NewSectionReader(f, w.end.size, maxTorn+1))
	if err == nil && len(torn) > maxTorn {
		w.why = fmt.Sprintf("%s has more than %d bytes after line %d of the log", fileName(n), maxTorn, w.end.seq)
	}
	w.torn = torn
	return err
}

// carryOn moves aside what is torn and goes on where the log ends.
func (l *Log) carryOn(torn []byte) error {
	if l.end.sealed {
		return l.begin()
	}
	f, err := l.disk.Open(filepath.Join(l.dir, fileName(l.end.file)))
	if err != nil {
		return err
	}
	l.file = f
	next := l.end.seq + 1
	if torn != nil {
		if err := l.putAside(next, torn); err != nil {
			return err
		}
		// A crash here leaves the torn lines in both places. Opening cuts them again.
		if err := f.Truncate(l.end.size); err != nil {
			return fmt.Errorf("cut off what is torn: %w", err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("cut off what is torn: %w", err)
		}
	}
	// A crash here leaves files aside for the line that is written next, which is how
	// the next Open knows that nobody was told.
	aside, err := l.aside(next)
	if err != nil {
		return err
	}
	l.seal(l.end.file - 1)
	l.reserve()
	if len(aside) == 0 {
		return l.settle()
	}
	l.log.Warn("audit log repaired after a crash", "aside", aside)
	return l.note(LogRepaired, "lines that a crash had torn were moved aside; nobody was told that they were written",
		map[string]string{"file": fileName(l.end.file), "aside": strings.Join(aside, " ")})
}

// startOver goes on in a new file after a log that is not what it was. The old files
// are not touched: Verify finds what is wrong with them.
func (l *Log) startOver(files []int, head mark, why string) error {
	l.log.Error("audit log is broken, someone may have changed it", "dir", l.dir, "says", why, "next", "coffer audit verify")
	e := end{seq: head.Seq, hash: head.Hash, file: number(head.File)}
	if len(files) > 0 {
		last := files[len(files)-1]
		e.file = max(e.file, last)
		seq, hash, err := l.lastLine(last)
		if err != nil {
			return err
		}
		if seq > e.seq {
			e.seq, e.hash = seq, hash
		}
	}
	if e.hash == "" {
		e.hash = origin
	}
	if l.file != nil {
		l.close(l.file, l.end.file)
		l.file = nil
	}
	l.end = e
	if err := l.begin(); err != nil {
		return err
	}
	return l.note(LogBroken, why, nil)
}

// lastLine returns the number and hash of the last line of a file that can be read.
func (l *Log) lastLine(n int) (seq int64, hash string, err error) {
	f, err := os.Open(filepath.Join(l.dir, fileName(n)))
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	for in := newLines(f); ; {
		t, err := in.next()
		if errors.Is(err, io.EOF) {
			return seq, hash, nil
		}
		if err != nil {
			return 0, "", fmt.Errorf("read %s: %w", fileName(n), err)
		}
		if line, err := t.decode(); err == nil {
			seq, hash = line.Seq, t.hash
		}
	}
}

// note writes a line of the log's own into this file, however full it is.
func (l *Log) note(kind Kind, says string, fields map[string]string) error {
	data, next, err := l.chain([]Line{l.stamp(Event{Kind: kind, Says: says, Fields: fields})})
	if err != nil {
		return err
	}
	return l.append(data, next)
}

// asideName is the name of the nth file of what was torn where line seq would be.
func (l *Log) asideName(seq int64, n int) string {
	return strings.TrimSuffix(fileName(l.end.file), ".jsonl") + "." + strconv.FormatInt(seq, 10) + "-" + strconv.Itoa(n) + ".torn"
}

// putAside keeps torn bytes in a file of their own, unless they are in one.
func (l *Log) putAside(seq int64, torn []byte) error {
	for n := 1; ; n++ {
		path := filepath.Join(l.dir, l.asideName(seq, n))
		old, err := os.ReadFile(path)
		switch {
		case err == nil && string(old) == string(torn):
			return nil
		case err == nil:
			continue
		case !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("move aside what is torn: %w", err)
		}
		if err := l.disk.Replace(path, torn); err != nil {
			return fmt.Errorf("move aside what is torn: %w", err)
		}
		return nil
	}
}

// aside returns the files of what was torn where line seq would be.
func (l *Log) aside(seq int64) ([]string, error) {
	var names []string
	for n := 1; ; n++ {
		name := l.asideName(seq, n)
		_, err := os.Stat(filepath.Join(l.dir, name))
		if errors.Is(err, os.ErrNotExist) {
			return names, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for what was torn: %w", err)
		}
		names = append(names, name)
	}
}
