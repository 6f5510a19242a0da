package files_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/restore/target"
)

// layout returns the ranges of data in a file.
func layout(t *testing.T, path string) string {
	t.Helper()
	h, err := os.Open(path)
	ok(t, err)
	defer h.Close()
	var b strings.Builder
	for off := int64(0); ; {
		data, err := unix.Seek(int(h.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return b.String()
		}
		ok(t, err)
		off, err = unix.Seek(int(h.Fd()), data, unix.SEEK_HOLE)
		ok(t, err)
		fmt.Fprintf(&b, "%d+%d ", data, off-data)
	}
}

const mib = 1 << 20

func TestHoles(t *testing.T) {
	top := t.TempDir()
	s := open(t, top, target.Options{})
	root := s.Root()
	block := bytes.Repeat([]byte("data"), 1024)
	f, err := root.Create(node("sparse", tree.File, 8*mib+3))
	ok(t, err)
	for _, at := range []int64{4 * mib, mib} { // in any order
		_, err := f.WriteAt(block, at)
		ok(t, err)
	}
	ok(t, f.Commit())
	hole, err := root.Create(node("hole", tree.File, 5*mib))
	ok(t, err)
	ok(t, hole.Commit())
	want := make([]byte, 8*mib+3)
	copy(want[mib:], block)
	copy(want[4*mib:], block)
	content(t, top+"/sparse", string(want))
	content(t, top+"/hole", string(make([]byte, 5*mib)))
	if got, want := layout(t, top+"/sparse"), fmt.Sprintf("%d+4096 %d+4096 ", mib, 4*mib); got != want {
		t.Errorf("data at %q, want %q", got, want)
	}
	if got := layout(t, top+"/hole"); got != "" {
		t.Errorf("data at %q in a hole", got)
	}
}

func TestReuse(t *testing.T) {
	top := t.TempDir()
	block := bytes.Repeat([]byte("data"), 16<<10) // 64 KiB
	h, err := os.Create(top + "/old")
	ok(t, err)
	for _, at := range []int64{0, 2 * mib, 6 * mib} {
		_, err := h.WriteAt(block, at)
		ok(t, err)
	}
	const size = 8*mib + 100
	ok(t, h.Truncate(size))
	ok(t, h.Close())
	want, err := os.ReadFile(top + "/old")
	ok(t, err)

	s := open(t, top, target.Options{})
	root := s.Root()
	old, err := root.Existing("old")
	ok(t, err)
	defer old.Close()
	buf := make([]byte, 20)
	if _, err := old.ReadAt(buf, 2*mib+1); err != nil || string(buf) != "atadatadatadatadatad" {
		t.Errorf("existing content %q, %v", buf, err)
	}
	f, err := root.Create(node("old", tree.File, size))
	ok(t, err)
	ok(t, f.Reuse(old, 0, 3*mib+17)) // not in whole blocks
	_, err = f.WriteAt([]byte("changed"), 4*mib)
	ok(t, err)
	ok(t, f.Reuse(old, 5*mib, size-5*mib))
	if err := f.Reuse(old, 8*mib, 101); err == nil {
		t.Error("reused what is not there")
	}
	ok(t, f.Commit())
	copy(want[4*mib:], "changed")
	content(t, top+"/old", string(want))
	if got, want := layout(t, top+"/old"), fmt.Sprintf("0+65536 %d+65536 %d+4096 %d+65536 ", 2*mib, 4*mib, 6*mib); got != want {
		t.Errorf("data at %q, want %q", got, want)
	}
}

func TestLink(t *testing.T) {
	top := t.TempDir()
	s := open(t, top, target.Options{})
	root := s.Root()
	sub, err := root.Dir("sub")
	ok(t, err)
	create(t, sub, node("first", tree.File, 1), "1")
	ok(t, sub.Link("second", sub, "first"))
	create(t, root, node("third", tree.File, 3), "old")
	from, err := s.Root().Dir("sub") // opened a second time, beside the first
	ok(t, err)
	for range 2 { // the second time it is that link already
		ok(t, root.Link("third", from, "first"))
	}
	ok(t, from.Finish(nil))
	ok(t, sub.Finish(node("sub", tree.Dir, 0)))
	info, err := os.Stat(top + "/third")
	ok(t, err)
	if n := info.Sys().(*syscall.Stat_t).Nlink; n != 3 {
		t.Errorf("%d names, want 3", n)
	}
	if got := names(t, top); strings.Join(got, " ") != "sub third" {
		t.Errorf("left behind: %q", got)
	}
	if err := root.Link("x", root, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("link to nothing: %v", err)
	}
}

func TestSetMeta(t *testing.T) {
	top := t.TempDir()
	s := open(t, top, target.Options{})
	root := s.Root()
	for _, typ := range []tree.Type{tree.File, tree.Dir} {
		first := node(typ.String(), typ, 0)
		first.Xattrs = map[string][]byte{"user.keep": []byte("1"), "user.change": []byte("1"), "user.drop": []byte("1")}
		if typ == tree.File {
			create(t, root, first, "")
		} else {
			d, err := root.Dir(first.Name)
			ok(t, err)
			ok(t, d.Finish(first))
		}
		same(t, root, first)
		second := node(first.Name, typ, 0)
		second.Mode, second.MTime = 0o4510, tree.Time{Sec: 99, Nsec: 5}
		second.Xattrs = map[string][]byte{"user.keep": []byte("1"), "user.change": []byte("2"), "user.new": []byte("1")}
		if os.Getuid() == 0 {
			second.UID, second.GID = 5, 6
		}
		ok(t, root.SetMeta(second))
		same(t, root, second)
		ok(t, root.SetMeta(second))
		same(t, root, second)
	}
}

func TestOwners(t *testing.T) {
	needRoot(t)
	opts := target.Options{
		Users:  map[uint32]string{5000: "nobody", 5001: "no such user here", nobody: "daemon"},
		Groups: map[uint32]string{6000: "root"},
	}
	tests := []struct {
		numeric          bool
		uid, gid         uint32
		wantUID, wantGID uint32
	}{
		{false, 5000, 6000, nobody, 0},
		{false, 5001, 6001, 5001, 6001},
		{false, nobody, 0, 1, 0},
		{true, 5000, 6000, 5000, 6000},
	}
	for _, tt := range tests {
		top := t.TempDir()
		o := opts
		o.NumericOwner = tt.numeric
		s := open(t, top, o)
		n := node("f", tree.File, 0)
		n.UID, n.GID = tt.uid, tt.gid
		create(t, s.Root(), n, "")
		info, err := os.Stat(top + "/f")
		ok(t, err)
		if st := info.Sys().(*syscall.Stat_t); st.Uid != tt.wantUID || st.Gid != tt.wantGID {
			t.Errorf("%+v: owner %d:%d", tt, st.Uid, st.Gid)
		}
		same2, err := s.Root().Look("f")
		ok(t, err)
		if same2.UID != tt.uid || same2.GID != tt.gid && tt.gid != 0 {
			t.Errorf("%+v: looks like %d:%d", tt, same2.UID, same2.GID)
		}
	}
}

func TestDryRun(t *testing.T) {
	top := t.TempDir()
	ok(t, os.Mkdir(top+"/dir", 0o755))
	ok(t, os.WriteFile(top+"/dir/file", []byte("old"), 0o644))
	ok(t, os.WriteFile(top+"/.coffer-00000000.tmp", nil, 0o600))
	ok(t, os.Chmod(top+"/.coffer-00000000.tmp", os.ModeSticky|0o600))
	before := listing(t, top)
	s := open(t, top, target.Options{DryRun: true})
	root := s.Root()
	d, err := root.Dir("dir")
	ok(t, err)
	if n, err := d.Look("file"); err != nil || n == nil || n.Size != 3 {
		t.Errorf("existing file looks like %v, %v", n, err)
	}
	create(t, d, node("file", tree.File, 3), "new")
	ok(t, d.Make(node("fifo", tree.FIFO, 0)))
	ok(t, d.SetMeta(node("file", tree.File, 3)))
	ok(t, d.Finish(node("dir", tree.Dir, 0)))
	if err := root.Make(node("dir", tree.FIFO, 0)); !errors.Is(err, target.ErrInTheWay) {
		t.Errorf("make over a directory: %v", err)
	}
	ok(t, root.Remove("dir"))
	if n, err := root.Look("dir"); n != nil || err != nil {
		t.Errorf("what was removed looks like %v, %v", n, err)
	}
	for _, name := range []string{"dir", "new"} {
		d, err := root.Dir(name)
		ok(t, err)
		if got, err := d.Names(); err != nil || len(got) != 0 {
			t.Errorf("directory that would be made holds %q, %v", got, err)
		}
		deeper, err := d.Dir("deeper")
		ok(t, err)
		create(t, deeper, node("x", tree.File, 1), "x")
		ok(t, deeper.Finish(nil))
		ok(t, d.Finish(nil))
	}
	ok(t, root.Finish(nil))
	ok(t, s.Finish(t.Context()))
	if after := listing(t, top); after != before {
		t.Errorf("the target became\n%s, was\n%s", after, before)
	}
	nowhere := open(t, top+"/not/there", target.Options{DryRun: true})
	create(t, nowhere.Root(), node("x", tree.File, 1), "x")
	if _, err := os.Stat(top + "/not"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the target was made")
	}
}

func listing(t *testing.T, top string) string {
	t.Helper()
	var b strings.Builder
	ok(t, filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		fmt.Fprintln(&b, p, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return err
	}))
	return b.String()
}

// A user restores over directories of their own that they may not write to. It
// takes a process that is that user.
func TestOwnReadOnlyDirectory(t *testing.T) {
	const asUser = "COFFER_TEST_AS_USER"
	if top := os.Getenv(asUser); top != "" {
		s := open(t, top, target.Options{})
		root := s.Root()
		for _, name := range []string{"finished", "left"} {
			d, err := root.Dir(name)
			ok(t, err)
			create(t, d, node("new", tree.File, 1), "x")
			if name == "left" {
				ok(t, d.Finish(nil))
				continue
			}
			n := node(name, tree.Dir, 0)
			n.Mode = 0o500
			ok(t, d.Finish(n))
		}
		ok(t, root.Remove("removed"))
		return
	}
	needRoot(t)
	top := t.TempDir()
	for _, p := range []string{filepath.Dir(top), top, top + "/left", top + "/finished", top + "/removed", top + "/removed/sub"} {
		ok(t, os.MkdirAll(p, 0o755))
		if p != filepath.Dir(top) {
			ok(t, os.Chown(p, nobody, nobody))
		}
		ok(t, os.Chmod(p, 0o755))
	}
	ok(t, os.WriteFile(top+"/removed/sub/file", nil, 0o644))
	for _, p := range []string{"/left", "/finished", "/removed/sub", "/removed"} {
		ok(t, os.Chmod(top+p, 0o555))
	}
	self, err := os.ReadFile("/proc/self/exe")
	ok(t, err)
	program := filepath.Join(filepath.Dir(top), "program")
	ok(t, os.WriteFile(program, self, 0o755))
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^TestOwnReadOnlyDirectory$")
	cmd.Env = append(os.Environ(), asUser+"="+top)
	cmd.Dir = top
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as an ordinary user: %v\n%s", err, out)
	}
	for p, want := range map[string]fs.FileMode{"/left": 0o555, "/finished": 0o500} {
		info, err := os.Stat(top + p)
		ok(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", p, info.Mode().Perm(), want)
		}
		content(t, top+p+"/new", "x")
	}
	if _, err := os.Stat(top + "/removed"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}
