//go:build linux

package restore_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

// TestRepackedParent: a point that is compared with one whose packs were replaced needs
// those that stand for them.
func TestRepackedParent(t *testing.T) {
	e := newEngine(t, mem.New(mem.Config{}))
	dir, want, last := settled(t, e)
	fresh := e.repack(last)
	e.remove(last.Packs)
	p := e.mustBackup(dir)
	if p.Stats.Changed > 0 || p.Parent != string(last.Name) {
		t.Errorf("%d files were read, compared with %q", p.Stats.Changed, p.Parent)
	}
	for _, id := range last.Packs {
		if slices.Contains(p.Packs, id) {
			t.Errorf("the new point names %s, which is gone", id)
		}
	}
	if !slices.Contains(p.Packs, fresh) {
		t.Errorf("the new point does not name %s", fresh)
	}
	e.mustRestore(p.Name, dir, want)
	e.mustRestore(last.Name, dir, want)
	if findings, err := e.verify(); err != nil || len(findings) > 0 {
		t.Logf("verify: %v %v", findings, err) // the first point was not covered
	}
}

// repack puts all that a point needs into new packs, and says so. It returns one of
// them.
func (e *engine) repack(p *catalog.Point) (one pack.ID) {
	e.t.Helper()
	e.item(func(it *catalog.Item, ix backup.Index) error {
		ctx := e.t.Context()
		secret, err := it.Secret(ctx, it.Generation())
		if err != nil {
			return err
		}
		r := it.NewReader(ix)
		record := catalog.Repack{Replaced: slices.Clone(p.Packs), Points: []catalog.PointName{p.Name}}
		var contents []pack.Contents
		for _, id := range p.Packs {
			old, err := r.Packs.Contents(ctx, id)
			if err != nil {
				return err
			}
			b := pack.NewBuilder(secret, it.ID(), it.Generation(), nil)
			at := uint32(crypt.HeaderSize)
			for i, f := range old.Frames {
				raw, err := r.Packs.Frame(ctx, pack.Location{Pack: id, Generation: old.Generation, Type: f.Type, Codec: f.Codec, Frame: uint32(i), At: at, Stored: f.Stored, Raw: f.Raw}, nil)
				if err != nil {
					return err
				}
				at += f.Stored
				f.Codec = 0
				slot, ok := b.Reserve(f, len(raw))
				if !ok {
					return errors.New("the pack is full")
				}
				if _, _, err := slot.Seal(raw, nil); err != nil {
					return err
				}
			}
			b.Close()
			body, c, err := b.Finish()
			if err != nil {
				return err
			}
			if err := e.store.Put(ctx, pack.Key(it.ID(), c.Pack), body, store.PutOptions{}); err != nil {
				return err
			}
			contents, record.By, one = append(contents, c), append(record.By, c.Pack), c.Pack
		}
		if _, _, err := it.PutIndex(ctx, contents, store.PutOptions{}); err != nil {
			return err
		}
		return it.PutRepack(ctx, catalog.NewSession(time.Now(), "test").Name, &record)
	})
	return one
}
