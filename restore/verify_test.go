//go:build linux

package restore_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

// report verifies with a configuration of the test's own.
func (e *engine) report(change func(*catalog.Item, *restore.VerifyConfig)) (report restore.Report) {
	e.t.Helper()
	check(e.t, e.use(func(it *catalog.Item, ix backup.Index) error {
		if _, err := it.Sync(context.Background(), ix); err != nil {
			return err
		}
		cfg := restore.VerifyConfig{Item: it, Objects: e.store, Reader: it.NewReader(ix)}
		if change != nil {
			change(it, &cfg)
		}
		var err error
		report, err = restore.Verify(context.Background(), cfg)
		return err
	}))
	return report
}

// keys are the objects of a kind.
func (e *engine) keys(kind string) (keys []store.Key) {
	e.t.Helper()
	for info, err := range e.store.List(e.t.Context(), "items/") {
		check(e.t, err)
		if strings.Contains(string(info.Key), "/"+kind+"/") {
			keys = append(keys, info.Key)
		}
	}
	return keys
}

func (e *engine) flip(key store.Key) {
	e.t.Helper()
	check(e.t, e.store.(*mem.Store).Tamper(key, func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}))
}

// filled is an engine with two points, whose packs hold different things.
func filled(t *testing.T) (e *engine, dir string, first, last *catalog.Point) {
	t.Helper()
	e = newEngine(t, mem.New(mem.Config{}))
	dir = sample(t)
	first = e.mustBackup(dir)
	change(t, dir)
	check(t, os.WriteFile(filepath.Join(dir, "huge"), randomBytes(40<<20), 0o600))
	return e, dir, first, e.mustBackup(dir)
}

// TestVerifyReadsWhatIsChosen: only packs that are chosen are read, each once; that the
// others are there is checked all the same.
func TestVerifyReadsWhatIsChosen(t *testing.T) {
	e, _, _, _ := filled(t)
	packs := e.keys("packs")
	chosen, err := pack.ParseID(packs[1].Base())
	check(t, err)
	var mu sync.Mutex
	var read []pack.ID
	sampled := func(_ *catalog.Item, c *restore.VerifyConfig) {
		c.Read = func(id pack.ID) bool { return id == chosen }
		c.Checked = func(id pack.ID, err error) {
			mu.Lock()
			defer mu.Unlock()
			read = append(read, id)
			if err != nil {
				t.Errorf("pack %s: %v", id, err)
			}
		}
	}
	e.flip(packs[0])
	if report := e.report(sampled); len(report.Findings) > 0 || len(report.Damaged) > 0 {
		t.Errorf("packs that were not to be read have %+v", report.Findings)
	}
	if len(read) != 1 || read[0] != chosen {
		t.Errorf("read were %v, wanted %v", read, chosen)
	}
	check(t, e.store.Delete(t.Context(), packs[2]))
	if report := e.report(sampled); len(report.Findings) == 0 || len(report.Damaged) != 1 || report.Damaged[0].String() != packs[2].Base() {
		t.Errorf("of a pack that is gone and was not to be read it says %+v", report)
	}
}

// flipData flips a bit in every pack that has content and nothing else.
func (e *engine) flipData() {
	e.t.Helper()
	flipped := 0
	check(e.t, e.use(func(it *catalog.Item, ix backup.Index) error {
		for _, key := range e.keys("packs") {
			id, err := pack.ParseID(key.Base())
			if err != nil {
				return err
			}
			c, err := it.NewReader(ix).Packs.Contents(context.Background(), id)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(c.Frames, func(f pack.Frame) bool { return f.Type != pack.Data }) {
				e.flip(key)
				flipped++
			}
		}
		return nil
	}))
	if flipped == 0 {
		e.t.Fatal("every pack has more than content")
	}
}

// TestVerifyNamesEveryPoint: damage that several points share is told of each, and of
// each file that it takes; a file beside it in the same pack is not lost, and restores.
func TestVerifyNamesEveryPoint(t *testing.T) {
	e, dir, _, last := filled(t)
	third := e.mustBackup(dir)
	e.flipData()
	report := e.report(nil)
	if !slices.Contains(report.Points, last.Name) || !slices.Contains(report.Points, third.Name) {
		t.Errorf("damaged are %v, and not both of %s and %s", report.Points, last.Name, third.Name)
	}
	for _, p := range []*catalog.Point{last, third} {
		told := make(map[string]bool)
		for _, f := range report.Findings {
			if strings.HasSuffix(string(f.Object), string(p.Name)) {
				told[f.Path] = true
			}
		}
		to := filepath.Join(t.TempDir(), "back")
		result, done, err := e.restore(p.Name, to, nil)
		check(t, err)
		if len(result.Skipped) == 0 || done.Files.Load() == 0 {
			t.Fatalf("%d files restored, %d skipped", done.Files.Load(), len(result.Skipped))
		}
		lost := make(map[string]bool)
		for _, s := range result.Skipped {
			lost[string(s.Path)] = true
			if !told[string(s.Path)] && !strings.HasSuffix(string(s.Path), "same/hard") { // a link to what is lost
				t.Errorf("%s of %s does not restore, and is not told of", s.Path, p.Name)
			}
		}
		for path := range told {
			if !lost[path] {
				t.Errorf("%s of %s is said to be lost, and restores", path, p.Name)
			}
		}
	}
}

// TestVerifySparesWhatNoPointNeeds: damage in what no point needs is no fault, and told
// of beside.
func TestVerifySparesWhatNoPointNeeds(t *testing.T) {
	e, _, first, last := filled(t)
	var spare store.Key
	for _, key := range e.keys("packs") {
		id, err := pack.ParseID(key.Base())
		check(t, err)
		if slices.Contains(last.Packs, id) && !slices.Contains(first.Packs, id) {
			spare = key
		}
	}
	for _, key := range e.keys("points") {
		if strings.HasSuffix(string(key), string(last.Name)) {
			check(t, e.store.Delete(t.Context(), key))
		}
	}
	e.flip(spare)
	report := e.report(nil)
	if len(report.Findings) > 0 || len(report.Points) > 0 {
		t.Errorf("found are %+v in %v", report.Findings, report.Points)
	}
	if len(report.Spare) != 1 || report.Spare[0].Object != spare || len(report.Damaged) != 1 {
		t.Errorf("spare are %+v, damaged %v", report.Spare, report.Damaged)
	}
}

// pruning is a store in which somebody prunes when the first pack is read.
type pruning struct {
	store.Store
	once  sync.Once
	prune func()
}

func (p *pruning) Get(ctx context.Context, key store.Key, b []byte, off int64) error {
	if strings.Contains(string(key), "/packs/") {
		p.once.Do(p.prune)
	}
	return p.Store.Get(ctx, key, b, off)
}

// TestVerifyDuringPrune: a point that a prune takes away while it is verified, with the
// packs and the index that it alone needed, is not missed.
func TestVerifyDuringPrune(t *testing.T) {
	for _, void := range []bool{false, true} {
		e, _, first, last := filled(t)
		objects := e.store
		gone := 0
		e.store = &pruning{Store: objects, prune: func() {
			for _, key := range e.keys("points") {
				if !strings.HasSuffix(string(key), string(last.Name)) {
					continue
				}
				check(t, objects.Delete(t.Context(), key))
				if void {
					check(t, objects.Put(t.Context(), key, store.Body{}, store.PutOptions{}))
				}
			}
			for _, key := range e.keys("packs") {
				id, err := pack.ParseID(key.Base())
				check(t, err)
				if slices.Contains(last.Packs, id) && !slices.Contains(first.Packs, id) {
					check(t, objects.Delete(t.Context(), key))
					gone++
				}
			}
		}}
		report := e.report(nil)
		if len(report.Findings) > 0 || len(report.Points) > 0 {
			t.Errorf("void %v: found are %+v in %v", void, report.Findings, report.Points)
		}
		if gone == 0 {
			t.Error("nothing was pruned")
		}
	}
}
