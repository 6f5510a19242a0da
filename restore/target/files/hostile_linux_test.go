package files_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/restore/target/files"
)

// Symlinks in the target lead nowhere.
func TestSymlinksInTheTarget(t *testing.T) {
	outside, top := t.TempDir(), t.TempDir()
	ok(t, os.WriteFile(outside+"/file", []byte("precious"), 0o640))
	ok(t, os.Symlink(outside, top+"/dir"))
	ok(t, os.Symlink(outside+"/file", top+"/file"))
	ok(t, os.Symlink(outside+"/file", top+"/meta"))
	ok(t, os.Symlink(outside+"/new", top+"/dangling"))
	before, err := os.Stat(outside + "/file")
	ok(t, err)
	s := open(t, top, target.Options{})
	root := s.Root()
	if _, err := root.Dir("dir"); !errors.Is(err, target.ErrInTheWay) {
		t.Errorf("directory through a symlink: %v, want %v", err, target.ErrInTheWay)
	}
	if _, err := root.Existing("file"); !errors.Is(err, target.ErrInTheWay) {
		t.Errorf("file through a symlink: %v, want %v", err, target.ErrInTheWay)
	}
	for _, typ := range []tree.Type{tree.File, tree.Dir} {
		n := node("meta", typ, 0)
		n.Mode = 0o777
		if err := root.SetMeta(n); !errors.Is(err, target.ErrInTheWay) {
			t.Errorf("metadata through a symlink: %v, want %v", err, target.ErrInTheWay)
		}
	}
	create(t, root, node("file", tree.File, 3), "new")
	create(t, root, node("dangling", tree.File, 3), "new")
	ok(t, root.Link("meta", root, "file"))
	ok(t, root.Remove("dir"))
	content(t, top+"/file", "new")
	content(t, top+"/meta", "new")
	content(t, outside+"/file", "precious")
	after, err := os.Stat(outside + "/file")
	ok(t, err)
	if after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("metadata outside became %v, %v", after.Mode(), after.ModTime())
	}
	if got := names(t, outside); len(got) != 1 {
		t.Errorf("outside holds %q", got)
	}
}

func TestInTheWay(t *testing.T) {
	top := t.TempDir()
	ok(t, os.MkdirAll(top+"/dir/full", 0o755))
	ok(t, os.WriteFile(top+"/file", nil, 0o644))
	socket, err := net.Listen("unix", top+"/socket")
	ok(t, err)
	defer socket.Close()
	s := open(t, top, target.Options{})
	root := s.Root()
	f, err := root.Create(node("dir", tree.File, 0))
	ok(t, err)
	link := node("dir", tree.Symlink, 0)
	link.Target = "x"
	_, file := root.Dir("file")
	_, existing := root.Existing("dir")
	_, sock := root.Existing("socket")
	for what, err := range map[string]error{
		"commit": f.Commit(), "make": root.Make(link), "link": root.Link("dir", root, "file"),
		"dir": file, "existing": existing, "existing socket": sock,
	} {
		if !errors.Is(err, target.ErrInTheWay) {
			t.Errorf("%s: %v, want %v", what, err, target.ErrInTheWay)
		}
	}
	if got, err := root.Look("socket"); err != nil || got == nil || got.Type != 0 {
		t.Errorf("socket looks like %+v, %v", got, err)
	}
	if got := names(t, top); len(got) != 3 {
		t.Errorf("left behind: %q", got)
	}
	if got, err := root.Look("missing"); got != nil || err != nil {
		t.Errorf("what is not there looks like %v, %v", got, err)
	}
}

func TestRemove(t *testing.T) {
	needRoot(t)
	outside, top := t.TempDir(), t.TempDir()
	ok(t, os.WriteFile(outside+"/file", nil, 0o644))
	ok(t, os.MkdirAll(top+"/d/a/b/c", 0o755))
	ok(t, os.MkdirAll(top+"/m/a/mnt", 0o755))
	ok(t, os.MkdirAll(top+"/bind/here", 0o755))
	ok(t, os.WriteFile(top+"/d/a/file", nil, 0o644))
	ok(t, os.Symlink(outside, top+"/d/a/link"))
	if err := unix.Mount("tmpfs", top+"/m/a/mnt", "tmpfs", 0, ""); err != nil {
		testkit.Missing(t, "permission to mount", err.Error())
	}
	defer unix.Unmount(top+"/m/a/mnt", unix.MNT_DETACH)
	ok(t, os.WriteFile(top+"/m/a/mnt/file", nil, 0o644))
	ok(t, unix.Mount(outside, top+"/bind/here", "", unix.MS_BIND, ""))
	defer unix.Unmount(top+"/bind/here", unix.MNT_DETACH)

	s := open(t, top, target.Options{})
	root := s.Root()
	ok(t, root.Remove("d"))
	ok(t, root.Remove("never there"))
	for _, name := range []string{"m", "bind"} {
		if err := root.Remove(name); err == nil || !strings.Contains(err.Error(), "mounted") {
			t.Errorf("remove %s with a mount in it: %v", name, err)
		}
	}
	if got := names(t, top); strings.Join(got, " ") != "bind m" {
		t.Errorf("left: %q", got)
	}
	for _, p := range []string{outside + "/file", top + "/m/a/mnt/file"} {
		if _, err := os.Stat(p); err != nil {
			t.Errorf("removed beyond the target: %v", err)
		}
	}
}

// mountTmpfs mounts a small file system and unmounts it after the test.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)
	top := t.TempDir()
	if err := unix.Mount("tmpfs", top, "tmpfs", 0, "size="+size); err != nil {
		testkit.Missing(t, "permission to mount", err.Error())
	}
	t.Cleanup(func() { ok(t, unix.Unmount(top, unix.MNT_DETACH)) })
	return top
}

func TestFull(t *testing.T) {
	top := mountTmpfs(t, "64k")
	s := open(t, top, target.Options{})
	f, err := s.Root().Create(node("large", tree.File, 1<<20))
	ok(t, err)
	if _, err := f.WriteAt(make([]byte, 1<<20), 0); !errors.Is(err, target.ErrFull) {
		t.Errorf("write: %v, want %v", err, target.ErrFull)
	}
	f.Abort()
	if got := names(t, top); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

func TestReadOnly(t *testing.T) {
	top := mountTmpfs(t, "64k")
	ok(t, os.WriteFile(top+"/file", nil, 0o644))
	ok(t, unix.Mount("", top, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	s := open(t, top, target.Options{})
	root := s.Root()
	n := node("file", tree.File, 0)
	_, create := root.Create(n)
	_, dir := root.Dir("dir")
	for what, err := range map[string]error{
		"create": create, "dir": dir, "make": root.Make(node("f", tree.FIFO, 0)), "link": root.Link("l", root, "file"),
		"set": root.SetMeta(n), "remove": root.Remove("file"),
	} {
		if !errors.Is(err, target.ErrReadOnly) {
			t.Errorf("%s: %v, want %v", what, err, target.ErrReadOnly)
		}
	}
	tgt, err := files.New(files.Config{Path: top + "/new/target"})
	ok(t, err)
	if _, err := tgt.Open(t.Context(), target.Options{}); !errors.Is(err, target.ErrReadOnly) {
		t.Errorf("open: %v, want %v", err, target.ErrReadOnly)
	}
}

func TestUnprivileged(t *testing.T) {
	top := t.TempDir()
	for _, p := range []string{filepath.Dir(top), top} {
		ok(t, os.Chmod(p, 0o777))
	}
	asNobody(t, func() {
		s := open(t, top, target.Options{})
		root := s.Root()
		own := node("own", tree.File, 1)
		own.UID, own.Mode = nobody, 0o4755
		create(t, root, own, "x")
		same(t, root, own)
		if len(s.lacks) != 0 {
			t.Errorf("own file: reports %v", s.lacks)
		}
		sub, err := root.Dir("sub")
		ok(t, err)
		alien := node("alien", tree.File, 1)
		alien.UID, alien.GID, alien.Mode = 1, 1, 0o6755
		alien.Xattrs = map[string][]byte{"user.a": []byte("kept"), "unheard.of": nil}
		create(t, sub, alien, "x")
		got, err := sub.Look("alien")
		ok(t, err)
		if got.UID != nobody || got.Mode != 0o755 || got.MTime != alien.MTime || string(got.Xattrs["user.a"]) != "kept" {
			t.Errorf("somebody else's file became %+v", got)
		}
		var said []string
		for _, l := range s.lacks {
			said = append(said, l.Path+": "+l.Reason)
		}
		all := strings.Join(said, "\n")
		if len(said) != 2 || !strings.Contains(all, "sub/alien: owner 1:1") || !strings.Contains(all, "sub/alien: attribute unheard.of") {
			t.Errorf("reports\n%s", all)
		}
		char := node("char", tree.CharDevice, 0)
		char.Device = 1<<32 | 3
		if err := root.Make(char); !errors.Is(err, target.ErrPrivilege) {
			t.Errorf("device: %v, want %v", err, target.ErrPrivilege)
		}
		ok(t, root.Make(func() *tree.Node { n := node("fifo", tree.FIFO, 0); n.UID = nobody; return n }()))
		ok(t, s.Close())
	})
	if got := names(t, top); strings.Join(got, " ") != "fifo own sub" {
		t.Errorf("left: %q", got)
	}
}
