// Package stream is the source of one stream of bytes: what a reader gives, or
// what a command writes to its standard output. The point has one file.
//
// A stream that did not end well makes no point: a reader that ends with an error
// fails at File.Read, a command that does not exit with 0 fails at
// Session.Finish.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// DefaultName is what the file is called if the config does not say.
const DefaultName = "stream"

// Config says where the stream comes from: Reader or Command, not both.
type Config struct {
	Name string // of the file in the point; DefaultName if empty
	// Reader is read once. If it is an io.Closer, it is closed when the session
	// ends or the context of Open is done, so that a waiting Read returns.
	Reader io.Reader
	// Command is a program and its arguments. It is not run by a shell.
	Command []string
	Env     []string // "NAME=value", besides the agent's own
	Dir     string   // where the command runs; "" is where the agent runs
	// Clock is time.Now if nil.
	Clock func() time.Time
}

// Source is the source of one configuration.
type Source struct {
	cfg Config
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Source, error) {
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	switch {
	case cfg.Name == "." || cfg.Name == ".." || strings.ContainsAny(cfg.Name, "/\x00"):
		return nil, fmt.Errorf("stream: %q cannot be the name of a file", cfg.Name)
	case cfg.Reader == nil && len(cfg.Command) == 0:
		return nil, errors.New("stream: neither a reader nor a command is given")
	case cfg.Reader != nil && len(cfg.Command) > 0:
		return nil, errors.New("stream: a reader and a command are given; which is it?")
	}
	return &Source{cfg: cfg}, nil
}

// Kind is "stream".
func (s *Source) Kind() string { return "stream" }

// Open begins the session and starts the command, which runs until it ends, ctx
// is done or the session is closed.
func (s *Source) Open(ctx context.Context, _ func(source.Skip)) (source.Session, error) {
	se := &session{cfg: s.cfg, begun: s.cfg.Clock(), in: s.cfg.Reader, stop: func() {}}
	if len(s.cfg.Command) > 0 {
		cmd, err := start(ctx, s.cfg)
		if err != nil {
			return nil, err
		}
		se.command, se.in = cmd, cmd.stdout
		return se, nil
	}
	if c, ok := s.cfg.Reader.(io.Closer); ok {
		closing := sync.OnceFunc(func() { _ = c.Close() })
		unwatch := context.AfterFunc(ctx, closing)
		se.stop = func() { unwatch(); closing() }
	}
	return se, nil
}

// session is its own root directory and its own file: there is one of each.
type session struct {
	cfg     Config
	begun   time.Time
	in      io.Reader
	command *command // nil for a reader
	stop    func()

	opened bool
	ranged bool
	size   int64
}

func (s *session) Root() source.Dir { return rootDir{s} }

func (s *session) Owners() (users, groups map[uint32]string) { return nil, nil }

// Finish waits for the command.
func (s *session) Finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.command == nil {
		return nil
	}
	return s.command.wait()
}

// Close kills the command if it has not ended.
func (s *session) Close() error {
	s.stop()
	if s.command != nil {
		s.command.kill()
	}
	return nil
}

func (s *session) node() *tree.Node {
	return &tree.Node{
		Name:  s.cfg.Name,
		Type:  tree.File,
		Mode:  0o600,
		UID:   id(os.Getuid()),
		GID:   id(os.Getgid()),
		MTime: tree.Time{Sec: s.begun.Unix(), Nsec: uint32(s.begun.Nanosecond())},
		Size:  uint64(s.size),
	}
}

// id makes 0 of the -1 of systems without ids.
func id(n int) uint32 { return uint32(max(n, 0)) }

type rootDir struct{ *session }

func (d rootDir) Names(ctx context.Context) ([]string, error) {
	return []string{d.cfg.Name}, ctx.Err()
}

func (d rootDir) Stat(_ context.Context, name string, _ *tree.Node) (*tree.Node, bool, error) {
	if name != d.cfg.Name {
		return nil, false, source.ErrVanished
	}
	return d.node(), false, nil
}

func (d rootDir) Dir(context.Context, string) (source.Dir, error) {
	return nil, fmt.Errorf("open directory: %w", errors.ErrUnsupported)
}

func (d rootDir) Open(_ context.Context, name string) (source.File, error) {
	if name != d.cfg.Name {
		return nil, source.ErrVanished
	}
	if d.opened {
		return nil, fmt.Errorf("read the stream a second time: %w: %w", source.ErrFailed, errors.ErrUnsupported)
	}
	d.opened = true
	return file(d), nil
}

func (d rootDir) Close() error { return nil }

type file struct{ *session }

func (f file) NextData() (off, length int64, err error) {
	if f.ranged {
		return f.size, 0, io.EOF
	}
	f.ranged = true
	return 0, -1, nil
}

func (f file) Read(p []byte) (int, error) {
	n, err := f.in.Read(p)
	f.size += int64(n)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: read the stream: %w", source.ErrFailed, err)
	}
	return n, err
}

func (f file) Changed() (*tree.Node, bool, error) { return f.node(), false, nil }

func (f file) Rewind() error { return errors.ErrUnsupported }

func (f file) Close() error { return nil }

// tail keeps the last lines of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const (
	tailBytes = 4 << 10
	tailLines = 5
)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p[max(0, len(p)-tailBytes):]...)
	if extra := len(t.data) - tailBytes; extra > 0 {
		t.data = slices.Delete(t.data, 0, extra)
	}
	return len(p), nil
}

// String is the last lines, joined by "; ".
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for line := range strings.SplitSeq(string(t.data), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, strings.ToValidUTF8(line, "?"))
		}
	}
	return strings.Join(lines[max(0, len(lines)-tailLines):], "; ")
}
