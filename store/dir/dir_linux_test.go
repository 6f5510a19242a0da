package dir_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
)

// mount mounts a file system in memory and returns its folder.
func mount(t *testing.T, options string) string {
	t.Helper()
	return mountAs(t, "tmpfs", options)
}

// mountAs is mount of a file system of some other kind.
func mountAs(t *testing.T, kind, options string) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount(kind, at, kind, 0, options); err != nil {
		testkit.Missing(t, "a mount of "+kind+" ("+err.Error()+")", "run the test as root")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return at
}

func TestFull(t *testing.T) {
	for what, options := range map[string]string{"bytes": "size=1m", "inodes": "size=100m,nr_inodes=4"} {
		t.Run(what, func(t *testing.T) {
			root := mount(t, options)
			s := create(t, root)
			put(t, s, "a", "x")
			err := s.Put(t.Context(), "items/b", store.Body{make([]byte, 2<<20)}, store.PutOptions{})
			if !errors.Is(err, store.ErrFull) {
				t.Errorf("put onto a full file system: %v", err)
			}
			if got := list(t, s); len(got) != 1 {
				t.Errorf("list: %q", got)
			}
			if got := unfinished(t, root); len(got) != 0 {
				t.Errorf(".tmp holds %q, which takes space", got)
			}
			put(t, s, "b", "fits")
		})
	}
}

func TestReadOnly(t *testing.T) {
	root := mount(t, "size=1m")
	put(t, create(t, root), "a", "x")
	write(t, filepath.Join(root, ".tmp", "put-1"), "left by a crash")
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s := open(t, root)
	if got, err := store.ReadAll(t.Context(), s, "a", 10); err != nil || string(got) != "x" {
		t.Errorf("read: %q, %v", got, err)
	}
	for op, err := range map[string]error{
		"put":    s.Put(t.Context(), "b", nil, store.PutOptions{}),
		"delete": s.Delete(t.Context(), "a"),
		"create": dir.Create(filepath.Join(root, "new")),
	} {
		if !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s on a read-only file system: %v", op, err)
		}
	}
}

// TestUnmounted: what is left is an empty folder.
func TestUnmounted(t *testing.T) {
	root := mount(t, "size=1m")
	s := create(t, root)
	put(t, s, "a", "x")
	if err := unix.Unmount(root, 0); err != nil {
		t.Fatalf("an open store keeps its file system from being unmounted: %v", err)
	}
	if err := s.Put(t.Context(), "b", nil, store.PutOptions{}); !errors.Is(err, store.ErrMissing) {
		t.Errorf("put: %v", err)
	}
	if err := s.Get(t.Context(), "a", nil, 0); !errors.Is(err, store.ErrMissing) {
		t.Errorf("get: %v", err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
		t.Fatal(err) // and it is what the cleanup unmounts
	}
}

func TestPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		testAsNobody(t)
		return
	}
	root := t.TempDir()
	s := create(t, root)
	if err := os.Chmod(filepath.Join(root, ".tmp"), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a", nil, store.PutOptions{}); !errors.Is(err, store.ErrDenied) {
		t.Errorf("put: %v", err)
	}
}

// testAsNobody drops root's exemption for the thread of this test, which dies
// with it.
func testAsNobody(t *testing.T) {
	root := mount(t, "size=1m,mode=0755")
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, create(t, root), "a/b", "x")
	done := make(chan map[string]error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		if err := unix.Setfsuid(65534); err != nil {
			done <- map[string]error{"setfsuid": err}
			return
		}
		errs := make(map[string]error)
		s, err := dir.Open(root)
		if err != nil {
			done <- map[string]error{"open": err}
			return
		}
		errs["put"] = s.Put(t.Context(), "c", nil, store.PutOptions{})
		errs["get"] = s.Get(t.Context(), "a/b", nil, 0)
		errs["delete"] = s.Delete(t.Context(), "a/b")
		for _, err := range s.List(t.Context(), "") {
			errs["list"] = err
		}
		done <- errs
	}()
	errs := <-done
	if len(errs) != 4 {
		t.Fatalf("%v", errs)
	}
	for op, err := range errs {
		if !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s without permission: %v", op, err)
		}
	}
}
