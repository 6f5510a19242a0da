package lock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/agent/lock"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/s3"
	"github.com/cofferbackup/coffer/store/storetest"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openIndex(t *testing.T) *sqlite.Index {
	t.Helper()
	x, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "index"), Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	t.Cleanup(func() { check(t, x.Close()) })
	return x
}

var item = crypt.ItemID{1, 2, 3}

// shelf is a store with packs and records, on a clock of the test's.
type shelf struct {
	*mem.Store
	now   time.Time
	packs []pack.ID
}

func newShelf(t *testing.T, packs int) *shelf {
	t.Helper()
	s := &shelf{now: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}
	s.Store = mem.New(mem.Config{Now: func() time.Time { return s.now }})
	for i := range packs {
		s.packs = append(s.packs, pack.ID{byte(i), 7})
		s.put(t, pack.Key(item, s.packs[i]))
	}
	for _, key := range []store.Key{"vault", "keys/vault/00000001-00000001", "keys/vault/00000001-00000002",
		store.Key("keys/" + item.String() + "/00000001-00000001"), store.Key("keys/" + item.String() + "/00000002-00000001")} {
		s.put(t, key)
	}
	return s
}

func (s *shelf) put(t *testing.T, key store.Key) {
	t.Helper()
	check(t, s.Put(t.Context(), key, nil, store.PutOptions{}))
}

// keep is what a backup of now does.
func (s *shelf) keep(t *testing.T, through store.Lister, notes catalog.Notebook, length time.Duration, objects ...store.Key) error {
	t.Helper()
	k := lock.New(lock.Config{Term: lock.For(s.now, length), Store: through, Notes: notes, Item: item})
	k.Packs(s.packs)
	for _, key := range objects {
		k.Object(key)
	}
	check(t, k.Records(t.Context()))
	return k.Keep(t.Context())
}

const day = 24 * time.Hour

// TestDaily: over a hundred daily backups everything is always kept as long as the
// newest of them asks, and the store is asked about each object once in a quarter of
// the term.
func TestDaily(t *testing.T) {
	s, notes := newShelf(t, 20), openIndex(t)
	var asked, extended atomic.Int64
	counted := storetest.NewFaulty(s, func(op storetest.Op) storetest.Fault {
		switch op.Kind {
		case storetest.Stat:
			asked.Add(1)
		case storetest.Retain:
			extended.Add(1)
		}
		return storetest.Fault{}
	})
	kept := []store.Key{"vault", "keys/vault/00000001-00000002", store.Key("keys/" + item.String() + "/00000001-00000001"),
		store.Key("keys/" + item.String() + "/00000002-00000001")}
	for _, id := range s.packs {
		kept = append(kept, pack.Key(item, id))
	}
	const days, backups = 28, 100
	for n := range backups {
		check(t, s.keep(t, counted, notes, days*day))
		for _, key := range kept {
			if until, err := s.RetainedUntil(t.Context(), key); err != nil || until.Before(s.now.Add(days*day)) || until.After(s.now.Add(days*day*5/4)) {
				t.Fatalf("backup %d: %s is retained until %v, %v", n, key, until, err)
			}
		}
		s.now = s.now.Add(day)
	}
	if until, err := s.RetainedUntil(t.Context(), "keys/vault/00000001-00000001"); err != nil || !until.IsZero() {
		t.Errorf("a key record that another has replaced is retained until %v, %v", until, err)
	}
	times := int64(backups/(days/4) + 1)
	if most := times * int64(len(kept)); extended.Load() > most || asked.Load() > most {
		t.Errorf("%d backups ask %d times about %d objects and extend %d times; want %d at the most", backups, asked.Load(), len(kept), extended.Load(), most)
	}
}

// TestGone: a pack that is gone is a fault, and what else may be gone is none. What was
// done before is remembered.
func TestGone(t *testing.T) {
	s, notes := newShelf(t, 5), openIndex(t)
	check(t, s.keep(t, s, notes, day, "items/x/index/gone"))
	gone := pack.ID{99}
	s.packs = append(s.packs, gone)
	s.now = s.now.Add(day)
	if err := s.keep(t, s, notes, day); !errors.Is(err, store.ErrNotExist) || !strings.Contains(err.Error(), gone.String()) {
		t.Errorf("keep a pack that is gone: %v", err)
	}
	noted := 0
	for n, err := range notes.Notes(t.Context(), catalog.NoteRetained) {
		check(t, err)
		if n.Pack == gone {
			t.Error("a pack that is gone is noted as kept")
		}
		noted++
	}
	if noted != 5+4 {
		t.Errorf("%d notes, want 9", noted)
	}
}

// TestRefused: a store that cannot keep objects says so.
func TestRefused(t *testing.T) {
	s, notes := newShelf(t, 1), openIndex(t)
	if err := s.keep(t, struct{ store.Store }{s.Store}, notes, day); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a store that keeps nothing: %v", err)
	}
	denied := storetest.NewFaulty(s, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.Retain {
			return storetest.Fault{Err: store.ErrDenied}
		}
		return storetest.Fault{}
	})
	if err := s.keep(t, denied, notes, day); !errors.Is(err, store.ErrDenied) {
		t.Errorf("of a store that denies it: %v", err)
	}
	for n, err := range notes.Notes(t.Context(), catalog.NoteRetained) {
		t.Errorf("noted: %v, %v", n, err)
	}
}

// TestCompliance is the whole of it against a bucket in compliance mode: a second
// backup leans on the pack of the first, which is then kept as long as the second
// point, by nobody to be removed before and by its owner after.
func TestCompliance(t *testing.T) {
	clock := new(testkit.Clock)
	m := testkit.StartMinIO(t, testkit.MinIOOptions{Clock: clock})
	m.Bucket(t, "locked", testkit.BucketOptions{ObjectLock: true})
	cfg, err := s3.ParseURL(m.URL("locked"))
	check(t, err)
	st, err := s3.Open(t.Context(), cfg)
	check(t, err)
	defer st.Close()
	it := newItem(t, st)
	index := openIndex(t)
	source := t.TempDir()
	check(t, os.WriteFile(filepath.Join(source, "file"), make([]byte, 1<<20), 0o600))
	check(t, os.WriteFile(filepath.Join(source, "text"), []byte(strings.Repeat("some text ", 1000)), 0o600))

	first := makePoint(t, st, it, index, source, term(clock, time.Minute))
	check(t, os.WriteFile(filepath.Join(source, "more"), []byte("more"), 0o600))
	const length = time.Hour
	began := clock.Now()
	second := makePoint(t, st, it, index, source, term(clock, length))
	old := pack.Key(it.ID(), first.Packs[0])
	if len(second.Packs) != 2 {
		t.Fatalf("the second point needs %d packs, want that of the first and one more", len(second.Packs))
	}
	for info, err := range st.List(t.Context(), "") {
		check(t, err)
		until, err := st.RetainedUntil(t.Context(), info.Key)
		check(t, err)
		session, isFirst := strings.Contains(string(info.Key), "/sessions/"), strings.Contains(string(info.Key), string(first.Name))
		if !session && !isFirst && until.Before(began.Add(length)) {
			t.Errorf("%s is retained until %v, and the second point needs it until %v", info.Key, until, began.Add(length))
		}
	}
	mode, _, err := m.Client(t).GetObjectRetention(t.Context(), "locked", string(old), "")
	if err != nil || *mode != minio.Compliance {
		t.Errorf("the old pack is kept by %v, %v", mode, err)
	}
	if err := st.Delete(t.Context(), old); !errors.Is(err, store.ErrLocked) {
		t.Errorf("delete the old pack before its time: %v", err)
	}
	version, err := m.Client(t).StatObject(t.Context(), "locked", string(old), minio.StatObjectOptions{})
	check(t, err)
	err = m.Client(t).RemoveObject(t.Context(), "locked", string(old), minio.RemoveObjectOptions{VersionID: version.VersionID, GovernanceBypass: true})
	if err == nil {
		t.Error("the administrator of the store removes the old pack before its time")
	}
	clock.Forward(t, length/2)
	if err := st.Delete(t.Context(), old); !errors.Is(err, store.ErrLocked) {
		t.Errorf("delete the old pack after half of its time: %v", err)
	}
	clock.Forward(t, length) // it was asked to be kept a little longer
	check(t, st.Delete(t.Context(), old))
}

// term is a term in compliance mode.
func term(clock *testkit.Clock, length time.Duration) lock.Term {
	t := lock.For(clock.Now(), length)
	t.Asked.Compliance = true
	return t
}

func newItem(t *testing.T, st store.Store) *catalog.Item {
	t.Helper()
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: kek.NewRing(kektest.NewKey(t)), Now: time.Now()})
	check(t, err)
	t.Cleanup(v.Close)
	it, err := v.CreateItem(t.Context(), "etc", time.Now())
	check(t, err)
	t.Cleanup(it.Close)
	return it
}

// makePoint makes a backup whose point and all that it needs is kept for a term.
func makePoint(t *testing.T, st store.Store, it *catalog.Item, index *sqlite.Index, path string, term lock.Term) *catalog.Point {
	t.Helper()
	src, err := files.New(files.Config{Paths: []string{path}, Clock: time.Now})
	check(t, err)
	p, err := backup.Run(t.Context(), backup.Config{Item: it, Packs: st, Index: index, Source: src, Host: "test", Agent: "test",
		Clock: time.Now, Log: slog.New(slog.DiscardHandler), Retention: term.Asked,
		Retain: func(ctx context.Context, packs []pack.ID, indexes []string) error {
			k := lock.New(lock.Config{Term: term, Store: st, Notes: index, Item: it.ID()})
			k.Packs(packs)
			for _, name := range indexes {
				k.Object(it.IndexKey(name))
			}
			if err := k.Records(ctx); err != nil {
				return fmt.Errorf("records: %w", err)
			}
			return k.Keep(ctx)
		}})
	check(t, err)
	return p
}
