//go:build linux

package agent_test

import (
	"context"
	"encoding/binary"
	"iter"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
)

// countedIndex counts the points that are read of it.
type countedIndex struct {
	vault.Index
	read *atomic.Int64
}

func (x countedIndex) Summaries(ctx context.Context, q catalog.PointQuery) iter.Seq2[catalog.Summary, error] {
	return func(yield func(catalog.Summary, error) bool) {
		for s, err := range x.Index.Summaries(ctx, q) {
			x.read.Add(1)
			if !yield(s, err) {
				return
			}
		}
	}
}

// remember has the index of docs remember n points from before the first backup, a
// minute apart.
func remember(t *testing.T, b *bench, n int) {
	t.Helper()
	items, err := filepath.Glob(b.path("state", "index", "*", "*"))
	must(t, err)
	var into *sqlite.Index
	for _, path := range items { // docs has more points than more
		ix, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		if points, _, err := ix.CountPoints(t.Context()); err != nil || points == 2 {
			must(t, err)
			into = ix
			continue
		}
		must(t, ix.Close())
	}
	defer into.Close()
	first := b.clock.Now().AddDate(-10, 0, 0)
	var some []catalog.Summary
	for i := range n {
		var id [16]byte
		binary.BigEndian.PutUint64(id[:], uint64(i))
		name := catalog.PointNameOf(first.Add(time.Duration(i)*time.Minute), id)
		some = append(some, catalog.Summary{Name: name, Kind: "files", Host: "web1", Size: 1000})
		if len(some) == 10_000 || i == n-1 {
			must(t, into.AddPoints(t.Context(), some))
			some = some[:0]
		}
	}
}

// TestManyPoints: of many points no more is read than somebody takes.
func TestManyPoints(t *testing.T) {
	const n = 60_000
	b := furnished(t)
	var read atomic.Int64
	b.stop()
	b.indexed = func(ix vault.Index) vault.Index { return countedIndex{ix, &read} }
	b.start()
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	before, err := b.listed("docs") // they were looked at just now
	must(t, err)
	if len(before) != 2 {
		t.Fatalf("%d points", len(before))
	}
	remember(t, b, n)

	take := func(req control.PointsRequest, most int) (points []control.Point) {
		t.Helper()
		for p, err := range b.Points(t.Context(), req) {
			must(t, err)
			if points = append(points, p); len(points) == most {
				break
			}
		}
		return points
	}
	read.Store(0)
	last := take(control.PointsRequest{Item: "docs", Last: 3}, n)
	if len(last) != 3 || last[2].ID != before[1].ID || last[1].ID != before[0].ID || !last[0].Time.Before(last[1].Time) {
		t.Errorf("the last ones are %+v", last)
	}
	if got := read.Load(); got > 10 {
		t.Errorf("%d points were read for the last 3", got)
	}
	read.Store(0)
	all := take(control.PointsRequest{}, 2*n)
	var old time.Time
	for i, p := range all[:n+2] {
		if p.Item != "docs" || p.Time.Before(old) {
			t.Fatalf("point %d is %+v, after one of %s", i, p, old)
		}
		old = p.Time
	}
	if len(all) != n+3 || all[n+2].Item != "more" {
		t.Errorf("%d points", len(all))
	}
	read.Store(0)
	take(control.PointsRequest{Item: "docs"}, 10)
	b.stop() // and with it what was still under way
	if got := read.Load(); got > n/10 {
		t.Errorf("%d points were read for the first 10", got)
	}
}
