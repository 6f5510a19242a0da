package dir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
	"github.com/cofferbackup/coffer/store/storetest"
)

func create(t *testing.T, root string) *dir.Store {
	t.Helper()
	if err := dir.Create(root); err != nil {
		t.Fatal(err)
	}
	return open(t, root)
}

func open(t *testing.T, root string) *dir.Store {
	t.Helper()
	s, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s store.Store, key store.Key, content string) {
	t.Helper()
	if err := s.Put(t.Context(), key, store.Body{[]byte(content)}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// unfinished returns the names in .tmp.
func unfinished(t *testing.T, root string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, ".tmp", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func list(t *testing.T, s store.Store) []store.Key {
	t.Helper()
	var keys []store.Key
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// thawed has what a test leaves under retention let go when it ends.
func thawed(t *testing.T, root string) string {
	t.Helper()
	t.Cleanup(func() {
		if err := dir.ThawAll(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return create(t, filepath.Join(thawed(t, t.TempDir()), "new")) })
}

// TestContractOfMadeFolder: an administrator may make the folder, too.
func TestContractOfMadeFolder(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, thawed(t, t.TempDir())) })
}

// TestContractOfLinks: NFS cannot rename without replacing, so files are linked.
func TestContractOfLinks(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		root := thawed(t, t.TempDir())
		t.Cleanup(func() {
			if got := unfinished(t, root); len(got) != 0 {
				t.Errorf(".tmp holds %q", got)
			}
		})
		s, err := dir.OpenLinking(root)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestTwoOnOneFolder(t *testing.T) {
	root := t.TempDir()
	a, b := open(t, root), open(t, root)
	put(t, a, "a/b", "x")
	if err := b.Put(t.Context(), "a/b", store.Body{[]byte("y")}, store.PutOptions{}); !errors.Is(err, store.ErrExist) {
		t.Errorf("two stores on one folder: the second put of a key: %v", err)
	}
	put(t, b, "a/c", "y")
	if got := list(t, a); len(got) != 2 {
		t.Errorf("the first store sees %q", got)
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	root := filepath.Join(t.TempDir(), "a", "vault")
	put(t, create(t, root), "items/a/x", "x")
	for path, want := range map[string]fs.FileMode{
		"": fs.ModeDir | 0o700, ".tmp": fs.ModeDir | 0o700, "items": fs.ModeDir | 0o700, "items/a": fs.ModeDir | 0o700, "items/a/x": 0o400,
	} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil || info.Mode() != want {
			t.Errorf("mode of %q is %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	put(t, s, "a", "x")
	_ = s.Put(t.Context(), "a", store.Body{[]byte("y")}, store.PutOptions{})
	_ = s.Put(t.Context(), "a/b", store.Body{[]byte("y")}, store.PutOptions{})
	if got := unfinished(t, root); len(got) != 0 {
		t.Errorf(".tmp holds %q", got)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	root := t.TempDir()
	s := create(t, root)
	put(t, s, "a", "x")
	write(t, filepath.Join(root, ".tmp", "put-123"), "half an object")
	if got := list(t, s); len(got) != 1 {
		t.Errorf("list shows %q", got)
	}
	s = open(t, root)
	if got := unfinished(t, root); len(got) != 0 {
		t.Errorf("after open .tmp holds %q", got)
	}
	if got, err := store.ReadAll(t.Context(), s, "a", 10); err != nil || string(got) != "x" {
		t.Errorf("the finished object: %q, %v", got, err)
	}
}

// TestReadOnlyStore: who only looks leaves everything as it is.
func TestReadOnlyStore(t *testing.T) {
	root := t.TempDir()
	put(t, create(t, root), "a", "x")
	write(t, filepath.Join(root, ".tmp", "put-123"), "half an object")
	s, err := dir.OpenWith(dir.Config{Root: root, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for op, err := range map[string]error{
		"put": s.Put(t.Context(), "b", nil, store.PutOptions{}), "delete": s.Delete(t.Context(), "a"),
		"retain": s.Retain(t.Context(), "a", store.Retention{Until: time.Now().Add(time.Hour)}),
	} {
		if !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if got, err := store.ReadAll(t.Context(), s, "a", 10); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if left, got := unfinished(t, root), list(t, s); len(left) != 1 || len(got) != 1 {
		t.Errorf(".tmp holds %q, and the store %q", left, got)
	}
}

// TestOpenSparesWorkInProgress opens the store again and again while another
// process, as it were, puts into it.
func TestOpenSparesWorkInProgress(t *testing.T) {
	root := t.TempDir()
	s := create(t, root)
	done := make(chan error)
	go func() {
		defer close(done)
		for _, key := range strings.Fields("a b c d e f g h i j k l m n o p q r s t") {
			body := store.Body{make([]byte, 1<<20), make([]byte, 1<<20)}
			if err := s.Put(t.Context(), store.Key("items/"+key), body, store.PutOptions{}); err != nil {
				done <- err
			}
		}
	}()
	for putting := true; putting; {
		select {
		case err, more := <-done:
			if err != nil {
				t.Error(err)
			}
			putting = more
		default:
			open(t, root)
		}
	}
	if got := list(t, s); len(got) != 20 {
		t.Errorf("%d objects, want 20", len(got))
	}
}

func TestForeignFilesAreNotListed(t *testing.T) {
	root := t.TempDir()
	s := create(t, root)
	put(t, s, "items/a", "x")
	for _, name := range []string{".hidden", "README", "items/.hidden", "items/A", "items/with space"} {
		write(t, filepath.Join(root, name), "x")
	}
	if err := os.Mkdir(filepath.Join(root, "lost+found"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", filepath.Join(root, "items", "link")); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	if got := list(t, s); len(got) != 1 || got[0] != "items/a" {
		t.Errorf("list: %q", got)
	}
}

func TestKeyAndFolder(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "a/b", "x")
	for _, key := range []store.Key{"a", "a/b/c"} {
		err := s.Put(t.Context(), key, nil, store.PutOptions{})
		if err == nil || errors.Is(err, store.ErrExist) || errors.Is(err, store.ErrNotExist) {
			t.Errorf("put %s beside a/b: %v, want a refusal of its own", key, err)
		}
	}
}

func TestFoldersRemovedBehindOurBack(t *testing.T) {
	root := t.TempDir()
	s := create(t, root)
	put(t, s, "items/a/b", "x")
	if err := os.RemoveAll(filepath.Join(root, "items")); err != nil {
		t.Fatal(err)
	}
	put(t, s, "items/a/b", "y")
	if got, err := store.ReadAll(t.Context(), s, "items/a/b", 10); err != nil || string(got) != "y" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStoreGoesAway: a file system that is not mounted any more is not an empty
// store.
func TestStoreGoesAway(t *testing.T) {
	for what, leave := range map[string]bool{"folder removed": false, "folder emptied": true} {
		t.Run(what, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "vault")
			s := create(t, root)
			put(t, s, "items/a", "x")
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			if leave {
				if err := os.Mkdir(root, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			_, stat := s.Stat(t.Context(), "items/a")
			errs := map[string]error{
				"get":            s.Get(t.Context(), "items/a", nil, 0),
				"stat":           stat,
				"put":            s.Put(t.Context(), "items/a", store.Body{[]byte("y")}, store.PutOptions{}),
				"put new folder": s.Put(t.Context(), "new/a", store.Body{[]byte("y")}, store.PutOptions{}),
				"delete":         s.Delete(t.Context(), "items/a"),
				"list":           nil,
				"list items":     nil,
			}
			for _, err := range s.List(t.Context(), "") {
				errs["list"] = err
			}
			for _, err := range s.List(t.Context(), "items/") {
				errs["list items"] = err
			}
			for op, err := range errs {
				if !errors.Is(err, store.ErrMissing) {
					t.Errorf("%s: %v, want %v", op, err, store.ErrMissing)
				}
			}
			if entries, _ := os.ReadDir(root); len(entries) != 0 {
				t.Errorf("something was written where the store was: %v", entries)
			}
		})
	}
}

func TestOpenMissing(t *testing.T) {
	root := filepath.Join(t.TempDir(), "none")
	if _, err := dir.Open(root); !errors.Is(err, store.ErrMissing) || !strings.Contains(err.Error(), root) {
		t.Errorf("open: %v", err)
	}
	write(t, root, "a file")
	if _, err := dir.Open(root); !errors.Is(err, store.ErrMissing) {
		t.Errorf("open a file: %v", err)
	}
}

func TestCreate(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "a", "b", "c")
	put(t, create(t, root), "x", "x")
	if err := dir.Create(root); err != nil {
		t.Errorf("create where a store is: %v", err)
	}
	full := filepath.Join(base, "full")
	if err := os.MkdirAll(filepath.Join(full, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := dir.Create(full); err != nil {
		t.Errorf("create in an empty file system: %v", err)
	}
	other := filepath.Join(base, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(other, "thesis.txt"), "x")
	if err := dir.Create(other); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("create among other files: %v", err)
	}
	if err := dir.Create(filepath.Join(other, "thesis.txt", "x")); err == nil {
		t.Error("create below a file succeeds")
	}
}

func TestParseURL(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths of Unix")
	}
	for raw, want := range map[string]string{
		"file:///srv/backup": "/srv/backup", "file:///srv/backup/": "/srv/backup", "file:///srv/a%20b": "/srv/a b", "file:///": "/",
		"FILE:///srv/../x": "/x",
	} {
		if got, err := dir.ParseURL(raw); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", "/srv/backup", "file:srv", "file:///srv?a=b", "file:///srv#x", "file://srv/backup", "file://", "s3:///srv", "file:///a%00b", "file:///%zz"} {
		if got, err := dir.ParseURL(raw); err == nil {
			t.Errorf("%q is accepted as %q", raw, got)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"1KiB", 1 << 10}, {"16MiB", 16 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			root := b.TempDir()
			s, err := dir.Open(root)
			if err != nil {
				b.Fatal(err)
			}
			data := make([]byte, c.size)
			b.SetBytes(int64(c.size))
			for b.Loop() {
				if err := s.Put(b.Context(), "items/a/packs/aa/x", store.Body{data}, store.PutOptions{}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Delete(b.Context(), "items/a/packs/aa/x"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
