//go:build linux

package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store/pack"
)

// fillMain adds packs one by one, and says how many there are.
func fillMain(path string) error {
	x, err := sqlite.Open(ctx, sqlite.Config{Path: path, Logger: discard})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if err := x.Add(ctx, fmt.Sprint(i), []pack.Contents{scalePack(i<<12, killed)}); err != nil {
			return err
		}
		fmt.Println(i + 1)
	}
}

// killed is how many chunks an Add of TestKilled has.
const killed = 4 << 10 / every

// TestKilled: after kill -9 everything is there that Add had said is.
func TestKilled(t *testing.T) {
	for _, after := range []int{1, 32, 65} { // the 32nd Add merges, and the 64th
		path := filepath.Join(t.TempDir(), "index")
		cmd := child(t, fillEnv, path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines, done := bufio.NewScanner(out), 0
		for done < after && lines.Scan() {
			done++
		}
		must(t, cmd.Process.Kill())
		for lines.Scan() {
			done++
		}
		if err := cmd.Wait(); err == nil || done < after {
			t.Fatalf("after %d packs: %v", done, err)
		}

		x := open(t, path)
		names, err := x.Sources(t.Context())
		must(t, err)
		if len(names) != done && len(names) != done+1 {
			t.Errorf("%d packs after a crash, want %d or one more", len(names), done)
		}
		var all []pack.Contents
		for i := range len(names) {
			all = append(all, scalePack(i<<12, killed))
		}
		same(t, x, all)
		unknown(t, x, scaleID(len(names)<<12))
	}
}

// filled returns a closed index with packs in it, of which the first are in pages.
func filled(t testing.TB) (path string, all []pack.Contents) {
	path = filepath.Join(t.TempDir(), "index")
	x := open(t, path)
	for i := range 17 {
		all = append(all, scalePack(i<<13, 8<<10))
	}
	must(t, x.Add(t.Context(), "a", all))
	more := newMaker(9).packs(100)
	must(t, x.Add(t.Context(), "b", more))
	must(t, x.Forget(t.Context(), []pack.ID{all[3].Pack, more[5].Pack}))
	must(t, x.Close())
	return path, slices.Delete(append(slices.Delete(all, 3, 4), more...), 21, 22)
}

func logged() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

// TestNotAnIndex: whatever is at the path, Open begins anew, says so once, and does
// not destroy what may be somebody else's.
func TestNotAnIndex(t *testing.T) {
	good, _ := filled(t)
	image, err := os.ReadFile(good)
	must(t, err)
	for _, test := range []struct {
		name string
		make func(path string) error
		kept string // what its name ends with then; "" if it is not kept
		logs int
	}{
		{"zero length", func(p string) error { return os.WriteFile(p, nil, 0o600) }, "", 0},
		{"text", func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("dear diary ", 2000)), 0o600) }, ".damaged", 1},
		{"other database", func(p string) error { return other(p, "CREATE TABLE t (a); INSERT INTO t VALUES (1)") }, ".foreign", 1},
		{"header only", func(p string) error { return os.WriteFile(p, image[:100], 0o600) }, ".damaged", 1},
		{"half", func(p string) error { return os.WriteFile(p, image[:len(image)/2], 0o600) }, ".damaged", 1},
		{"older version", func(p string) error {
			return errors.Join(os.WriteFile(p, image, 0o600), other(p, "PRAGMA user_version = 0"))
		}, "", 1},
		{"newer version", func(p string) error {
			return errors.Join(os.WriteFile(p, image, 0o600), other(p, "PRAGMA user_version = 99"))
		}, "", 1},
		{"no table", func(p string) error {
			return errors.Join(os.WriteFile(p, image, 0o600), other(p, "DROP TABLE page"))
		}, ".damaged", 1},
		{"no state", func(p string) error {
			return errors.Join(os.WriteFile(p, image, 0o600), other(p, "DELETE FROM state"))
		}, ".damaged", 1},
		{"wrong state", func(p string) error {
			return errors.Join(os.WriteFile(p, image, 0o600), other(p, "UPDATE state SET body = zeroblob(length(body))"))
		}, ".damaged", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "index")
			must(t, test.make(path))
			was, err := os.ReadFile(path)
			must(t, err)
			logger, lines := logged()
			x, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: logger})
			must(t, err)
			defer x.Close()
			same(t, x, nil)
			packs := newMaker(10).packs(5)
			must(t, x.Add(t.Context(), "a", packs))
			same(t, x, packs)
			if n := strings.Count(lines.String(), "\n"); n != test.logs {
				t.Errorf("%d lines logged, want %d: %s", n, test.logs, lines)
			}
			for _, suffix := range []string{".foreign", ".damaged"} {
				if kept, err := os.ReadFile(path + suffix); (err == nil) != (suffix == test.kept) || err == nil && !bytes.Equal(kept, was) {
					t.Errorf("kept with %s: %v, want it with %q", suffix, err == nil, test.kept)
				}
			}
		})
	}
}

// other runs SQL on a file as another program would.
func other(path, query string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(context.Background(), query)
	return errors.Join(err, db.Close())
}

// inspect asks a damaged index for everything. What it says may be missing or an
// error, and must not be wrong.
func inspect(t *testing.T, x *sqlite.Index, all []pack.Contents, known map[chunk.ID][]pack.Location) (right, missing, damaged int) {
	t.Helper()
	note := func(ok bool, err error) bool {
		switch {
		case errors.Is(err, sqlite.ErrDamaged):
			damaged++
		case err != nil:
			t.Errorf("damage is %v", err)
		case !ok:
			missing++
		default:
			right++
			return true
		}
		return false
	}
	n := 0
	for _, c := range all {
		for id := range c.Locations {
			if n++; n%31 != 0 {
				continue
			}
			loc, ok, err := x.Lookup(t.Context(), id)
			if note(ok, err) && !slices.Contains(known[id], loc) {
				t.Errorf("chunk %s at %+v, want %+v", id, loc, known[id])
			}
		}
	}
	for _, c := range all[len(all)-60:] {
		got, ok, err := x.Contents(t.Context(), c.Pack)
		if note(ok, err) && !got.Equal(c) {
			t.Errorf("contents of %s are wrong", c.Pack)
		}
	}
	return right, missing, damaged
}

// TestFlipped: a changed byte anywhere in the file never makes a wrong answer.
func TestFlipped(t *testing.T) {
	good, all := filled(t)
	image, err := os.ReadFile(good)
	must(t, err)
	m, known := newMaker(11), places(all)
	var errs, misses, anew int
	files := 60
	if raced {
		files = 12
	}
	for i := range files {
		bad := slices.Clone(image)
		at := m.IntN(len(bad))
		switch {
		case i%3 == 0: // where most of what is not contents is
			at = m.IntN(8)<<13 + m.IntN(200)
		case i%3 == 1: // the start of any page: its type, its pointers
			at = at&^(1<<13-1) + m.IntN(64)
		}
		bad[at] ^= byte(1 + m.IntN(255))
		path := filepath.Join(t.TempDir(), "index")
		must(t, os.WriteFile(path, bad, 0o600))
		logger, lines := logged()
		x, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: logger})
		must(t, err)
		_, missing, damaged := inspect(t, x, all, known)
		if lines.Len() > 0 {
			anew++
		}
		misses, errs = misses+min(1, missing), errs+min(1, damaged)
		if damaged > 0 {
			must(t, x.Close())
			if aside, err := os.ReadFile(path + ".damaged"); err != nil || len(aside) == 0 {
				t.Errorf("a damaged file is not set aside: %v", err)
			}
			x = open(t, path)
			same(t, x, nil)
		}
		must(t, x.Close())
	}
	t.Logf("of %d files %d began anew, %d had errors, %d missed something", files, anew, errs, misses)
	if errs == 0 || anew == 0 && !raced { // it takes more files to see that
		t.Error("no damage was noticed")
	}
}

// TestSwapped: rows in each other's place are damage, though each is intact.
func TestSwapped(t *testing.T) {
	for _, table := range []string{"part", "page"} {
		path, all := filled(t)
		must(t, other(path, `UPDATE `+table+` SET body = (SELECT body FROM `+table+` b WHERE b.n = (SELECT min(n) FROM `+table+`))
			WHERE n < (SELECT min(n) + 40 FROM `+table+`)`))
		if _, _, damaged := inspect(t, open(t, path), all, places(all)); damaged == 0 {
			t.Errorf("swapped rows of %s were not noticed", table)
		}
		path, all = filled(t)
		must(t, other(path, `DELETE FROM `+table+` WHERE n < (SELECT min(n) + 3 FROM `+table+`)`))
		if _, _, damaged := inspect(t, open(t, path), all, places(all)); damaged == 0 {
			t.Errorf("missing rows of %s were not noticed", table)
		}
	}
}

// TestWrongRows: a number or a name that has changed is damage, though SQLite sees none.
func TestWrongRows(t *testing.T) {
	id := pack.ID{1, 2, 3}
	for _, change := range []string{"UPDATE note SET value = value + (1 << 20)", "UPDATE note SET kind = 2", "UPDATE source SET name = 'ab'", "UPDATE session SET name = 't'"} {
		path := filepath.Join(t.TempDir(), "index")
		x := open(t, path)
		must(t, x.Add(t.Context(), "a", newMaker(15).packs(1)))
		must(t, x.SetNotes(t.Context(), catalog.NoteRetained, map[pack.ID]int64{id: 1 << 40}))
		must(t, x.OwnSession(t.Context(), "s"))
		ask := func() error {
			_, err := x.Note(t.Context(), catalog.NoteRetained, id)
			for _, kind := range []catalog.Note{catalog.NoteRetained, catalog.NoteRead} {
				for _, bad := range x.Notes(t.Context(), kind) {
					err = errors.Join(err, bad)
				}
			}
			_, sources := x.Sources(t.Context())
			_, sessions := x.OwnSessions(t.Context())
			return errors.Join(err, sources, sessions)
		}
		must(t, ask())
		must(t, x.Close())
		must(t, other(path, change))
		x = open(t, path)
		if err := ask(); !errors.Is(err, sqlite.ErrDamaged) {
			t.Errorf("%s: %v", change, err)
		}
		must(t, x.Close())
	}
}

func FuzzDamaged(f *testing.F) {
	path, all := filled(f)
	image, err := os.ReadFile(path)
	must(f, err)
	known := places(all)
	f.Add(uint32(0), []byte("SQLite"))
	f.Add(uint32(8192), []byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, with []byte) {
		bad := slices.Clone(image)
		copy(bad[int(at)%len(bad):], with)
		path := filepath.Join(t.TempDir(), "index")
		must(t, os.WriteFile(path, bad, 0o600))
		inspect(t, open(t, path), all, known)
	})
}

// TestInMemory: without a path an index is as good, and leaves nothing.
func TestInMemory(t *testing.T) {
	t.Chdir(t.TempDir())
	x := open(t, "")
	packs := newMaker(14).packs(30)
	must(t, x.Add(t.Context(), "a", packs))
	same(t, x, packs)
	must(t, x.Forget(t.Context(), []pack.ID{packs[3].Pack}))
	must(t, x.OwnSession(t.Context(), "s"))
	same(t, x, slices.Delete(packs, 3, 4))
	same(t, open(t, ""), nil) // another one
	must(t, x.Close())
	if left, err := os.ReadDir("."); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func TestUnwritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sealed")
	must(t, os.Mkdir(dir, 0o700))
	readOnly(t, dir)
	_, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "index"), Logger: discard})
	if !errors.Is(err, durable.ErrState) || !strings.Contains(err.Error(), dir) || errors.Is(err, sqlite.ErrDamaged) || errors.Is(err, sqlite.ErrBusy) {
		t.Errorf("read-only folder: %v", err)
	}
}

// readOnly makes dir a read-only file system; mode bits would not stop root.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		must(t, os.Chmod(dir, 0o500))
		return
	}
	mount(t, dir, "ro")
}

func mount(t *testing.T, dir, options string) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil {
		testkit.Missing(t, "the right to mount", fmt.Sprintf("run as root (%s)", out))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// TestFull: a full disk is an error that says so, and what was added before stays.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	mount(t, dir, "size=4m")
	path := filepath.Join(dir, "index")
	x := open(t, path)
	var all []pack.Contents
	var err error
	for i := 0; err == nil; i++ {
		c := scalePack(i<<11, 2<<10)
		if err = x.Add(t.Context(), fmt.Sprint(i), []pack.Contents{c}); err == nil {
			all = append(all, c)
		}
	}
	if !strings.Contains(err.Error(), "no space left") || !errors.Is(err, durable.ErrState) || errors.Is(err, sqlite.ErrDamaged) {
		t.Errorf("full disk: %v", err)
	}
	if len(all) == 0 {
		t.Fatal("nothing fitted")
	}
	same(t, x, all)
	must(t, x.Close())
	x = open(t, path)
	same(t, x, all)
	must(t, x.Close())
}

func TestCancelled(t *testing.T) {
	x := open(t, filepath.Join(t.TempDir(), "index"))
	packs := newMaker(12).packs(2)
	must(t, x.Add(t.Context(), "a", packs))
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, errs := x.Lookup(done, packs[0].Frames[0].Chunks[0].ID)
	for _, err := range []error{errs, x.Add(done, "b", packs), x.Forget(done, []pack.ID{packs[0].Pack}), x.Disown(done), x.End(done)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	for _, err := range x.Packs(done) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	same(t, x, packs)
}

// TestRemove: an index goes with all that lies beside it, and one that is not there is gone
// already.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "index")
	must(t, sqlite.Remove(path))
	for _, suffix := range []string{"", "-wal", "-journal", "-shm", ".damaged", ".foreign"} {
		must(t, os.WriteFile(path+suffix, nil, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(dir, "index2"), nil, 0o600))
	must(t, sqlite.Remove(path))
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "index2" {
		t.Errorf("left %v, %v", left, err)
	}
}
