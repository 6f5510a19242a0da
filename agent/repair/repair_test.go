//go:build linux

package repair_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

// harm is a way in which an object can be damaged.
type harm struct {
	name string
	do   func(e *engine, key store.Key)
}

// flip changes a bit of an object, after this percentage of it.
func flip(share int) func([]byte) []byte {
	return func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)*share/100] ^= 4
		return b
	}
}

func harms() []harm {
	tamper := func(change func([]byte) []byte) func(*engine, store.Key) {
		return func(e *engine, key store.Key) { e.check(e.objects.Tamper(key, change)) }
	}
	return []harm{
		{"removed", func(e *engine, key store.Key) { e.check(e.objects.Delete(context.Background(), key)) }},
		{"cut off", tamper(func(b []byte) []byte { return b[:len(b)/2] })},
		{"flipped in its head", tamper(flip(0))},
		{"flipped in the middle", tamper(flip(50))},
		{"flipped at its end", tamper(flip(99))},
	}
}

// TestEveryObject damages and removes every object of an item in turn and repairs it.
// Every point restores byte for byte then, but for what the repair said stays lost; and
// what the source still has is not lost.
func TestEveryObject(t *testing.T) {
	e := newEngine(t)
	e.sample()
	first := e.contents(e.dir)
	names := []catalog.PointName{e.backup().Name}
	e.change()
	last := e.contents(e.dir)
	names = append(names, e.backup().Name)
	want := map[catalog.PointName]map[string]string{names[0]: first, names[1]: last}

	cases, healed, lost := 0, 0, 0
	for info, err := range e.objects.List(t.Context(), "items/") {
		e.check(err)
		for _, h := range harms() {
			t.Run(fmt.Sprintf("%s %s", info.Key[len("items/")+27:], h.name), func(t *testing.T) {
				e := e.on(t)
				h.do(e, info.Key)
				before := e.listing()
				done, err := e.repair()
				e.check(err)
				after := e.listing()
				for key, size := range before {
					if now, ok := after[key]; !ok || now != size {
						t.Errorf("the repair threw %s away", key)
					}
				}
				said := make(map[string]bool)
				for _, f := range done.Left.Findings {
					said[string(f.Object)+f.Path] = true
				}
				point := func(name catalog.PointName) string {
					return string(info.Key[:len("items/")+27]) + "points/" + string(name)
				}
				cases++
				for _, name := range e.points() {
					state, known := want[name]
					if !known { // the repair made it
						state = last
					}
					if said[point(name)] {
						lost++
						continue // the point's own object
					}
					got, skipped, err := e.restore(name)
					e.check(err)
					for path, data := range state {
						switch {
						case got[path] == data:
						case said[point(name)+filepath.Join(e.dir, path)] || said[point(name)+filepath.Dir(filepath.Join(e.dir, path))]:
							lost++
							if last[path] == data {
								t.Errorf("%s of %s stays lost, and the source has it", path, name)
							}
						default:
							t.Errorf("%s of %s is not what it was, and the repair does not say so: %q", path, name, skipped[e.dir+path])
						}
					}
					if maps.EqualFunc(got, state, func(a, b string) bool { return a == b }) {
						healed++
					}
				}
				if len(done.Left.Findings) == 0 {
					again, err := e.repair()
					e.check(err)
					if len(again.Found.Findings) > 0 {
						t.Errorf("after the repair there is %+v", again.Found.Findings)
					}
				}
			})
		}
	}
	t.Logf("%d cases, %d points restored as they were, %d files or points told to be lost", cases, healed, lost)
	if cases < 40 || healed < 2*cases {
		t.Errorf("only %d cases with %d whole points", cases, healed)
	}
}

// listing is what is in the store, with sizes.
func (e *engine) listing() map[store.Key]int64 {
	e.Helper()
	all := make(map[store.Key]int64)
	for info, err := range e.objects.List(e.Context(), "") {
		e.check(err)
		all[info.Key] = info.Size
	}
	return all
}

// keys are those of the item's objects in a folder.
func (e *engine) keys(folder string) (keys []store.Key) {
	e.Helper()
	for info, err := range e.objects.List(e.Context(), "items/") {
		e.check(err)
		if strings.Contains(string(info.Key), "/"+folder+"/") {
			keys = append(keys, info.Key)
		}
	}
	return keys
}

// TestOlderPointHeals: what the source still has heals an older point as well, for a
// reader that knows only the vault, and its list of packs is replaced, so that a prune
// may take the damaged ones and keeps the new.
func TestOlderPointHeals(t *testing.T) {
	e := newEngine(t)
	e.sample()
	state := e.contents(e.dir)
	name := e.backup().Name
	for _, key := range e.keys("packs") {
		e.check(e.objects.Delete(t.Context(), key))
	}
	done, err := e.repair()
	e.check(err)
	if len(done.Left.Findings) > 0 || done.Unread != nil {
		t.Fatalf("left %+v, unread %v", done.Left.Findings, done.Unread)
	}
	if !strings.Contains(strings.Join(done.Repaired, "\n"), "point "+name.String()+" is whole again") {
		t.Errorf("it says %q", done.Repaired)
	}
	got, skipped, err := e.restore(name)
	e.check(err)
	if len(skipped) > 0 || !maps.Equal(got, state) {
		t.Errorf("the older point lacks %v", skipped)
	}
	e.check(e.use(func(it *catalog.Item, ix *sqlite.Index) error {
		p, err := it.Point(t.Context(), name)
		if err != nil {
			return err
		}
		repacks, err := it.Repacks(t.Context())
		if err != nil {
			return err
		}
		for _, id := range repacks.PacksOf(p) {
			if _, err := it.NewReader(ix).Packs.Contents(t.Context(), id); err != nil {
				t.Errorf("the point is said to need a pack that is not good: %v", err)
			}
		}
		for _, id := range p.Packs {
			for _, needed := range repacks.PacksOf(p) {
				if id == needed {
					t.Errorf("the point is said to need pack %s, which is gone", id)
				}
			}
		}
		return nil
	}))
}

// TestRepackRecordIsDamaged: a repack record that does not open any more is put down
// anew, and the points that it was of restore.
func TestRepackRecordIsDamaged(t *testing.T) {
	e := newEngine(t)
	e.sample()
	state := e.contents(e.dir)
	name := e.backup().Name
	for _, key := range e.keys("packs") {
		e.check(e.objects.Delete(t.Context(), key))
	}
	var records []store.Key
	for range 2 {
		if _, err := e.repair(); err != nil {
			t.Fatal(err)
		}
		before := len(records)
		records = e.keys("repacks")
		if len(records) != before+1 {
			t.Fatalf("there are %d repack records after there were %d", len(records), before)
		}
		e.check(e.objects.Tamper(records[0], func(b []byte) []byte { return append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^1) }))
	}
	got, skipped, err := e.restore(name)
	e.check(err)
	if len(skipped) > 0 || !maps.Equal(got, state) {
		t.Errorf("the point lacks %v", skipped)
	}
}

// TestPrunedMeanwhile: what a prune removes while a repair is at work is not leaned on,
// and what is left in damaged packs is saved, though others had it.
func TestPrunedMeanwhile(t *testing.T) {
	ctx := t.Context()
	e := newEngine(t)
	e.sample()
	first := e.backup()
	m := catalog.Mark{Created: later(), Packs: slices.Clone(first.Packs)}
	e.check(e.use(func(it *catalog.Item, _ *sqlite.Index) error { return it.PutMark(ctx, &m) }))
	second := e.backup() // stores everything once more
	e.check(e.use(func(it *catalog.Item, _ *sqlite.Index) error {
		err := e.objects.Delete(ctx, it.MarkKey(m.ID))
		for _, id := range first.Packs {
			err = errors.Join(err, e.objects.Tamper(pack.Key(it.ID(), id), func(b []byte) []byte {
				b = bytes.Clone(b)
				b[200] ^= 1 // in the first frame
				return b
			}))
		}
		return err
	}))
	noSource := errors.New("the source is gone")
	e.instead = func(it *catalog.Item) error {
		e.check(it.PutRemoved(ctx, []catalog.PointName{second.Name}))
		e.check(it.PutOutcome(ctx, pack.ID{7}.String(), second.Packs))
		e.check(e.objects.Delete(ctx, it.PointKey(second.Name)))
		for _, id := range second.Packs {
			e.check(e.objects.Delete(ctx, pack.Key(it.ID(), id)))
		}
		return noSource
	}
	done, err := e.repair()
	e.check(err)
	if !errors.Is(done.Unread, noSource) {
		t.Errorf("the source was read: %v", done.Unread)
	}
	if says := strings.Join(done.Repaired, "\n"); !strings.Contains(says, "that damaged packs still gave") {
		t.Errorf("nothing was saved: %q", says)
	}
	e.check(e.use(func(it *catalog.Item, _ *sqlite.Index) error {
		repacks, err := it.Repacks(ctx)
		for _, id := range repacks.PacksOf(first) {
			_, serr := e.objects.Stat(ctx, pack.Key(it.ID(), id))
			err = errors.Join(err, serr)
		}
		return err
	}))
}

// TestSourceIsGone: without the source nothing can be stored again, and what is lost is
// told of by point and path.
func TestSourceIsGone(t *testing.T) {
	e := newEngine(t)
	e.sample()
	name := e.backup().Name
	e.check(e.objects.Tamper(e.keys("packs")[0], flip(50)))
	e.check(os.RemoveAll(e.dir))
	done, err := e.repair()
	e.check(err)
	if done.Unread == nil {
		t.Error("a source that is gone was read")
	}
	if len(done.Left.Points) != 1 || done.Left.Points[0] != name {
		t.Errorf("lost are %v", done.Left.Points)
	}
	_, skipped, err := e.restore(name)
	e.check(err)
	if len(skipped) == 0 {
		t.Fatal("nothing is lost")
	}
	for path := range skipped {
		told := false
		for _, f := range done.Left.Findings {
			told = told || f.Path == path && errors.Is(f.Err, crypt.ErrDamaged)
		}
		if !told {
			t.Errorf("%s is lost and not told of", path)
		}
	}
}

// TestCrash kills a repair at every write to the store, both ways. Whatever was whole
// is whole after it, and the next repair ends it.
func TestCrash(t *testing.T) {
	e := newEngine(t)
	e.sample()
	state := e.contents(e.dir)
	name := e.backup().Name
	for _, key := range append(e.keys("packs"), e.keys("index")...) {
		e.check(e.objects.Tamper(key, flip(50)))
	}
	storetest.AtEveryWrite(t, func(t *testing.T, crash *storetest.Crash) (func() error, func()) {
		after := e.on(t)
		dead := *after
		dead.put = crash.Store(after.objects)
		job := func() error {
			_, err := dead.repair()
			return err
		}
		return job, func() {
			done, err := after.repair()
			after.check(err)
			if len(done.Left.Findings) > 0 {
				t.Errorf("left: %+v", done.Left.Findings)
			}
			got, skipped, err := after.restore(name)
			after.check(err)
			if len(skipped) > 0 || !maps.Equal(got, state) {
				t.Errorf("the point lacks %v", skipped)
			}
		}
	})
}
