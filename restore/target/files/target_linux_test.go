package files_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/restore/target/files"
)

// session is an open target and what was reported of it.
type session struct {
	target.Sink
	path string

	mu    sync.Mutex
	lacks []target.Lack
}

func open(t *testing.T, path string, opts target.Options) *session {
	t.Helper()
	s := &session{path: path}
	opts.Report = func(l target.Lack) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lacks = append(s.lacks, l)
	}
	tgt, err := files.New(files.Config{Path: path})
	ok(t, err)
	s.Sink, err = tgt.Open(t.Context(), opts)
	ok(t, err)
	t.Cleanup(func() { ok(t, s.Close()) })
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		testkit.Missing(t, "root", "run the tests as root")
	}
}

// node is a file of this process with content of a size.
func node(name string, typ tree.Type, size int) *tree.Node {
	return &tree.Node{
		Name: name, Type: typ, Mode: 0o644, Size: uint64(size),
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), MTime: tree.Time{Sec: 1_600_000_000, Nsec: 123_456_789},
	}
}

func create(t *testing.T, d target.Dir, n *tree.Node, content string) {
	t.Helper()
	f, err := d.Create(n)
	ok(t, err)
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
	ok(t, f.Commit())
}

func content(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	ok(t, err)
	if string(got) != want {
		t.Errorf("%s holds %.60q, want %.60q", path, got, want)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	ok(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// same compares what a restore can give back.
func same(t *testing.T, d target.Dir, want *tree.Node) {
	t.Helper()
	got, err := d.Look(want.Name)
	ok(t, err)
	if got == nil {
		t.Errorf("%s is not there", want.Name)
		return
	}
	if got.Type != want.Type || got.Mode != want.Mode && want.Type != tree.Symlink || got.UID != want.UID || got.GID != want.GID ||
		got.MTime != want.MTime || got.Size != want.Size || got.Target != want.Target || got.Device != want.Device ||
		!maps.EqualFunc(got.Xattrs, want.Xattrs, bytes.Equal) {
		t.Errorf("%s is\n%+v, want\n%+v", want.Name, got, want)
	}
}

func TestKinds(t *testing.T) {
	top := filepath.Join(t.TempDir(), "made", "for it")
	s := open(t, top, target.Options{})
	root := s.Root()
	plain := node("plain", tree.File, 5)
	plain.Xattrs = map[string][]byte{"user.a": []byte("x"), "user.b": bytes.Repeat([]byte{0}, 900)}
	create(t, root, plain, "12345")
	private := node("private \xff\xfe\n", tree.File, 0)
	private.Mode, private.MTime = 0o600, tree.Time{Sec: -5, Nsec: 1}
	create(t, root, private, "")
	setID := node("set-id", tree.File, 1)
	setID.Mode = 0o6750
	unwritable := node("unwritable", tree.File, 1)
	unwritable.Mode, unwritable.Xattrs = 0, map[string][]byte{"user.a": []byte("y")}
	if os.Getuid() == 0 {
		setID.UID, setID.GID = 4321, 8765
		unwritable.UID = 4321
	}
	create(t, root, setID, "s")
	create(t, root, unwritable, "u")

	link := node("link", tree.Symlink, 0)
	link.Target = strings.Repeat("../", 1300) + "\xff"
	fifo := node("fifo", tree.FIFO, 0)
	fifo.Mode = 0o622
	special := []*tree.Node{link, fifo}
	if os.Getuid() == 0 {
		link.UID = 77
		link.Xattrs = map[string][]byte{"trusted.link": []byte("l")}
		char, block := node("char", tree.CharDevice, 0), node("block", tree.BlockDevice, 0)
		char.Device, block.Device, block.GID = 1<<32|3, 259<<32|70000, 6
		special = append(special, char, block)
	}
	for range 2 { // the second time in place of the first
		for _, n := range special {
			ok(t, root.Make(n))
			same(t, root, n)
		}
	}
	sub := node("sub", tree.Dir, 0)
	sub.Mode, sub.Xattrs = 0o3571, map[string][]byte{"user.d": []byte("z")}
	d, err := root.Dir("sub")
	ok(t, err)
	create(t, d, plain, "12345")
	ok(t, d.Finish(sub))
	for _, n := range []*tree.Node{plain, private, setID, unwritable, sub} {
		same(t, root, n)
	}
	content(t, top+"/plain", "12345")
	content(t, top+"/sub/plain", "12345")
	ok(t, root.Finish(nil))
	ok(t, s.Finish(t.Context()))
	if len(s.lacks) > 0 {
		t.Errorf("reports %v, want none", s.lacks)
	}
	if got := len(names(t, top)); got != 5+len(special) {
		t.Errorf("%d entries in %q", got, names(t, top))
	}
}

func TestACL(t *testing.T) {
	top := t.TempDir()
	for _, args := range [][]string{{"-d", "-m", "u:12345:rwx"}} {
		if out, err := exec.CommandContext(t.Context(), "setfacl", append(args, top)...).CombinedOutput(); err != nil {
			testkit.Missing(t, "setfacl", "apt-get install acl: "+string(out))
		}
	}
	ok(t, os.WriteFile(top+"/model", nil, 0o640))
	out, err := exec.CommandContext(t.Context(), "setfacl", "-b", "-m", "u:777:rw", top+"/model").CombinedOutput()
	if err != nil {
		t.Fatalf("setfacl: %v: %s", err, out)
	}
	s := open(t, top, target.Options{})
	root := s.Root()
	model, err := root.Look("model")
	ok(t, err)
	acl := model.Xattrs["system.posix_acl_access"]
	if acl == nil {
		t.Fatal("the model has no ACL")
	}
	with := node("with", tree.File, 0)
	with.Mode, with.Xattrs = model.Mode, map[string][]byte{"system.posix_acl_access": acl}
	create(t, root, with, "")
	without := node("without", tree.File, 0) // does not keep what it inherits
	create(t, root, without, "")
	sub := node("sub", tree.Dir, 0)
	sub.Mode = 0o755
	d, err := root.Dir("sub")
	ok(t, err)
	create(t, d, without, "")
	same(t, d, without)
	ok(t, d.Finish(sub))
	fifo := node("fifo", tree.FIFO, 0)
	ok(t, root.Make(fifo))
	for _, n := range []*tree.Node{with, without, sub, fifo} {
		same(t, root, n)
	}
	with.Xattrs, with.Mode = nil, 0o600
	ok(t, root.SetMeta(with))
	same(t, root, with)
}

func TestNames(t *testing.T) {
	s := open(t, t.TempDir(), target.Options{})
	root := s.Root()
	for _, name := range []string{"", ".", "..", "a/b", "/", "../x", "a\x00b"} {
		n := node(name, tree.File, 0)
		_, look := root.Look(name)
		_, dir := root.Dir(name)
		_, existing := root.Existing(name)
		_, create := root.Create(n)
		for method, err := range map[string]error{
			"look": look, "dir": dir, "existing": existing, "create": create, "make": root.Make(node(name, tree.FIFO, 0)),
			"link": root.Link(name, root, "x"), "link to": root.Link("x", root, name), "set": root.SetMeta(n), "remove": root.Remove(name),
		} {
			if !errors.Is(err, target.ErrName) {
				t.Errorf("%s %q: %v, want %v", method, name, err, target.ErrName)
			}
		}
	}
}

func TestDeep(t *testing.T) {
	top := t.TempDir()
	s := open(t, top, target.Options{})
	name := strings.Repeat("n", 200)
	dirs := []target.Dir{s.Root()}
	for range 30 {
		d, err := dirs[len(dirs)-1].Dir(name)
		ok(t, err)
		dirs = append(dirs, d)
	}
	bottom := dirs[len(dirs)-1]
	n := node("bottom", tree.File, 4)
	n.Xattrs = map[string][]byte{"user.deep": []byte("too")}
	create(t, bottom, n, "here")
	same(t, bottom, n)
	link := node("link", tree.Symlink, 0)
	link.Target = "bottom"
	ok(t, bottom.Make(link))
	same(t, bottom, link)
	for i := len(dirs) - 1; i > 0; i-- {
		ok(t, dirs[i].Finish(node(name, tree.Dir, 0)))
	}
	ok(t, dirs[0].Remove(name))
	if got := names(t, top); len(got) != 0 {
		t.Errorf("%q is left", got)
	}
}

func TestAppearsWhenComplete(t *testing.T) {
	top := t.TempDir()
	ok(t, os.WriteFile(top+"/there", []byte("old"), 0o644))
	s := open(t, top, target.Options{})
	root := s.Root()
	begin := func(name string) target.File {
		f, err := root.Create(node(name, tree.File, 3))
		ok(t, err)
		_, err = f.WriteAt([]byte("new"), 0)
		ok(t, err)
		return f
	}
	there, gone, left := begin("there"), begin("aborted"), begin("left")
	if got, err := root.Names(); err != nil || strings.Join(got, " ") != "there" {
		t.Errorf("names %q, %v; want only what is complete", got, err)
	}
	content(t, top+"/there", "old")
	ok(t, there.Commit())
	content(t, top+"/there", "new")
	gone.Abort()
	gone.Abort()
	ok(t, s.Close())
	left.Abort()
	if got := names(t, top); strings.Join(got, " ") != "there" {
		t.Errorf("left behind: %q", got)
	}
	if err := left.Commit(); err == nil {
		t.Error("committed after the end")
	}
}

func TestStaleFiles(t *testing.T) {
	top := t.TempDir()
	mk := func(dir, name string, mode os.FileMode) string {
		ok(t, os.MkdirAll(filepath.Join(top, dir), 0o755))
		p := filepath.Join(top, dir, name)
		ok(t, os.WriteFile(p, []byte("x"), 0o600))
		ok(t, os.Chmod(p, mode))
		return p
	}
	for _, dir := range []string{"", "sub"} {
		mk(dir, ".coffer-0123abcd.tmp", os.ModeSticky|0o600)
		mk(dir, ".coffer-11111111.tmp", 0o600) // a user's own
		held, err := os.Open(mk(dir, ".coffer-22222222.tmp", os.ModeSticky|0o600))
		ok(t, err)
		defer held.Close()
		ok(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	}
	s := open(t, top, target.Options{})
	root := s.Root()
	sub, err := root.Dir("sub")
	ok(t, err)
	for dir, d := range map[string]target.Dir{"": root, "sub": sub} {
		var files []string
		for _, n := range names(t, filepath.Join(top, dir)) {
			if n != "sub" {
				files = append(files, n)
			}
		}
		if want := ".coffer-11111111.tmp .coffer-22222222.tmp"; strings.Join(files, " ") != want {
			t.Errorf("%q holds %q, want %q", dir, files, want)
		}
		listed, err := d.Names()
		if err != nil || listed[0] != ".coffer-11111111.tmp" || len(listed) > 1 && listed[1] != "sub" {
			t.Errorf("%q lists %q, %v", dir, listed, err)
		}
	}
}

func TestConcurrent(t *testing.T) {
	top := t.TempDir()
	s := open(t, top, target.Options{})
	root := s.Root()
	d, err := root.Dir("d")
	ok(t, err)
	const workers, each = 4, 100
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				n := node(string(rune('a'+w))+strings.Repeat("x", i), tree.File, 6)
				f, err := d.Create(n)
				if err != nil {
					t.Error(err)
					return
				}
				var parts sync.WaitGroup
				for at, p := range map[int64]string{3: "def", 0: "abc"} {
					parts.Go(func() {
						if _, err := f.WriteAt([]byte(p), at); err != nil {
							t.Error(err)
						}
					})
				}
				parts.Wait()
				if err := f.Commit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ok(t, d.Finish(node("d", tree.Dir, 0)))
	all := names(t, top+"/d")
	if len(all) != workers*each {
		t.Errorf("%d files, want %d", len(all), workers*each)
	}
	for _, n := range all {
		content(t, filepath.Join(top, "d", n), "abcdef")
	}
}

// asNobody runs do with the file permissions of an ordinary user.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, err := unix.SetfsuidRetUid(nobody)
	ok(t, err)
	defer unix.SetfsuidRetUid(0)
	do()
}

const nobody = 65534
