package scrub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/scrub"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// vault is a vault in memory with the ways to change it.
type vault struct {
	*catalog.Vault
	store *mem.Store
	dir   string
}

func newVault(t *testing.T) *vault {
	t.Helper()
	dir := t.TempDir()
	uri := "file://" + filepath.Join(dir, "kek.pem")
	check(t, software.Create(t.Context(), uri, software.CreateOptions{Bits: 2048}))
	key, err := software.Open(t.Context(), "test", uri)
	check(t, err)
	st := mem.New(mem.Config{})
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: kek.NewRing(key), Now: time.Now()})
	check(t, err)
	t.Cleanup(v.Close)
	return &vault{v, st, dir}
}

// backup makes a point of an item, of content that is its own.
func (v *vault) backup(t *testing.T, item, content string) (*catalog.Item, *catalog.Point) {
	t.Helper()
	ctx := context.Background()
	it, err := v.CreateItem(ctx, item, time.Now())
	check(t, err)
	t.Cleanup(it.Close)
	source := filepath.Join(v.dir, item)
	check(t, os.MkdirAll(source, 0o700))
	check(t, os.WriteFile(filepath.Join(source, "file"), bytes.Repeat([]byte(content), 10_000), 0o600))
	src, err := files.New(files.Config{Paths: []string{source}, Clock: time.Now})
	check(t, err)
	index, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(v.dir, "index-"+item), Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	defer index.Close()
	p, err := backup.Run(ctx, backup.Config{Item: it, Packs: v.store, Index: index, Source: src, Host: "test", Agent: "test",
		Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	check(t, err)
	return it, p
}

// stubborn lets nothing go but key records.
type stubborn struct{ store.Store }

func (s stubborn) Delete(ctx context.Context, key store.Key) error {
	if strings.HasPrefix(string(key), "keys/") {
		return s.Store.Delete(ctx, key)
	}
	return store.ErrLocked
}

// full makes a vault that has at least one object of every kind.
func full(t *testing.T) *vault {
	t.Helper()
	v := newVault(t)
	it, first := v.backup(t, "etc", "one")
	check(t, v.NewGeneration(t.Context(), "etc", time.Now()))
	_, second := v.backup(t, "etc", "two")
	v.backup(t, "db", "three")
	mark := &catalog.Mark{Created: time.Now(), Host: "test", Points: []catalog.PointName{first.Name}, Packs: first.Packs}
	check(t, it.PutMark(t.Context(), mark))
	check(t, it.PutWitness(t.Context(), mark.ID, []catalog.PointName{second.Name}))
	check(t, it.PutRepack(t.Context(), catalog.NewSession(time.Now(), "test").Name, &catalog.Repack{Replaced: first.Packs, By: second.Packs, Points: []catalog.PointName{second.Name}}))
	check(t, it.PutHold(t.Context(), &catalog.Hold{Point: second.Name, Owner: "legal", Reason: "case 1", Since: time.Now()}))
	check(t, it.PutRemoved(t.Context(), []catalog.PointName{first.Name}))
	check(t, it.PutOutcome(t.Context(), mark.ID, first.Packs))
	s, err := it.Begin(t.Context(), time.Now(), "test")
	check(t, err)
	_, err = it.Void(t.Context(), s.Name)
	check(t, err)
	v.backup(t, "old", "gone")
	_, err = v.Erase(t.Context(), stubborn{v.store}, "old", time.Now())
	check(t, err)
	return v
}

func keys(t *testing.T, st store.Lister) (all []store.Info) {
	t.Helper()
	for info, err := range st.List(t.Context(), "") {
		check(t, err)
		all = append(all, info)
	}
	return all
}

func run(t *testing.T, objects scrub.Objects) *scrub.Report {
	t.Helper()
	r, err := scrub.Run(t.Context(), scrub.Config{Objects: objects})
	check(t, err)
	if r.Faulty != int64(len(r.Faults)) {
		t.Errorf("%d faults are counted, and %d named", r.Faulty, len(r.Faults))
	}
	return r
}

// wantFaults checks which objects are told of, and that a word is said of each.
func wantFaults(t *testing.T, what string, r *scrub.Report, says string, want ...store.Key) {
	t.Helper()
	var got []store.Key
	for _, f := range r.Faults {
		got = append(got, f.Key)
		if !strings.Contains(f.Says, says) {
			t.Errorf("%s: of %s it says %q, want %q", what, f.Key, f.Says, says)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: faults are told of %q, want %q", what, got, want)
	}
}

// TestWhole: a vault with everything has no fault, and all of it is counted.
func TestWhole(t *testing.T) {
	v := full(t)
	progress := new(scrub.Progress)
	r, err := scrub.Run(t.Context(), scrub.Config{Objects: v.store, Progress: progress})
	check(t, err)
	wantFaults(t, "a whole vault", r, "")
	var objects, total, counted int64
	for _, info := range keys(t, v.store) {
		objects, total = objects+1, total+info.Size
	}
	for _, kind := range []string{"vault", "keys", "packs", "index", "points", "sessions", "marks", "witnesses", "repacks", "holds", "removed"} {
		if r.Kinds[kind].Objects == 0 {
			t.Errorf("the vault has nothing of the kind %s", kind)
		}
		counted += r.Kinds[kind].Objects
	}
	if counted != objects || r.TotalSize != total || r.Items != 2 || r.Erased.Objects == 0 || r.Straying != 0 || r.Vanished != 0 {
		t.Errorf("%d objects of %d bytes: %+v", objects, total, r)
	}
	// Of the two halves of a void there is nothing to read.
	if progress.Objects.Load() != objects-2 || progress.Bytes.Load() != total || progress.Faults.Load() != 0 {
		t.Errorf("progress counts %d objects and %d bytes of %d and %d", progress.Objects.Load(), progress.Bytes.Load(), objects-2, total)
	}
}

// TestEveryDamage: whatever bit of whatever object flips, whatever end is cut off or
// grows, it is found, and nothing else is accused.
func TestEveryDamage(t *testing.T) {
	v := full(t)
	flips, cuts := 0, 0
	for _, info := range keys(t, v.store) {
		damage := func(what string, change func([]byte) []byte) {
			t.Helper()
			st := v.store.Clone()
			check(t, st.Tamper(info.Key, change))
			wantFaults(t, what, run(t, st), "", info.Key)
		}
		// Every byte of what is public or small, and samples of the rest.
		step := int64(1)
		if info.Size > 150 {
			step = info.Size/101 + 1
		}
		for at := int64(0); at < info.Size; at += step {
			damage(fmt.Sprintf("a bit of byte %d of %d of %s flipped", at, info.Size, info.Key),
				func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b })
			flips++
		}
		for _, n := range []int64{1, 4, 40, 96, info.Size / 2, info.Size - 1, info.Size} {
			isVoid := (strings.Contains(string(info.Key), "/points/") || strings.Contains(string(info.Key), "/repacks/")) && n == info.Size // and looks like one
			if n <= 0 || n > info.Size || isVoid {
				continue
			}
			damage(fmt.Sprintf("%s without its last %d bytes", info.Key, n), func(b []byte) []byte { return b[:int64(len(b))-n] })
			cuts++
		}
		damage(fmt.Sprintf("%s with a byte more", info.Key), func(b []byte) []byte { return append(b, 0) })
	}
	t.Logf("%d flips and %d cuts found in %d objects", flips, cuts, len(keys(t, v.store)))
}

// TestMissing: what is gone is told where it shows without a key: the descriptor, and
// key records that something needs.
func TestMissing(t *testing.T) {
	v := full(t)
	for _, info := range keys(t, v.store) {
		st := v.store.Clone()
		check(t, st.Delete(t.Context(), info.Key))
		r := run(t, st)
		switch folder, _, _ := strings.Cut(string(info.Key), "/"); folder {
		case "vault":
			wantFaults(t, "without descriptor", r, "no descriptor", "vault")
		case "keys":
			if r.Faulty == 0 {
				t.Errorf("without %s no fault is told", info.Key)
			}
		default:
			// Which objects an item must have is sealed.
			wantFaults(t, "without "+string(info.Key), r, "")
		}
	}
}

// TestMisplaced: an object under the name of another is told as far as the names of
// the two differ in more than their random part.
func TestMisplaced(t *testing.T) {
	v, other := full(t), newVault(t)
	all := append(keys(t, v.store), keys(t, other.store)...)
	kindOf := func(key store.Key) string {
		seg := strings.Split(string(key), "/")
		if seg[0] == "items" {
			return seg[1] + seg[2]
		}
		return string(key)
	}
	swaps := 0
	for i, from := range all {
		source := v.store
		if i >= len(keys(t, v.store)) {
			source = other.store
		}
		content, err := store.ReadAll(t.Context(), source, from.Key, store.MaxObject)
		check(t, err)
		for _, to := range keys(t, v.store) {
			same := source == v.store && kindOf(from.Key) == kindOf(to.Key)
			if same || len(content) == 0 || to.Size == 0 {
				continue
			}
			st := v.store.Clone()
			check(t, st.Tamper(to.Key, func([]byte) []byte { return content }))
			r := run(t, st)
			if !slices.ContainsFunc(r.Faults, func(f scrub.Fault) bool { return f.Key == to.Key || to.Key == "vault" }) {
				t.Errorf("%s with the content of %s is not told: %+v", to.Key, from.Key, r.Faults)
			}
			swaps++
		}
	}
	t.Logf("%d of %d swaps", swaps, len(all)*len(keys(t, v.store)))
}

func TestStrays(t *testing.T) {
	v := full(t)
	item := strings.Split(string(keys(t, v.store)[0].Key), "/")[1]
	strays := []store.Key{
		"another", "items/x", "items/not-an-item/points/x", store.Key("items/" + item + "/points/yesterday"),
		store.Key("items/" + item + "/packs/aa/bb"), store.Key("items/" + item + "/trash/" + pack.ID{}.String()), "keys/vault/1-1", "keys/x/00000001-00000001",
		store.Key("items/" + item + "/packs/zz/" + pack.ID{}.String()),
	}
	for _, key := range strays {
		check(t, v.store.Put(t.Context(), key, store.Body{[]byte("x")}, store.PutOptions{}))
	}
	r := run(t, v.store)
	slices.Sort(strays)
	if wantFaults(t, "strays", r, ""); !slices.Equal(r.Strays, strays) || r.Straying != int64(len(strays)) {
		t.Errorf("strays: %q, want %q", r.Strays, strays)
	}
}

// TestUnreadable: an object that cannot be read is a fault, and one that is deleted
// meanwhile is none; a store that does not answer is the end.
func TestUnreadable(t *testing.T) {
	v := full(t)
	for _, info := range keys(t, v.store) {
		failing := func(err error) scrub.Objects {
			return storetest.NewFaulty(v.store, func(op storetest.Op) storetest.Fault {
				if op.Kind == storetest.Get && op.Key == info.Key {
					return storetest.Fault{Err: err}
				}
				return storetest.Fault{}
			})
		}
		if info.Size == 0 {
			continue
		}
		wantFaults(t, "unreadable", run(t, failing(errors.New("input/output error"))), "input/output error", info.Key)
		r := run(t, failing(store.ErrNotExist))
		if isKey := strings.HasPrefix(string(info.Key), "keys/"); r.Vanished != 1 || !isKey && r.Faulty != 0 {
			t.Errorf("%s vanishes: %+v", info.Key, r)
		}
		if _, err := scrub.Run(t.Context(), scrub.Config{Objects: failing(store.ErrUnavailable)}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s from a store that does not answer: %v", info.Key, err)
		}
	}
	cut := storetest.NewFaulty(v.store, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.List && op.Key == "" {
			return storetest.Fault{Err: store.ErrUnavailable}
		}
		return storetest.Fault{}
	})
	if _, err := scrub.Run(t.Context(), scrub.Config{Objects: cut}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a listing that breaks off: %v", err)
	}
}

// TestMeanwhile: an item, and a generation, that are made while the scrub runs are no
// fault.
func TestMeanwhile(t *testing.T) {
	v := full(t)
	var once sync.Once
	moving := storetest.NewFaulty(v.store, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.List && op.Key == "" {
			once.Do(func() {
				v.backup(t, "new", "four")
				check(t, v.NewGeneration(t.Context(), "db", time.Now()))
				v.backup(t, "db", "five")
			})
		}
		return storetest.Fault{}
	})
	r := run(t, moving)
	wantFaults(t, "a vault that is in use", r, "")
	if r.Items != 3 {
		t.Errorf("%d items, want 3", r.Items)
	}
}

// TestManyFaults: the report has an end, and names the same faults each time.
func TestManyFaults(t *testing.T) {
	v := newVault(t)
	it, _ := v.backup(t, "etc", "one")
	var damaged []store.Key
	for i := range scrub.MaxNamed + 500 {
		key := pack.Key(it.ID(), pack.ID{byte(i >> 8), byte(i)})
		check(t, v.store.Put(t.Context(), key, store.Body{[]byte("no pack")}, store.PutOptions{}))
		damaged = append(damaged, key)
	}
	slices.Sort(damaged)
	r, err := scrub.Run(t.Context(), scrub.Config{Objects: v.store, Workers: 8})
	check(t, err)
	if len(r.Faults) != scrub.MaxNamed || r.Faulty != scrub.MaxNamed+500 {
		t.Fatalf("%d faults are named and %d counted", len(r.Faults), r.Faulty)
	}
	for i, f := range r.Faults {
		if f.Key != damaged[i] {
			t.Fatalf("fault %d is of %s, want %s", i, f.Key, damaged[i])
		}
	}
}
