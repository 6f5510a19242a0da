//go:build linux

package sqlite_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// TestPlaces: every pack that has a chunk is told, in the order in which they came, and
// no more those that were forgotten; who avoids one finds it in another while there is
// one.
func TestPlaces(t *testing.T) {
	x, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "index"), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	shared := chunk.ID{7}
	var packs []pack.ID
	for n := range 3 {
		id := pack.ID{byte(n + 1)}
		packs = append(packs, id)
		c := pack.Contents{Pack: id, Generation: 1, Frames: []pack.Frame{{Type: pack.Data, Codec: chunk.Stored, Stored: 128, Raw: 30,
			Chunks: []pack.Chunk{{ID: chunk.ID{byte(n), 1}, Length: 10}, {ID: shared, Length: 20}}}}}
		if err := x.Add(ctx, "", []pack.Contents{c}); err != nil {
			t.Fatal(err)
		}
	}
	is := func(when string, want ...pack.ID) {
		t.Helper()
		places, err := x.Places(ctx, shared)
		if err != nil {
			t.Fatal(err)
		}
		var got []pack.ID
		for _, p := range places {
			got = append(got, p.Pack)
			if p.Offset != 10 || p.Length != 20 || p.Type != pack.Data {
				t.Errorf("%s: %+v", when, p)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: in %v, want %v", when, got, want)
		}
	}
	finds := func(when string, want pack.ID, avoided ...pack.ID) {
		t.Helper()
		a := catalog.Avoiding{Index: x, Avoid: func(id pack.ID) bool { return slices.Contains(avoided, id) }}
		loc, ok, err := a.Lookup(ctx, shared)
		if err != nil || !ok || loc.Pack != want {
			t.Errorf("%s: %v %v %v, want %v", when, loc.Pack, ok, err, want)
		}
	}
	is("all", packs...)
	finds("nothing avoided", packs[0])
	finds("the first avoided", packs[1], packs[0])
	finds("two avoided", packs[2], packs[0], packs[1])
	finds("all avoided", packs[0], packs...)
	if err := x.Forget(ctx, packs[1:2]); err != nil {
		t.Fatal(err)
	}
	is("without the second", packs[0], packs[2])
	finds("the first avoided, the second forgotten", packs[2], packs[0])
	if places, err := x.Places(ctx, chunk.ID{9, 9}); err != nil || len(places) > 0 {
		t.Errorf("a chunk that is nowhere: %v, %v", places, err)
	}
}
