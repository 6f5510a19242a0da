package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/stream"
	"github.com/cofferbackup/coffer/catalog/tree"
)

func open(t *testing.T, ctx context.Context, cfg stream.Config) source.Session {
	t.Helper()
	s, err := stream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	session, err := s.Open(ctx, func(s source.Skip) { t.Errorf("skipped %v", s) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}
	})
	return session
}

// read reads the only file as an engine does.
func read(t *testing.T, session source.Session) ([]byte, *tree.Node, error) {
	t.Helper()
	ctx := t.Context()
	root := session.Root()
	names, err := root.Names(ctx)
	if err != nil || len(names) != 1 {
		t.Fatalf("names %q, %v; want one", names, err)
	}
	if _, same, err := root.Stat(ctx, names[0], nil); err != nil || same {
		t.Fatalf("stat: same %v, %v", same, err)
	}
	f, err := root.Open(ctx, names[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if off, length, err := f.NextData(); off != 0 || length != -1 || err != nil {
		t.Fatalf("first range %d, %d, %v; want 0, -1", off, length, err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return data, nil, err
	}
	if off, _, err := f.NextData(); off != int64(len(data)) || err != io.EOF {
		t.Fatalf("after the last range: %d, %v; want the size %d and EOF", off, err, len(data))
	}
	node, changed, err := f.Changed()
	if err != nil || changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	if err := f.Rewind(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("rewind: %v, want unsupported", err)
	}
	return data, node, nil
}

func TestReader(t *testing.T) {
	for _, content := range []string{"", "a dump"} {
		at := time.Unix(1_700_000_000, 42)
		session := open(t, t.Context(), stream.Config{
			Name: "dump.sql", Reader: iotest.OneByteReader(strings.NewReader(content)), Clock: func() time.Time { return at },
		})
		data, node, err := read(t, session)
		if err != nil || string(data) != content {
			t.Fatalf("read %q, %v; want %q", data, err, content)
		}
		if node.Name != "dump.sql" || node.Type != tree.File || node.Size != uint64(len(content)) || node.MTime != (tree.Time{Sec: at.Unix(), Nsec: 42}) {
			t.Errorf("node %+v", node)
		}
		if err := session.Finish(t.Context()); err != nil {
			t.Errorf("finish: %v", err)
		}
	}
}

func TestReaderFails(t *testing.T) {
	cause := errors.New("client went away")
	session := open(t, t.Context(), stream.Config{Reader: io.MultiReader(strings.NewReader("half"), iotest.ErrReader(cause))})
	_, _, err := read(t, session)
	if !errors.Is(err, source.ErrFailed) || !errors.Is(err, cause) {
		t.Errorf("error %v, want a failed source because of %v", err, cause)
	}
}

func TestCancelUnblocksReader(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	session := open(t, ctx, stream.Config{Reader: r})
	go cancel()
	if _, _, err := read(t, session); !errors.Is(err, source.ErrFailed) {
		t.Errorf("read after cancel: %v, want a failed source", err)
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	session := open(t, t.Context(), stream.Config{
		Command: []string{"sh", "-c", `pwd; echo "$COFFER_WORD"; head -c 300000 /dev/zero; echo note >&2`},
		Env:     []string{"COFFER_WORD=hello"}, Dir: dir,
	})
	data, node, err := read(t, session)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte(dir+"\nhello\n"), make([]byte, 300000)...)
	if !bytes.Equal(data, want) {
		t.Errorf("read %d bytes, want %d", len(data), len(want))
	}
	if node.Name != stream.DefaultName {
		t.Errorf("file is called %q", node.Name)
	}
	if err := session.Finish(t.Context()); err != nil {
		t.Errorf("finish: %v", err)
	}
}

func TestCommandFails(t *testing.T) {
	tests := []struct {
		script string
		want   []string
		not    string
	}{
		{`echo half; exit 3`, []string{"command sh", "exit code 3"}, "said"},
		{`i=0; while [ $i -lt 2000 ]; do echo "line $i" >&2; i=$((i+1)); done; exit 1`, []string{"exit code 1", "line 1995; line 1996", "line 1999"}, "line 1994"},
		{`kill -9 $$`, []string{"command sh", "killed"}, "exit code"},
	}
	for _, tt := range tests {
		session := open(t, t.Context(), stream.Config{Command: []string{"sh", "-c", tt.script}})
		if _, _, err := read(t, session); err != nil {
			t.Fatalf("%s: %v", tt.script, err)
		}
		err := session.Finish(t.Context())
		if err == nil {
			t.Errorf("%s: finish is content", tt.script)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %q does not say %q", tt.script, err, w)
			}
		}
		if strings.Contains(err.Error(), tt.not) {
			t.Errorf("%s: error %q says %q", tt.script, err, tt.not)
		}
		if again := session.Finish(t.Context()); again == nil {
			t.Errorf("%s: a second finish is content", tt.script)
		}
	}
}

func TestCommandMissing(t *testing.T) {
	s, err := stream.New(stream.Config{Command: []string{"/nonexistent/dump"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/dump") {
		t.Errorf("open: %v, want not exist with the name", err)
	}
}

// The command and what it starts are gone when the session is closed, or the
// context is done.
func TestCommandIsKilled(t *testing.T) {
	for _, how := range []string{"close", "cancel"} {
		t.Run(how, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			// The child holds the other end of a FIFO for as long as it lives.
			dir := t.TempDir()
			if err := syscall.Mkfifo(filepath.Join(dir, "held"), 0o600); err != nil {
				t.Fatal(err)
			}
			session := open(t, ctx, stream.Config{Command: []string{"sh", "-c", `sleep 1000 >held & echo started; wait`}, Dir: dir})
			f, err := session.Root().Open(ctx, stream.DefaultName)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Read(make([]byte, 32)); err != nil {
				t.Fatal(err)
			}
			held, err := os.Open(filepath.Join(dir, "held"))
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if how == "cancel" {
				cancel()
				if _, err := io.ReadAll(f); err != nil && !errors.Is(err, source.ErrFailed) {
					t.Errorf("read after cancel: %v", err)
				}
				if err := session.Finish(t.Context()); !errors.Is(err, context.Canceled) {
					t.Errorf("finish after cancel: %v", err)
				}
			}
			if err := session.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(held); err != nil { // returns when the child is gone
				t.Fatal(err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	bad := map[string]stream.Config{
		"nothing": {},
		"both":    {Reader: strings.NewReader(""), Command: []string{"true"}},
		"slash":   {Name: "a/b", Command: []string{"true"}},
		"dots":    {Name: "..", Command: []string{"true"}},
	}
	for name, cfg := range bad {
		if _, err := stream.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
