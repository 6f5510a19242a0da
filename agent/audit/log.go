package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cofferbackup/coffer/internal/durable"
)

// Log writes an audit log. It is safe for concurrent use.
type Log struct {
	dir   string
	max   int64
	clock func() time.Time
	log   *slog.Logger
	disk  disk
	lock  *os.File

	fault atomic.Pointer[error] // of the last write

	mu   sync.Mutex // guards next
	next *batch     // what waits to be written

	writing sync.Mutex // guards all below; taken before mu
	closed  bool
	file    file // nil if there is none to write to
	end     end
	dirty   bool  // bytes may be behind the end, of a write that went wrong
	behind  bool  // the head file may be older than the end
	room    int64 // the file can grow to this size though the disk fills up
	short   bool  // there was no more room to be had when it was last asked for
	outlets []*outlet
}

// end is where the log ends.
type end struct {
	file   int   // its number
	size   int64 // of it
	lines  int64 // in it
	sealed bool  // it is
	seq    int64 // of the last line of all
	hash   string
}

// batch is events that are written together.
type batch struct {
	events []Line // without number and hash
	done   bool   // guarded by Log.writing
	err    error
}

// Open opens the log in a folder for writing, and makes one if there is none. Another
// process that has it open is durable.ErrLocked. What a crash left is repaired, and a
// log that does not end where it should is gone on with in a new file; a line and an
// alarm say so in both cases.
func Open(cfg Config) (*Log, error) { return openOn(osDisk{}, cfg) }

func openOn(d disk, cfg Config) (_ *Log, err error) {
	l := &Log{dir: cfg.Dir, max: cfg.MaxSize, clock: cfg.Clock, log: cfg.Log, disk: d, next: new(batch)}
	if l.max <= 0 {
		l.max = defaultSize
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for _, s := range cfg.Sinks {
		l.outlets = append(l.outlets, &outlet{sink: s})
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the audit log: %w", err)
	}
	if l.lock, err = durable.Lock(filepath.Join(l.dir, "lock")); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	if err := l.resume(); err != nil {
		if l.file != nil {
			l.file.Close()
		}
		l.lock.Close()
		return nil, fmt.Errorf("open the audit log %s: %w", l.dir, err)
	}
	return l, nil
}

// Head returns the number and the hash of the last line. Noted elsewhere, they show
// later that the log up to here is what it was.
func (l *Log) Head() (seq int64, hash string) {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.end.seq, l.end.hash
}

// Fault returns why the last event could not be recorded, or nil if it was, or there was
// none. It does not wait.
func (l *Log) Fault() error {
	if err := l.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the log. Record returns ErrClosed from then on.
func (l *Log) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	errs := []error{l.settle()}
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	for _, o := range l.outlets {
		if c, ok := o.sink.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	errs = append(errs, l.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}

// join adds an event to the next batch and waits until it is written. Whoever comes
// first to writing writes for all who wait.
func (l *Log) join(e Event) error {
	l.mu.Lock()
	b := l.next
	b.events = append(b.events, l.stamp(e))
	l.mu.Unlock()

	l.writing.Lock()
	defer l.writing.Unlock()
	if !b.done {
		l.mu.Lock()
		l.next = new(batch)
		l.mu.Unlock()
		b.done, b.err = true, l.write(b.events)
		l.fault.Store(&b.err)
	}
	return b.err
}

func (l *Log) stamp(e Event) Line { return Line{Time: l.clock().UTC().Round(0), Event: e} }

// write appends events, in a new file if this one is full.
func (l *Log) write(events []Line) error {
	if l.closed {
		return ErrClosed
	}
	if err := l.settle(); err != nil {
		return err
	}
	if l.end.sealed {
		if err := l.begin(); err != nil {
			return err
		}
	}
	data, next, err := l.chain(events)
	if err != nil {
		return err
	}
	if l.end.lines > 1 && next.size > l.max && !l.short { // a new file needs room
		if err := l.rotate(); err != nil {
			return err
		}
		if data, next, err = l.chain(events); err != nil {
			return err
		}
	}
	return l.append(data, next)
}

// settle mends what a write that went wrong left.
func (l *Log) settle() error {
	if l.dirty && l.file != nil {
		if err := l.file.Truncate(l.end.size); err != nil {
			return fmt.Errorf("take back what was half written: %w", err)
		}
		l.dirty, l.room = false, 0 // cutting off gives back what was reserved
		l.reserve()
	}
	if l.behind {
		return l.writeHead()
	}
	return nil
}

// reserve keeps room on the disk for what comes next, so that keys can be used, and
// backups restored, for a while after it is full. Without any the log goes on as long as
// it can.
func (l *Log) reserve() {
	want := min(maxReserve, l.max)
	if l.file == nil || l.room-l.end.size >= want/2 {
		return
	}
	err := l.file.Reserve(l.end.size, want)
	if l.short = errors.Is(err, syscall.ENOSPC); err == nil {
		l.room = l.end.size + want
	}
}

// giveBack gives back the room behind the end of a file that nothing is added to.
func (l *Log) giveBack(e end) {
	if err := l.file.Truncate(e.size); err != nil {
		l.log.Warn("file of the audit log keeps more room than it needs", "file", fileName(e.file), "err", err)
	}
}

// chain gives events their numbers and hashes, and returns their bytes and the end
// that is reached with them.
func (l *Log) chain(events []Line) ([]byte, end, error) {
	var data []byte
	next := l.end
	for _, e := range events {
		e.Seq, e.Prev = next.seq+1, next.hash
		line, err := encode(e)
		if err != nil {
			return nil, end{}, err
		}
		data = append(append(data, line...), '\n')
		next.seq, next.hash, next.lines = e.Seq, hashOf(line), next.lines+1
		next.sealed = e.Kind == LogSealed
	}
	next.size += int64(len(data))
	return data, next, nil
}

// append puts lines at the end of the file and the head behind them.
func (l *Log) append(data []byte, next end) error {
	l.dirty = true
	if _, err := l.file.WriteAt(data, l.end.size); err != nil {
		return fmt.Errorf("write %s: %w", fileName(l.end.file), err)
	}
	// A crash here leaves any part of data. Opening keeps the whole lines and moves
	// the rest aside.
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("write %s to disk: %w", fileName(l.end.file), err)
	}
	l.dirty, l.end = false, next
	l.reserve()
	l.send(data)
	// A crash here leaves the head file behind the log. Opening brings it up.
	return l.writeHead()
}

func (l *Log) writeHead() error {
	l.behind = true
	m := mark{Seq: l.end.seq, Hash: l.end.hash, File: fileName(l.end.file)}
	if err := l.disk.Update(headPath(l.dir), m.encode()); err != nil {
		return fmt.Errorf("write the head file: %w", err)
	}
	l.behind = false
	return nil
}

// rotate seals the file and begins the next.
func (l *Log) rotate() error {
	data, next, err := l.chain([]Line{l.stamp(Event{Kind: LogSealed, Fields: map[string]string{
		"lines": strconv.FormatInt(l.end.lines, 10), "hash": l.end.hash}})})
	if err != nil {
		return err
	}
	if err := l.append(data, next); err != nil {
		return err
	}
	// A crash here leaves a sealed file and none after it. Opening begins the next.
	return l.begin()
}

// begin makes the file after the end, which is the first if there is none.
func (l *Log) begin() error {
	before := l.end
	e := Event{Kind: LogOpened}
	if before.file > 0 {
		e.Fields = map[string]string{"after": fileName(before.file), "hash": before.hash}
	}
	l.end = end{file: before.file + 1, seq: before.seq, hash: before.hash}
	data, next, err := l.chain([]Line{l.stamp(e)})
	path := filepath.Join(l.dir, fileName(next.file))
	if err == nil {
		err = l.disk.Replace(path, data)
	}
	// A crash here leaves a file with its first line, and the head file behind it.
	var f file
	if err == nil {
		f, err = l.disk.Open(path)
	}
	if err != nil {
		l.end = before
		return fmt.Errorf("begin %s: %w", fileName(next.file), err)
	}
	if l.file != nil {
		l.giveBack(before)
		l.close(l.file, before.file)
	}
	l.seal(before.file)
	l.file, l.end, l.dirty, l.room = f, next, false, 0
	l.reserve()
	l.send(data)
	return l.writeHead()
}

// seal makes a file read-only. That only guards against accidents, so the log goes on
// where it cannot be.
func (l *Log) seal(n int) {
	if n == 0 {
		return
	}
	err := l.disk.Seal(filepath.Join(l.dir, fileName(n)))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.log.Warn("file of the audit log not made read-only", "file", fileName(n), "err", err)
	}
}

func (l *Log) close(f file, n int) {
	if err := f.Close(); err != nil {
		l.log.Warn("file of the audit log not closed", "file", fileName(n), "err", err)
	}
}
