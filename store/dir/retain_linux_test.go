package dir_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
	"github.com/cofferbackup/coffer/store/storetest"
)

// disk is an ext4 of a test's own, in a file.
type disk struct{ image, at string }

func newDisk(t *testing.T) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "a mount of ext4", "run the test as root")
	}
	d := &disk{image: filepath.Join(t.TempDir(), "image"), at: t.TempDir()}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, 256<<20); err != nil {
		t.Fatal(err)
	}
	d.run(t, "mke2fs", "-q", "-t", "ext4", d.image)
	d.mount(t)
	t.Cleanup(func() {
		if err := unix.Unmount(d.at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *disk) run(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		testkit.Missing(t, name, "it is in Debian's e2fsprogs and mount")
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func (d *disk) mount(t *testing.T) {
	t.Helper()
	d.run(t, "mount", "-o", "loop", d.image, d.at)
}

// clocked opens the store of a folder with a clock that the test sets.
func clocked(t *testing.T, root string, now *time.Time) *dir.Store {
	t.Helper()
	s, err := dir.OpenWith(dir.Config{Root: root, Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func until(t time.Time) store.PutOptions {
	return store.PutOptions{Retention: store.Retention{Until: t}}
}

func TestContractOnExt4(t *testing.T) {
	d := newDisk(t)
	n := 0
	storetest.Run(t, func(t *testing.T) store.Store {
		n++
		return create(t, filepath.Join(d.at, fmt.Sprint(n)))
	})
}

// TestFrozen: not even root changes or removes what is under retention, until its
// time has come and through everything that happens to the file system.
func TestFrozen(t *testing.T) {
	d := newDisk(t)
	root, now := filepath.Join(d.at, "vault"), noon
	put(t, create(t, root), "items/free", "x")
	s := clocked(t, root, &now)
	for key, opts := range map[store.Key]store.PutOptions{"items/a": until(noon.Add(time.Hour)), "items/b": {}} {
		if err := s.Put(t.Context(), key, store.Body{[]byte("keep me")}, opts); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Retain(t.Context(), "items/b", store.Retention{Until: noon.Add(2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(d.at, 0); err != nil {
		t.Fatalf("an open store keeps its file system from being unmounted: %v", err)
	}
	d.mount(t)
	for _, key := range []store.Key{"items/a", "items/b"} {
		path := filepath.Join(root, string(key))
		for what, err := range map[string]error{
			"remove": os.Remove(path), "rename": os.Rename(path, path+"x"), "link": os.Link(path, path+"x"),
			"write": os.WriteFile(path, nil, 0o600), "truncate": os.Truncate(path, 1), "chmod": os.Chmod(path, 0o777),
			"remove all": os.RemoveAll(filepath.Dir(path)), "change the retention": unix.Setxattr(path, "user.coffer.retain", nil, 0),
		} {
			if err == nil {
				t.Errorf("%s %s succeeds", what, key)
			}
		}
		if err := s.Delete(t.Context(), key); !errors.Is(err, store.ErrLocked) {
			t.Errorf("delete %s before the time: %v", key, err)
		}
		if got, err := store.ReadAll(t.Context(), s, key, 10); err != nil || string(got) != "keep me" {
			t.Errorf("%s: %q, %v", key, got, err)
		}
	}
	now = noon.Add(time.Hour)
	if err := s.Delete(t.Context(), "items/a"); err != nil {
		t.Errorf("delete after the time: %v", err)
	}
	if err := s.Delete(t.Context(), "items/b"); !errors.Is(err, store.ErrLocked) {
		t.Errorf("delete before the time: %v", err)
	}
	now = noon.Add(2 * time.Hour)
	if err := s.Delete(t.Context(), "items/b"); err != nil {
		t.Errorf("delete after the time: %v", err)
	}
	if got := list(t, s); len(got) != 0 {
		t.Errorf("the store holds %q", got)
	}
}

// TestFrozenByHand: what an administrator froze is kept, and it is said why.
func TestFrozenByHand(t *testing.T) {
	d := newDisk(t)
	s := create(t, filepath.Join(d.at, "vault"))
	put(t, s, "a", "x")
	d.run(t, "chattr", "+i", filepath.Join(d.at, "vault", "a"))
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "chattr -i") {
		t.Errorf("delete: %v", err)
	}
}

// TestRetainedAfterCrash: what a crash can leave behind is kept by the store, frozen by
// the next Retain, and in nobody's way.
func TestRetainedAfterCrash(t *testing.T) {
	d := newDisk(t)
	root := filepath.Join(d.at, "vault")
	now := noon
	put(t, create(t, root), "a", "x")
	path := filepath.Join(root, "a")
	if err := unix.Setxattr(path, "user.coffer.retain", []byte("governance 2026-11-22T13:00:00Z"), 0); err != nil {
		t.Fatal(err)
	}
	// Frozen before it got its name, and the second name of an object.
	stale, link := filepath.Join(root, ".tmp", "put-1"), filepath.Join(root, ".tmp", "put-2")
	write(t, stale, "half")
	d.run(t, "chattr", "+i", stale)
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	d.run(t, "chattr", "+i", path)

	s := clocked(t, root, &now)
	if got := unfinished(t, root); len(got) != 1 || got[0] != link {
		t.Errorf(".tmp holds %q; the link of a frozen object has to stay", got)
	}
	d.run(t, "chattr", "-i", path)
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, store.ErrLocked) {
		t.Errorf("delete before the time: %v", err)
	}
	if err := s.Retain(t.Context(), "a", store.Retention{Until: noon}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err == nil {
		t.Error("after Retain the object can be removed")
	}
	if got, err := s.RetainedUntil(t.Context(), "a"); err != nil || !got.Equal(noon.Add(time.Hour)) {
		t.Errorf("retained until %v, %v", got, err)
	}
}

func TestDamagedRetention(t *testing.T) {
	d := newDisk(t)
	s := create(t, filepath.Join(d.at, "vault"))
	for i, text := range []string{"", "x", "governance", "governance never", "compliance 2026-11-22T13:00:00Z", strings.Repeat("x", 100)} {
		key := store.Key(fmt.Sprint(i))
		put(t, s, key, "x")
		if err := unix.Setxattr(filepath.Join(d.at, "vault", string(key)), "user.coffer.retain", []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), key); err == nil || !strings.Contains(err.Error(), "user.coffer.retain") {
			t.Errorf("delete with a retention of %q: %v", text, err)
		}
	}
}

// TestRetainAtOnce: the latest time counts, whoever comes last.
func TestRetainAtOnce(t *testing.T) {
	d := newDisk(t)
	s := create(t, filepath.Join(d.at, "vault"))
	put(t, s, "a", "x")
	last := time.Now().Add(100 * time.Hour).Truncate(time.Second)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if err := s.Retain(t.Context(), "a", store.Retention{Until: last.Add(-time.Duration(i*7%32) * time.Hour)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := s.RetainedUntil(t.Context(), "a"); err != nil || !got.Equal(last) {
		t.Errorf("retained until %v, %v; want %v", got, err, last)
	}
}

// TestRetainAndDelete: one of the two is refused, and the object is there if it was
// Delete.
func TestRetainAndDelete(t *testing.T) {
	d := newDisk(t)
	s := create(t, filepath.Join(d.at, "vault"))
	for i := range 100 {
		key := store.Key(fmt.Sprint(i))
		put(t, s, key, "x")
		var retained, deleted error
		var wg sync.WaitGroup
		wg.Go(func() { retained = s.Retain(t.Context(), key, until(time.Now().Add(time.Hour)).Retention) })
		wg.Go(func() { deleted = s.Delete(t.Context(), key) })
		wg.Wait()
		_, err := s.Stat(t.Context(), key)
		switch {
		case retained == nil && errors.Is(deleted, store.ErrLocked) && err == nil:
		case errors.Is(retained, store.ErrNotExist) && deleted == nil && errors.Is(err, store.ErrNotExist):
		default:
			t.Errorf("retain: %v; delete: %v; then: %v", retained, deleted, err)
		}
	}
}

// wantUnsupported checks that a retention is refused for a reason, and that nothing
// comes of it.
func wantUnsupported(t *testing.T, s *dir.Store, root, why string, r store.Retention) {
	t.Helper()
	err := s.Put(t.Context(), "kept", store.Body{[]byte("x")}, store.PutOptions{Retention: r})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), why) {
		t.Errorf("put: %v; want a refusal that says %q", err, why)
	}
	if err := s.Retain(t.Context(), "there", r); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), why) {
		t.Errorf("retain: %v; want a refusal that says %q", err, why)
	}
	if got, left := list(t, s), unfinished(t, root); len(got) != 1 || len(left) != 0 {
		t.Errorf("the store holds %q, and .tmp %q", got, left)
	}
}

func TestRetentionUnsupported(t *testing.T) {
	hour := store.Retention{Until: time.Now().Add(time.Hour)}
	t.Run("compliance", func(t *testing.T) {
		root := thawed(t, t.TempDir())
		s := create(t, root)
		put(t, s, "there", "x")
		wantUnsupported(t, s, root, "ask for governance", store.Retention{Until: hour.Until, Compliance: true})
	})
	t.Run("no attributes", func(t *testing.T) {
		root := mountAs(t, "ramfs", "")
		s := create(t, root)
		put(t, s, "there", "x")
		wantUnsupported(t, s, root, "use ext4", hour)
		if err := s.Delete(t.Context(), "there"); err != nil {
			t.Error(err)
		}
	})
	t.Run("no right", func(t *testing.T) {
		d := newDisk(t)
		for _, path := range []string{filepath.Dir(d.at), d.at} {
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread ends with this function
			if err := unix.Setfsuid(65534); err != nil {
				t.Error(err)
				return
			}
			root := filepath.Join(d.at, "vault")
			if err := dir.Create(root); err != nil {
				t.Error(err)
				return
			}
			s, err := dir.Open(root)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Put(t.Context(), "there", nil, store.PutOptions{}); err != nil {
				t.Error(err)
			}
			wantUnsupported(t, s, root, "CAP_LINUX_IMMUTABLE", hour)
			if err := s.Delete(t.Context(), "there"); err != nil {
				t.Errorf("delete after a retention that was refused: %v", err)
			}
		}()
		<-done
	})
}
