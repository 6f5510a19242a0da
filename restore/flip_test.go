//go:build linux

package restore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

// TestFlip flips one bit in every object of a vault, in several places of each.
// Verify, or opening the vault, finds every one, and no file comes back wrong.
func TestFlip(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	e.mustBackup(dir)
	change(t, dir)
	point := e.mustBackup(dir)
	good := contents(t, dir)

	flips := 0
	for info, err := range e.store.List(t.Context(), "") {
		check(t, err)
		raw, err := store.ReadAll(t.Context(), e.store, info.Key, store.MaxObject)
		check(t, err)
		places := []int{0, 7, len(raw) / 4, len(raw) / 2, len(raw) - 45, len(raw) - 1}
		if len(raw) > 1<<20 {
			places = []int{40, len(raw) / 2, len(raw) - 50}
		}
		for _, at := range places {
			objects := e.store.(*mem.Store).Clone()
			flipped := bytes.Clone(raw)
			flipped[at] ^= 1 << (at % 8)
			check(t, objects.Tamper(info.Key, func([]byte) []byte { return flipped }))
			e := e.on(t, objects)
			flips++
			if !e.notices() {
				t.Errorf("bit %d of byte %d of %s: verify did not find it", at%8, at, info.Key)
			}
			to := filepath.Join(t.TempDir(), "back")
			e.restore(point.Name, to, nil) //nolint:errcheck // whatever it says, what is there must be right
			for path, data := range contents(t, filepath.Join(to, dir)) {
				if want, ok := good[path]; !ok || data != want {
					t.Errorf("bit %d of byte %d of %s: %q came back wrong", at%8, at, info.Key, path)
				}
			}
		}
		if _, err := pack.Scrub(raw); err != nil && strings.HasPrefix(string(info.Key), "items/") {
			t.Errorf("scrub of the good %s: %v", info.Key, err)
		}
	}
	t.Logf("%d flipped bits", flips)
}

// notices tells whether opening and verifying the vault finds a fault.
func (e *engine) notices() bool {
	findings, err := e.verify()
	if err != nil || len(findings) > 0 {
		return true
	}
	v, err := catalog.Open(context.Background(), e.store, catalog.OpenOptions{ID: e.id, Ring: e.ring})
	if err != nil {
		return true
	}
	defer v.Close()
	findings, err = restore.VerifyRecords(context.Background(), v)
	return err != nil || len(findings) > 0
}

// contents returns the content of every file below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

// TestForeignObjects puts objects of the vault in each other's places. None is
// taken for another.
func TestForeignObjects(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	e.mustBackup(dir)
	change(t, dir)
	e.mustBackup(dir)
	var packs, points []store.Key
	for info, err := range e.store.List(t.Context(), "items/") {
		check(t, err)
		switch {
		case strings.Contains(string(info.Key), "/packs/"):
			packs = append(packs, info.Key)
		case strings.Contains(string(info.Key), "/points/"):
			points = append(points, info.Key)
		}
	}
	swap := func(a, b store.Key) {
		objects := e.store.(*mem.Store).Clone()
		other, err := store.ReadAll(t.Context(), objects, b, store.MaxObject)
		check(t, err)
		check(t, objects.Tamper(a, func([]byte) []byte { return other }))
		if e := e.on(t, objects); !e.notices() {
			t.Errorf("%s in the place of %s was not noticed", b, a)
		}
	}
	swap(packs[0], packs[1])
	swap(points[0], points[1])
	swap(points[0], packs[0])
}

// TestOlderIndex lets the vault lose an index object that the local index was made
// of; the next backup finds the packs again and names them.
func TestOlderIndex(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir := sample(t)
	want := manifest(t, dir)
	e.mustBackup(dir)
	e.loseLastIndex()
	p := e.mustBackup(dir)
	if p.Stats.New > 64<<10 {
		t.Errorf("%d bytes were stored again", p.Stats.New)
	}
	e.mustRestore(p.Name, dir, want)
	if findings, err := e.verify(); err != nil || len(findings) > 0 {
		t.Errorf("verify: %v %v", findings, err)
	}
	check(t, e.use(func(it *catalog.Item, ix backup.Index) error {
		left, err := ix.Unsourced(context.Background())
		if len(left) > 0 {
			t.Errorf("%d packs are still in no index", len(left))
		}
		return err
	}))
}
