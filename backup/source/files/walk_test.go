package files_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// span is a range of data: offset and length.
type span struct{ off, length int64 }

// seen is what a walk found under one path.
type seen struct {
	*tree.Node
	same    bool
	content []byte
	spans   []span
}

// found is a whole walk, by path.
type found struct {
	entries       map[string]*seen
	skips         map[string]source.Skip
	errs          map[string]error
	users, groups map[uint32]string
}

// later is a clock by which nothing was changed just now.
func later() time.Time { return time.Now().Add(time.Hour) }

func walk(t *testing.T, cfg files.Config, prev *found) *found {
	t.Helper()
	if cfg.Clock == nil {
		cfg.Clock = later
	}
	f := &found{entries: make(map[string]*seen), skips: make(map[string]source.Skip), errs: make(map[string]error)}
	var mu sync.Mutex
	src, err := files.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	session, err := src.Open(t.Context(), func(s source.Skip) {
		mu.Lock()
		defer mu.Unlock()
		f.skips[s.Path] = s
	})
	if err != nil {
		t.Fatal(err)
	}
	f.dir(t, session.Root(), "", prev)
	f.users, f.groups = session.Owners()
	if err := session.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	if err := session.Close(); err != nil {
		t.Error(err)
	}
	return f
}

// dir walks an open directory as an engine does.
func (f *found) dir(t *testing.T, d source.Dir, at string, prev *found) {
	t.Helper()
	names, err := d.Names(t.Context())
	if err != nil {
		f.errs[at] = err
		return
	}
	for i, name := range names {
		if i > 0 && names[i-1] >= name {
			t.Errorf("%s: %q after %q", at, name, names[i-1])
		}
		p := at + "/" + name
		var old *tree.Node
		if prev != nil && prev.entries[p] != nil {
			old = prev.entries[p].Node
		}
		node, same, err := d.Stat(t.Context(), name, old)
		if err != nil {
			if !errors.Is(err, source.ErrSkipped) {
				f.errs[p] = err
			}
			continue
		}
		e := &seen{Node: node, same: same}
		switch {
		case node.Type == tree.Dir:
			sub, err := d.Dir(t.Context(), name)
			if err != nil {
				f.errs[p] = err
				break
			}
			f.dir(t, sub, p, prev)
			if node.Partial && !sub.(source.Partial).Partial() {
				t.Errorf("%s is partial only from above", p)
			}
			node.Partial = sub.(source.Partial).Partial()
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
		case node.Type == tree.File && !same:
			if err := e.read(t, d); err != nil {
				f.errs[p] = err
			}
		}
		f.entries[p] = e
	}
}

// read reads the file as an engine does.
func (e *seen) read(t *testing.T, d source.Dir) error {
	t.Helper()
	h, err := d.Open(t.Context(), e.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	e.content, e.spans = contentOf(t, h)
	node, changed, err := h.Changed()
	if err != nil || changed {
		t.Errorf("%s: changed %v, %v", e.Name, changed, err)
	}
	e.Node = node
	return nil
}

func contentOf(t *testing.T, h source.File) ([]byte, []span) {
	t.Helper()
	var content []byte
	var spans []span
	for {
		off, length, err := h.NextData()
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if hole := off - int64(len(content)); hole > 0 {
			content = append(content, make([]byte, hole)...)
		}
		if err == io.EOF {
			return content, spans
		}
		data, err := io.ReadAll(h)
		if err != nil {
			t.Fatal(err)
		}
		if length >= 0 && int64(len(data)) != length {
			t.Fatalf("range of %d bytes gives %d", length, len(data))
		}
		spans = append(spans, span{off, int64(len(data))})
		content = append(content, data...)
	}
}

// under returns the entries below a path, by their path below it.
func (f *found) under(dir string) map[string]*seen {
	m := make(map[string]*seen)
	for p, e := range f.entries {
		if len(p) > len(dir) && p[:len(dir)+1] == dir+"/" {
			m[p[len(dir)+1:]] = e
		}
	}
	return m
}

// expect checks which paths below dir were found.
func (f *found) expect(t *testing.T, dir string, want ...string) {
	t.Helper()
	got := f.under(dir)
	for _, w := range want {
		if got[w] == nil {
			t.Errorf("%s is missing", path.Join(dir, w))
		}
		delete(got, w)
	}
	for p := range got {
		t.Errorf("%s should not be there", path.Join(dir, p))
	}
}

// partial checks which of the directories below dir have lost something.
func (f *found) partial(t *testing.T, dir string, want ...string) {
	t.Helper()
	for p, e := range f.under(dir) {
		if e.Partial != slices.Contains(want, p) {
			t.Errorf("%s: partial %v", path.Join(dir, p), e.Partial)
		}
	}
}

func (f *found) noErrors(t *testing.T) {
	t.Helper()
	for p, err := range f.errs {
		t.Errorf("%s: %v", p, err)
	}
}

// errorsOf opens the session and returns the error of that.
func errorsOf(ctx context.Context, cfg files.Config) ([]source.Skip, error) {
	var skips []source.Skip
	src, err := files.New(cfg)
	if err != nil {
		return nil, err
	}
	session, err := src.Open(ctx, func(s source.Skip) { skips = append(skips, s) })
	if err == nil {
		err = session.Close()
	}
	return skips, err
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes differ from the %d wanted", what, len(got), len(want))
	}
}
