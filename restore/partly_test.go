//go:build linux

package restore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

// broken is a local index that fails after a number of lookups.
type broken struct {
	*sqlite.Index
	left *atomic.Int64
}

var errBroken = errors.New("disk I/O error")

func brokenAfter(n int64) func(*sqlite.Index) backup.Index {
	left := new(atomic.Int64)
	left.Store(n)
	return func(ix *sqlite.Index) backup.Index { return broken{ix, left} }
}

func (b broken) Lookup(ctx context.Context, id chunk.ID) (pack.Location, bool, error) {
	if b.left.Add(-1) < 0 {
		return pack.Location{}, false, errBroken
	}
	return b.Index.Lookup(ctx, id)
}

// locate returns where the first tree chunk of a directory of a point is, or of a
// file the first chunk.
func (e *engine) locate(name catalog.PointName, path string) (loc pack.Location, key store.Key) {
	e.t.Helper()
	check(e.t, e.use(func(it *catalog.Item, ix backup.Index) error {
		ctx := context.Background()
		p, err := it.Point(ctx, name)
		if err != nil {
			return err
		}
		r := it.NewReader(ix)
		node, err := restore.Find(ctx, r, p.Root, path)
		if err != nil {
			return err
		}
		if len(node.Trees) > 0 {
			loc, err = r.Find(ctx, node.Trees[0], pack.Tree)
		} else {
			loc, err = r.Find(ctx, node.Content[0].ID, pack.Data)
		}
		key = pack.Key(it.ID(), loc.Pack)
		return err
	}))
	return loc, key
}

// TestDamagedDirectory damages the frame that a directory and those below it are in,
// but not those above it. Everything else comes back, the damage is said, and what is in
// such a directory of the target is not taken for superfluous.
func TestDamagedDirectory(t *testing.T) {
	objects := mem.New(mem.Config{})
	e := newEngine(t, objects)
	dir := sample(t)
	e.mustBackup(dir)
	e.mustBackup(dir) // nothing is too young now
	check(t, os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o600))
	p := e.mustBackup(dir)
	loc, key := e.locate(p.Name, dir+"/small/05")
	if top, _ := e.locate(p.Name, dir); top.Pack == loc.Pack {
		t.Fatal("the directory above is in the same pack")
	}
	check(t, objects.Tamper(key, func(b []byte) []byte {
		b[loc.At+20] ^= 1
		return b
	}))

	to := filepath.Join(t.TempDir(), "back")
	mine := filepath.Join(to, dir, "small/05/mine")
	check(t, os.MkdirAll(filepath.Dir(mine), 0o755))
	check(t, os.WriteFile(mine, nil, 0o600))
	result, done, err := e.restore(p.Name, to, func(c *restore.Config) { c.Delete = true })
	check(t, err)
	// Which of the directories above it share its frame differs from run to run.
	if !slices.ContainsFunc(result.Skipped, func(s catalog.Skip) bool { return strings.HasPrefix(dir+"/small/05", string(s.Path)) }) {
		t.Errorf("the damaged directory is not among what was skipped: %v", result.Skipped)
	}
	if done.Skipped.Load() == 0 {
		t.Error("nothing was counted as skipped")
	}
	for _, name := range []string{"big", "new", "sparse", "empty", "small/05/mine"} {
		if _, err := os.Lstat(filepath.Join(to, dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestTruncatedPack cuts off a pack in its middle. What is before the cut comes
// back, although it is read together with what is behind.
func TestTruncatedPack(t *testing.T) {
	objects := mem.New(mem.Config{})
	e := newEngine(t, objects)
	dir := filepath.Join(t.TempDir(), "data")
	check(t, os.MkdirAll(dir, 0o755))
	data := randomBytes(3 << 20)
	for i, name := range []string{"a", "b", "c"} {
		check(t, os.WriteFile(filepath.Join(dir, name), data[i<<20:(i+1)<<20], 0o600))
	}
	e.mustBackup(dir)
	check(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o600))
	p := e.mustBackup(dir) // its trees are in another pack
	lost, end := "", uint32(0)
	var key store.Key
	for _, name := range []string{"a", "b", "c"} {
		loc, k := e.locate(p.Name, dir+"/"+name)
		if loc.At >= end {
			lost, end, key = name, loc.At, k
		}
	}
	check(t, objects.Tamper(key, func(b []byte) []byte { return b[:end+100] }))
	to := filepath.Join(t.TempDir(), "back")
	result, _, err := e.restore(p.Name, to, nil)
	check(t, err)
	if len(result.Skipped) != 1 || string(result.Skipped[0].Path) != dir+"/"+lost {
		t.Errorf("skipped %v, want %s alone", result.Skipped, lost)
	}
}

// TestUnreadableList: a backup goes on if the list of extents of an unchanged file cannot
// be read, whether bytes of it are wrong, missing or all gone; and if it looks at every
// chunk, as a pack is known to be damaged, it reads that file again.
func TestUnreadableList(t *testing.T) {
	for name, spoil := range map[string]func(objects *mem.Store, key store.Key, at uint32) error{
		"flipped": func(objects *mem.Store, key store.Key, at uint32) error {
			return objects.Tamper(key, func(raw []byte) []byte { raw[at+20] ^= 1; return raw })
		},
		"cut": func(objects *mem.Store, key store.Key, at uint32) error {
			return objects.Tamper(key, func(raw []byte) []byte { return raw[:at+20] })
		},
		"gone": func(objects *mem.Store, key store.Key, _ uint32) error {
			return objects.Delete(context.Background(), key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			objects := mem.New(mem.Config{})
			e := newEngine(t, objects)
			dir := t.TempDir()
			path, data := filepath.Join(dir, "listed"), randomBytes(600*4096)
			f, err := os.Create(path)
			check(t, err)
			for i := range 600 { // with a hole behind each piece
				_, err := f.WriteAt(data[i*4096:(i+1)*4096], int64(i)<<17)
				check(t, err)
			}
			check(t, f.Close())
			past := time.Now().Add(-time.Hour)
			check(t, os.Chtimes(path, past, past))
			e.mustBackup(dir)
			for i := range 10 {
				check(t, os.WriteFile(filepath.Join(dir, "new"+strconv.Itoa(i)), nil, 0o600))
			}
			p := e.mustBackup(dir) // its trees are in another pack
			var list pack.Location
			check(t, e.use(func(it *catalog.Item, ix backup.Index) error {
				r := it.NewReader(ix)
				node, err := restore.Find(t.Context(), r, p.Root, path)
				if err != nil {
					return err
				}
				list, err = r.Find(t.Context(), node.Content[0].ID, pack.List)
				check(t, spoil(objects, pack.Key(it.ID(), list.Pack), list.At))
				return err
			}))
			for i := range 10 { // so many that the list of packs is to be made anew
				check(t, os.Remove(filepath.Join(dir, "new"+strconv.Itoa(i))))
			}
			p = e.mustBackup(dir)
			check(t, e.use(func(_ *catalog.Item, ix backup.Index) error {
				trees := p.Packs[slices.IndexFunc(p.Packs, func(id pack.ID) bool { return id != list.Pack })]
				return ix.(*sqlite.Index).SetNotes(t.Context(), catalog.NoteDamaged, map[pack.ID]int64{trees: 1})
			}))
			if p := e.mustBackup(dir); p.Stats.Read < uint64(len(data)) {
				t.Errorf("%d bytes were read", p.Stats.Read)
			}
		})
	}
}

// TestLocalFaultIsNoDamage: a local index that fails ends a restore and a verify. It
// does not make files of the vault look damaged.
func TestLocalFaultIsNoDamage(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	p := e.mustBackup(dir)
	for _, lookups := range []int64{0, 40, 200} {
		bad := *e
		bad.wrap = brokenAfter(lookups)
		result, _, err := bad.restore(p.Name, filepath.Join(t.TempDir(), "back"), nil)
		if !errors.Is(err, errBroken) || len(result.Skipped) > 0 {
			t.Errorf("restore after %d lookups: %v, skipped %v", lookups, err, result.Skipped)
		}
		bad.wrap = brokenAfter(lookups)
		findings, err := bad.verify()
		if !errors.Is(err, errBroken) || len(findings) > 0 {
			t.Errorf("verify after %d lookups: %v, findings %v", lookups, err, findings)
		}
	}
}

// TestVerifyLists: a point that does not list a pack which it needs is found, and
// the pack is named; one that lists another pack with the same chunks is right.
func TestVerifyLists(t *testing.T) {
	objects := mem.New(mem.Config{})
	e := newEngine(t, objects)
	dir := sample(t)
	first := e.mustBackup(dir)

	// Hide all that the first backup put, so that the second puts it again.
	hidden := map[store.Key][]byte{}
	for info, err := range objects.List(t.Context(), "items/") {
		check(t, err)
		if strings.Contains(string(info.Key), "/packs/") || strings.Contains(string(info.Key), "/index/") || strings.Contains(string(info.Key), "/points/") {
			hidden[info.Key], err = store.ReadAll(t.Context(), objects, info.Key, store.MaxObject)
			check(t, err)
			check(t, objects.Delete(t.Context(), info.Key))
		}
	}
	second := e.mustBackup(dir)
	for key, data := range hidden {
		check(t, objects.Put(t.Context(), key, store.Body{data}, store.PutOptions{}))
	}
	if findings, err := e.verify(); err != nil || len(findings) > 0 {
		t.Fatalf("chunks in two packs: %v, %v", err, findings)
	}

	// A point like the second without one of its packs, and after it a good one.
	var gone pack.ID
	check(t, e.use(func(it *catalog.Item, _ backup.Index) error {
		p, err := it.Point(t.Context(), second.Name)
		if err != nil {
			return err
		}
		gone = p.Packs[0]
		p.Packs = p.Packs[1:]
		session, err := it.Begin(t.Context(), time.Unix(0, p.Started+int64(time.Millisecond)), "test")
		if err != nil {
			return err
		}
		p.Name, p.Started = session.Name, session.Started.UnixNano()
		return it.PutPoint(t.Context(), p, store.PutOptions{})
	}))
	findings, err := e.verify()
	check(t, err)
	if len(findings) != 1 || !strings.Contains(findings[0].Err.Error(), "does not name") {
		t.Fatalf("a list without pack %s (first backup %s): %v", gone, first.Name, findings)
	}
}
