//go:build linux

package restore_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store/dir"
)

var makeVectors = flag.Bool("make-vectors", false, "make docs/vectors anew; only ever for a new format version")

const vectors = "../docs/vectors"

// TestVectors reads the vault in docs/vectors, which was made when the format was
// fixed, and compares every entry with what was written down then.
func TestVectors(t *testing.T) {
	if *makeVectors {
		newVectors(t)
	}
	raw, err := os.ReadFile(filepath.Join(vectors, "kek.pem"))
	check(t, err)
	key := filepath.Join(t.TempDir(), "kek.pem")
	check(t, os.WriteFile(key, raw, 0o600)) // git keeps no modes
	k, err := software.Open(t.Context(), "vectors", "file://"+key)
	check(t, err)
	id, err := os.ReadFile(filepath.Join(vectors, "id"))
	check(t, err)
	vault, err := crypt.ParseVaultID(strings.TrimSpace(string(id)))
	check(t, err)
	st, err := dir.Open(filepath.Join(vectors, "vault"))
	check(t, err)
	e := &engine{t: t, store: st, ring: kek.NewRing(k), id: vault, index: filepath.Join(t.TempDir(), "index")}
	want, err := os.ReadFile(filepath.Join(vectors, "expected"))
	check(t, err)
	same(t, e.describe(), string(want))
	if findings, err := e.verify(); err != nil || len(findings) > 0 {
		t.Errorf("verify: %v %v", findings, err)
	}
}

// describe lists every entry of every point, as docs/vectors/expected does: from the folder
// that was backed up, wherever it was.
func (e *engine) describe() string {
	e.t.Helper()
	var b strings.Builder
	check(e.t, e.use(func(it *catalog.Item, ix backup.Index) error {
		if _, err := it.Sync(e.t.Context(), ix); err != nil {
			return err
		}
		names, err := it.Points(e.t.Context())
		if err != nil {
			return err
		}
		r := it.NewReader(ix)
		for _, name := range names {
			p, err := it.Point(e.t.Context(), name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "point %s\n", name)
			for entry, err := range restore.List(e.t.Context(), r, p.Root, "", 100) {
				if err != nil {
					return err
				}
				n := entry.Node
				_, below, in := strings.Cut(entry.Path+"/", "/vectors/")
				if !in {
					continue // a folder above it
				}
				fmt.Fprintf(&b, "%q %s %04o %d", strings.TrimSuffix("vectors/"+below, "/"), n.Type, n.Mode, n.Size)
				switch n.Type {
				case tree.File:
					sum := sha256.New()
					if err := restore.Cat(e.t.Context(), r, p.Root, entry.Path, sum); err != nil {
						return err
					}
					fmt.Fprintf(&b, " %x", sum.Sum(nil))
				case tree.Symlink:
					fmt.Fprintf(&b, " %q", n.Target)
				}
				b.WriteByte('\n')
			}
		}
		return nil
	}))
	return b.String()
}

// newVectors makes docs/vectors: a vault of two points, small enough for a
// repository, with every construct of the format in it.
func newVectors(t *testing.T) {
	check(t, os.RemoveAll(vectors))
	check(t, os.MkdirAll(vectors, 0o755))
	key, err := filepath.Abs(filepath.Join(vectors, "kek.pem"))
	check(t, err)
	check(t, software.Create(t.Context(), "file://"+key, software.CreateOptions{Bits: 2048}))
	k, err := software.Open(t.Context(), "vectors", "file://"+key)
	check(t, err)
	root := filepath.Join(vectors, "vault")
	check(t, dir.Create(root))
	st, err := dir.Open(root)
	check(t, err)
	ring := kek.NewRing(k)
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: ring, Now: time.Now()})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(vectors, "id"), []byte(v.ID().String()+"\n"), 0o644))
	e := &engine{t: t, store: st, ring: ring, id: v.ID(), index: filepath.Join(t.TempDir(), "index")}

	data := filepath.Join(t.TempDir(), "vectors")
	put := func(name string, content []byte) {
		path := filepath.Join(data, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, content, 0o640))
	}
	put("readme.txt", []byte("A vault to try a reader on.\n"))
	put("empty", nil)
	put("not \xff UTF-8", []byte("names are bytes\n"))
	for i := range 400 {
		put(fmt.Sprintf("many/file%03d", i), []byte(strings.Repeat(fmt.Sprintf("%d ", i), i)))
	}
	put("random", randomBytes(600<<10))
	put("text", bytes.Repeat([]byte("compresses very well\n"), 80_000))
	check(t, os.Symlink("readme.txt", filepath.Join(data, "link")))
	check(t, os.Link(filepath.Join(data, "readme.txt"), filepath.Join(data, "many/hard")))
	lists, err := os.Create(filepath.Join(data, "lists")) // more extents than a node holds
	check(t, err)
	for i := range 600 {
		_, err := lists.WriteAt([]byte(fmt.Sprintf("extent %d", i)), int64(i)<<18)
		check(t, err)
	}
	check(t, lists.Close())
	e.mustBackup(data)
	put("readme.txt", []byte("A vault to try a reader on, changed.\n"))
	check(t, os.RemoveAll(filepath.Join(data, "many/file007")))
	e.mustBackup(data)
	check(t, os.WriteFile(filepath.Join(vectors, "expected"), []byte(e.describe()), 0o644))
	check(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == ".tmp" {
			check(t, os.RemoveAll(path))
			return fs.SkipDir
		}
		return err
	}))
}
