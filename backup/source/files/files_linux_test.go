package files_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/testkit"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		testkit.Missing(t, "root", "run the tests as root")
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestKinds(t *testing.T) {
	top := makeTree(t, "file", "mode", "one", "d/x")
	ok(t, os.Link(top+"/one", top+"/d/two"))
	ok(t, unix.Chmod(top+"/mode", 0o6751))
	ok(t, unix.Mkfifo(top+"/fifo", 0o640))
	long := strings.Repeat("long/", 800)
	symlink(t, long, top+"/link")
	socket, err := net.Listen("unix", top+"/socket")
	ok(t, err)
	defer socket.Close()
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, top+"/file", []unix.Timespec{{Sec: 5}, {Sec: -7, Nsec: 123456789}}, 0))
	odd := "odd\xff\xfe\n name"
	write(t, top+"/"+odd, "odd")

	f := walk(t, files.Config{Paths: []string{top}}, nil)
	f.noErrors(t)
	f.expect(t, top, "file", "mode", "one", "d", "d/x", "d/two", "fifo", "link", odd)
	got := f.under(top)
	if n := got["file"]; n.MTime != (tree.Time{Sec: -7, Nsec: 123456789}) || n.Size != 4 || n.Link != nil || n.Xattrs != nil {
		t.Errorf("file: %+v", n.Node)
	}
	if n := got["mode"]; n.Mode != 0o6751 {
		t.Errorf("mode %o, want 6751", n.Mode)
	}
	if n := got["fifo"]; n.Type != tree.FIFO || n.Mode != 0o640&^umask() {
		t.Errorf("fifo: %+v", n.Node)
	}
	if n := got["link"]; n.Type != tree.Symlink || n.Target != long {
		t.Errorf("symlink to %d bytes, want %d", len(n.Target), len(long))
	}
	if a, b := got["one"].Link, got["d/two"].Link; a == nil || b == nil || *a != *b {
		t.Errorf("links %v and %v, want equal ones", a, b)
	}
	if s, ok := f.skips[top+"/socket"]; !ok || s.Fault {
		t.Errorf("socket: skip %+v, %v; want a note", s, ok)
	}
	if os.Getuid() == 0 && (f.users[0] != "root" || f.groups[0] != "root") {
		t.Errorf("names of the owners: %v, %v", f.users, f.groups)
	}
}

func umask() uint32 {
	old := unix.Umask(0)
	unix.Umask(old)
	return uint32(old)
}

func TestDevices(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	ok(t, unix.Mknod(top+"/char", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	ok(t, unix.Mknod(top+"/block", unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
	f := walk(t, files.Config{Paths: []string{top}}, nil)
	f.noErrors(t)
	got := f.under(top)
	if n := got["char"]; n == nil || n.Type != tree.CharDevice || n.Device != 1<<32|3 {
		t.Errorf("char device: %+v", n)
	}
	if n := got["block"]; n == nil || n.Type != tree.BlockDevice || n.Device != 259<<32|70000 {
		t.Errorf("block device: %+v", n)
	}
}

func TestXattrs(t *testing.T) {
	top := makeTree(t, "file", "d/x")
	symlink(t, "file", top+"/link")
	long := bytes.Repeat([]byte{7, 0}, 1000)
	for _, p := range []string{"/file", "/d"} {
		if err := unix.Setxattr(top+p, "user.coffer", long, 0); err == unix.EOPNOTSUPP {
			testkit.Missing(t, "a file system with user attributes", "set TMPDIR to one")
		} else {
			ok(t, err)
		}
		ok(t, unix.Setxattr(top+p, "user.empty", nil, 0))
	}
	if os.Getuid() == 0 {
		ok(t, unix.Lsetxattr(top+"/link", "trusted.coffer", []byte("of the link"), 0))
	}
	if out, err := exec.CommandContext(t.Context(), "setfacl", "-m", "u:12345:rw", top+"/file").CombinedOutput(); err != nil {
		testkit.Missing(t, "setfacl", fmt.Sprintf("apt-get install acl: %v: %s", err, out))
	}
	f := walk(t, files.Config{Paths: []string{top}}, nil)
	f.noErrors(t)
	got := f.under(top)
	for _, p := range []string{"file", "d"} {
		equal(t, p, got[p].Xattrs["user.coffer"], long)
		if v, ok := got[p].Xattrs["user.empty"]; !ok || len(v) != 0 {
			t.Errorf("%s: empty attribute is %q, %v", p, v, ok)
		}
	}
	acl := make([]byte, 256)
	n, err := unix.Getxattr(top+"/file", "system.posix_acl_access", acl)
	ok(t, err)
	equal(t, "ACL", got["file"].Xattrs["system.posix_acl_access"], acl[:n])
	if os.Getuid() == 0 {
		equal(t, "link", got["link"].Xattrs["trusted.coffer"], []byte("of the link"))
	}
	if got["d/x"].Xattrs != nil {
		t.Errorf("file without attributes has %v", got["d/x"].Xattrs)
	}
}

// A tree whose paths no system call takes.
func TestDeep(t *testing.T) {
	top := t.TempDir()
	name := strings.Repeat("n", 200)
	fd, err := unix.Open(top, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	ok(t, err)
	const levels = 30
	for range levels {
		ok(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_RDONLY, 0)
		ok(t, err)
		unix.Close(fd)
		fd = next
	}
	h, err := unix.Openat(fd, "bottom", unix.O_CREAT|unix.O_WRONLY, 0o600)
	ok(t, err)
	_, err = unix.Write(h, []byte("here"))
	ok(t, err)
	ok(t, unix.Fsetxattr(h, "user.deep", []byte("too"), 0))
	unix.Close(h)
	unix.Close(fd)
	f := walk(t, files.Config{Paths: []string{top}}, nil)
	f.noErrors(t)
	bottom := f.under(top)[strings.Repeat(name+"/", levels)+"bottom"]
	if bottom == nil {
		t.Fatal("the bottom was not reached")
	}
	equal(t, "bottom", bottom.content, []byte("here"))
	equal(t, "attribute", bottom.Xattrs["user.deep"], []byte("too"))
}

func TestHoles(t *testing.T) {
	const mib = 1 << 20
	data := bytes.Repeat([]byte("data"), 16<<10)
	tests := []struct {
		name  string
		size  int64
		write map[int64][]byte
		want  []span
	}{
		{"dense", 0, map[int64][]byte{0: data}, []span{{0, 64 << 10}}},
		{"empty", 0, nil, nil},
		{"hole", 3*mib + 5, nil, nil},
		{"middle", 8 * mib, map[int64][]byte{mib: data, 4 * mib: data[:4096]}, []span{{mib, 64 << 10}, {4 * mib, 4096}}},
		{"ends", 2*mib + 4, map[int64][]byte{0: data[:4096], 2 * mib: []byte("tail")}, []span{{0, 4096}, {2 * mib, 4}}},
	}
	top := t.TempDir()
	want := make(map[string][]byte)
	for _, tt := range tests {
		h, err := os.Create(filepath.Join(top, tt.name))
		ok(t, err)
		for off, p := range tt.write {
			_, err := h.WriteAt(p, off)
			ok(t, err)
		}
		if tt.size > 0 {
			ok(t, h.Truncate(tt.size))
		}
		ok(t, h.Close())
		want[tt.name], err = os.ReadFile(h.Name())
		ok(t, err)
	}
	f := walk(t, files.Config{Paths: []string{top}}, nil)
	f.noErrors(t)
	got := f.under(top)
	for _, tt := range tests {
		equal(t, tt.name, got[tt.name].content, want[tt.name])
		if fmt.Sprint(got[tt.name].spans) != fmt.Sprint(tt.want) {
			t.Errorf("%s: ranges of data %v, want %v", tt.name, got[tt.name].spans, tt.want)
		}
	}
}

func TestOneFileSystem(t *testing.T) {
	needRoot(t)
	top := makeTree(t, "r/x", "r/mnt/hidden", "r/keep/")
	for _, p := range []string{"/r/mnt", "/r/keep"} {
		if err := unix.Mount("tmpfs", top+p, "tmpfs", 0, ""); err != nil {
			testkit.Missing(t, "permission to mount", err.Error())
		}
		defer unix.Unmount(top+p, unix.MNT_DETACH)
		write(t, top+p+"/inside", "other")
	}
	f := walk(t, files.Config{Paths: []string{top + "/r", top + "/r/keep"}, OneFileSystem: true}, nil)
	f.noErrors(t)
	f.expect(t, top, "r", "r/x", "r/mnt", "r/keep", "r/keep/inside")
	f.partial(t, top, "r/mnt")
	if s, ok := f.skips[top+"/r/mnt"]; !ok || s.Fault {
		t.Errorf("mount point: skip %+v, %v; want a note", s, ok)
	}
	f = walk(t, files.Config{Paths: []string{top + "/r"}}, nil)
	f.expect(t, top, "r", "r/x", "r/mnt", "r/mnt/inside", "r/keep", "r/keep/inside")
}

// open opens the session's directory at path.
func openDir(t *testing.T, cfg files.Config, path string) source.Dir {
	t.Helper()
	src, err := files.New(cfg)
	ok(t, err)
	session, err := src.Open(t.Context(), func(source.Skip) {})
	ok(t, err)
	t.Cleanup(func() { session.Close() })
	d := session.Root()
	for name := range strings.SplitSeq(path[1:], "/") {
		next, err := d.Dir(t.Context(), name)
		ok(t, err)
		t.Cleanup(func() { next.Close() })
		d = next
	}
	return d
}

func TestChangesWhileRead(t *testing.T) {
	top := makeTree(t)
	tests := map[string]struct {
		change func(path string) error
		want   string
	}{
		"grows":   {func(p string) error { return appendTo(p, "more") }, "0123456789more"},
		"shrinks": {func(p string) error { return os.Truncate(p, 4) }, "0123"},
		"rewritten in place with its old mtime": {func(p string) error {
			info, err := os.Stat(p)
			return errors.Join(err, os.WriteFile(p, []byte("9876543210"), 0o644), os.Chtimes(p, info.ModTime(), info.ModTime()))
		}, "9876543210"},
	}
	for name, tt := range tests {
		write(t, filepath.Join(top, name), "0123456789")
		d := openDir(t, files.Config{Paths: []string{top}}, top)
		h, err := d.Open(t.Context(), name)
		ok(t, err)
		_, _, err = h.NextData()
		ok(t, err)
		_, err = h.Read(make([]byte, 5))
		ok(t, err)
		ok(t, tt.change(filepath.Join(top, name)))
		_, err = io.Copy(io.Discard, h)
		ok(t, err)
		if _, changed, err := h.Changed(); err != nil || !changed {
			t.Errorf("%s: changed %v, %v; want true", name, changed, err)
		}
		ok(t, h.Rewind())
		content, _ := contentOf(t, h)
		equal(t, name, content, []byte(tt.want))
		node, changed, err := h.Changed()
		if err != nil || changed || node.Size != uint64(len(tt.want)) {
			t.Errorf("%s, read again: size %d, changed %v, %v", name, node.Size, changed, err)
		}
		ok(t, h.Close())
	}
}

func appendTo(path, s string) error {
	h, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = h.WriteString(s)
	return errors.Join(err, h.Close())
}

// What was listed is gone or has become something else.
func TestSwapped(t *testing.T) {
	top := makeTree(t, "secret/x", "r/gone", "r/d/y", "r/f")
	d := openDir(t, files.Config{Paths: []string{top + "/r"}}, top+"/r")
	if _, err := d.Names(t.Context()); err != nil {
		t.Fatal(err)
	}
	ok(t, os.RemoveAll(top+"/r/d"))
	ok(t, os.Remove(top+"/r/f"))
	ok(t, os.Remove(top+"/r/gone"))
	symlink(t, top+"/secret", top+"/r/d")
	symlink(t, top+"/secret/x", top+"/r/f")
	if _, _, err := d.Stat(t.Context(), "gone", nil); !errors.Is(err, source.ErrVanished) {
		t.Errorf("stat of what is gone: %v, want vanished", err)
	}
	if _, err := d.Open(t.Context(), "gone"); !errors.Is(err, source.ErrVanished) {
		t.Errorf("open of what is gone: %v, want vanished", err)
	}
	if sub, err := d.Dir(t.Context(), "d"); err == nil {
		sub.Close()
		t.Error("a symlink in place of a directory was followed")
	}
	if h, err := d.Open(t.Context(), "f"); err == nil {
		h.Close()
		t.Error("a symlink in place of a file was followed")
	}
	ok(t, os.Remove(top+"/r/f"))
	ok(t, unix.Mkfifo(top+"/r/f", 0o600))
	if h, err := d.Open(t.Context(), "f"); err == nil {
		h.Close()
		t.Error("a FIFO in place of a file was opened")
	}
}

// asNobody runs do with the file permissions of an ordinary user.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nobody = 65534
	_, err := unix.SetfsuidRetUid(nobody)
	ok(t, err)
	defer unix.SetfsuidRetUid(0)
	do()
}

func TestUnreadable(t *testing.T) {
	top := makeTree(t, "r/readable", "r/file", "r/dir/x", "passage/sub/y")
	for _, p := range []string{filepath.Dir(top), top} {
		ok(t, os.Chmod(p, 0o755))
	}
	ok(t, os.Chmod(top+"/r/file", 0o600))
	ok(t, os.Chmod(top+"/r/dir", 0o700))
	ok(t, os.Chmod(top+"/passage", 0o711))
	asNobody(t, func() {
		f := walk(t, files.Config{Paths: []string{top + "/r", top + "/passage/sub"}}, nil)
		for _, p := range []string{"/r/file", "/r/dir"} {
			if err := f.errs[top+p]; !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s: %v, want permission denied", p, err)
			}
		}
		if len(f.errs) != 2 {
			t.Errorf("errors %v, want two", f.errs)
		}
		f.expect(t, top, "r", "r/readable", "r/file", "r/dir", "passage", "passage/sub", "passage/sub/y")
	})
}

// All names of a file have one Link, also when the file system got another
// number since the last backup and the content is taken from there.
func TestRelink(t *testing.T) {
	top := makeTree(t, "a", "alone")
	ok(t, os.Link(top+"/a", top+"/b"))
	first := walk(t, files.Config{Paths: []string{top}}, nil)
	today := *first.entries[top+"/a"].Link
	first.entries[top+"/a"].Link = &tree.Inode{Dev: 999, Inode: today.Inode}
	was := first.entries[top+"/a"].Node
	second := walk(t, files.Config{Paths: []string{top}}, first)
	a := second.entries[top+"/a"]
	if !a.same || a.Link == nil || *a.Link != today {
		t.Errorf("same %v, link %v; want %v", a.same, a.Link, today)
	}
	if was.Link.Dev != 999 {
		t.Error("the node of the last point was changed")
	}
}
