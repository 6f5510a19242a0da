//go:build linux

package agent_test

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store"
)

// asked counts what a store is asked.
type asked struct {
	store.Store
	n *atomic.Int64
}

func (s asked) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	s.n.Add(1)
	return s.Store.Get(ctx, key, p, off)
}

func (s asked) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	s.n.Add(1)
	return s.Store.Stat(ctx, key)
}

func (s asked) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	s.n.Add(1)
	return s.Store.List(ctx, prefix)
}

// manyItems starts an agent with n items of one folder, of which the first few are backed
// up, and returns how often its store is asked.
func manyItems(t testing.TB, n, backedUp int) (*bench, *atomic.Int64) {
	t.Helper()
	var items, names strings.Builder
	for i := range n {
		fmt.Fprintf(&items, "  item-%05d: {vault: one, files: {paths: [\"$DIR/docs\"]}}\n", i)
		fmt.Fprintf(&names, "item-%05d, ", i)
	}
	b := newBench(t, "agent: {state: \"$DIR/state\"}\nkeys:\n  main: {uri: \"file://$DIR/main.pem\"}\nvaults:\n  one: {store: \"file://$DIR/one\", keys: [main]}\nitems:\n"+
		items.String()+"policies:\n  nightly: {schedule: \"yearly\", items: ["+names.String()+"]}\n")
	n64 := new(atomic.Int64)
	b.around = func(st store.Store) store.Store { return asked{st, n64} }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(software.Create(t.Context(), "file://"+b.path("main.pem"), software.CreateOptions{Bits: 2048}))
	must(os.Mkdir(b.path("docs"), 0o700))
	must(os.WriteFile(b.path("docs", "a"), []byte("Dear all"), 0o600))
	b.start()
	_, err := b.CreateVault(t.Context(), control.VaultCreate{Name: "one"})
	must(err)
	for i := range backedUp {
		b.done(b.Backup(t.Context(), control.BackupRequest{Item: fmt.Sprintf("item-%05d", i)}))
	}
	return b, n64
}

// TestManyItems: the status of many items is told from memory, and is right all the same:
// after a backup at once, and within an hour when somebody has deleted a point.
func TestManyItems(t *testing.T) {
	b, asked := manyItems(t, 60, 3)
	status := func() control.Item {
		t.Helper()
		s, err := b.Status(t.Context())
		must(t, err)
		if len(s.Items) != 60 {
			t.Fatalf("%d items", len(s.Items))
		}
		return s.Items[0]
	}
	status()
	before := asked.Load()
	first := status()
	if n := asked.Load() - before; n > 20 {
		t.Errorf("the store was asked %d times", n)
	}
	if first.Points != 1 || first.Error != nil || first.SourceBytes == 0 || first.LastGood.IsZero() {
		t.Errorf("%+v", first)
	}

	b.pass(1)
	j := b.done(b.Backup(t.Context(), control.BackupRequest{Item: "item-00000"}))
	if got := status(); got.Points != 2 || got.LastPoint != j.Point {
		t.Errorf("after the backup of %s: %+v", j.Point, got)
	}

	points := map[string][]string{}
	for _, path := range objects(t, b, "one/items/*/points/*") {
		points[filepath.Dir(path)] = append(points[filepath.Dir(path)], path)
	}
	for _, of := range points {
		if len(of) == 2 {
			must(t, os.Remove(of[0]))
		}
	}
	gone := func() bool { return status().Error != nil }
	for minutes := 0; !gone(); minutes++ {
		if minutes > 70 {
			t.Fatal("after an hour nobody has seen that a point is gone")
		}
		b.pass(1)
	}
}

func BenchmarkStatus(b *testing.B) {
	e, _ := manyItems(b, 10_000, 100)
	if _, err := e.Status(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := e.Status(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
