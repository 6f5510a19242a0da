package limit_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/backup/source/limit"
)

// read goes through a source as a backup does, and returns how many bytes it read and
// how many directories could say whether they are whole.
func read(t *testing.T, src source.Source) (bytes, whole int, err error) {
	t.Helper()
	session, err := src.Open(t.Context(), func(s source.Skip) { t.Errorf("skipped %v", s) })
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	err = readDir(t.Context(), session.Root(), &bytes, &whole)
	return bytes, whole, errors.Join(err, session.Finish(t.Context()))
}

func readDir(ctx context.Context, d source.Dir, bytes, whole *int) error {
	defer d.Close()
	if _, ok := d.(source.Partial); ok {
		*whole++
	}
	names, err := d.Names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, _, err := d.Stat(ctx, name, nil); err != nil {
			return err
		}
		child, err := d.Dir(ctx, name)
		if err == nil {
			if err := readDir(ctx, child, bytes, whole); err != nil {
				return err
			}
			continue
		}
		f, err := d.Open(ctx, name)
		if err != nil {
			return err
		}
		n, err := readFile(f)
		*bytes += n
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func readFile(f source.File) (n int, err error) {
	for {
		if _, _, err := f.NextData(); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
		m, err := io.Copy(io.Discard, f)
		if n += int(m); err != nil {
			return n, err
		}
	}
}

// tree makes a folder with files of 1 MiB in all, at several depths.
func tree(t *testing.T) source.Source {
	t.Helper()
	root := t.TempDir()
	for name, size := range map[string]int{"a": 0, "b": 1, "c/d": 1<<20 - 1001, "c/e/f": 1000} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	src, err := files.New(files.Config{Paths: []string{root}, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestCounts: every byte is accounted for, in small pieces, and nothing else about the
// source changes.
func TestCounts(t *testing.T) {
	src := tree(t)
	_, plain, err := read(t, src)
	if err != nil {
		t.Fatal(err)
	}
	paced, most := 0, 0
	limited := limit.New(src, func(_ context.Context, n int) error {
		paced, most = paced+n, max(most, n)
		return nil
	})
	got, whole, err := read(t, limited)
	if err != nil || got != 1<<20 || paced != got || most > 64<<10 {
		t.Errorf("%d bytes read, %d accounted for, %d at once, %v; want %d", got, paced, most, err, 1<<20)
	}
	if whole != plain || whole < 3 {
		t.Errorf("%d directories can say whether they are whole, without a limit %d", whole, plain)
	}
	if limited.Kind() != src.Kind() {
		t.Errorf("kind %q", limited.Kind())
	}
}

// TestEnds: a backup that is to end does not wait.
func TestEnds(t *testing.T) {
	n := 0
	limited := limit.New(tree(t), func(context.Context, int) error {
		if n++; n == 3 {
			return context.Canceled
		}
		return nil
	})
	if got, _, err := read(t, limited); !errors.Is(err, context.Canceled) || n != 3 || got == 1<<20 {
		t.Errorf("%d bytes read, %v", got, err)
	}
}
