package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
	"github.com/cofferbackup/coffer/store/storetest"
)

func TestItems(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	v := vault(t, st, k)
	if items, err := v.Items(t.Context()); err != nil || len(items) != 0 {
		t.Errorf("a new vault has %d items, %v", len(items), err)
	}
	_, err := v.Item(t.Context(), "etc")
	is(t, "no item", err, catalog.ErrNoItem)
	want := []string{"db1", "etc", "vm1", "\xff\xfe not UTF-8", ""}
	for _, name := range want {
		item(t, v, name).Close()
	}
	slices.Sort(want)
	v, err = catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
	check(t, err)
	before := k.unwraps.Load()
	items, err := v.Items(t.Context())
	check(t, err)
	var names []string
	for _, it := range items {
		names = append(names, it.Name())
		if it.Generation() != 1 || made(it).Unix() != now.Unix() {
			t.Errorf("%s: generation %d of %v", it.Name(), it.Generation(), made(it))
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if n := k.unwraps.Load() - before; n != 0 {
		t.Errorf("listing items unwraps %d secrets", n)
	}
	for range 3 {
		_, err := items[0].Secret(t.Context(), 1)
		check(t, err)
	}
	if n := k.unwraps.Load() - before; n != 1 {
		t.Errorf("a secret that is used three times is unwrapped %d times", n)
	}
	_, err = items[0].Secret(t.Context(), 2)
	is(t, "a generation that is not there", err, crypt.ErrDamaged)
	for _, key := range keys(t, st, "") {
		if strings.Contains(string(read(t, st, key)), "vm1") {
			t.Errorf("%s tells the name of an item", key)
		}
	}
}

// TestCreateItemRace: two agents that make the same item at once have the same one.
func TestCreateItemRace(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	first := vault(t, st, k)
	var wg sync.WaitGroup
	commitments := make([][]byte, 8)
	for i := range commitments {
		v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: first.ID(), Ring: kek.NewRing(k)})
		check(t, err)
		wg.Go(func() {
			it, err := v.CreateItem(t.Context(), "etc", now)
			if err != nil {
				t.Error(err)
				return
			}
			s, err := it.Secret(t.Context(), 1)
			if err != nil {
				t.Error(err)
				return
			}
			commitments[i] = s.Commitment()
		})
	}
	wg.Wait()
	for _, c := range commitments {
		if !bytes.Equal(c, commitments[0]) {
			t.Error("two agents have two secrets of one item")
		}
	}
	if n := len(keys(t, st, "keys/")); n != 2 {
		t.Errorf("%d key records, want the vault's and the item's", n)
	}
}

func TestCreateItemSurvivesCrashes(t *testing.T) {
	k := newKey(t, "main")
	for _, how := range []storetest.Outcome{storetest.NotApplied, storetest.Applied} {
		st := newStore()
		v := vault(t, st, k)
		dying, err := catalog.Open(t.Context(), storetest.NewCrash(1, how).Store(st), catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
		check(t, err)
		if _, err := dying.CreateItem(t.Context(), "etc", now); !errors.Is(err, storetest.ErrCrashed) {
			t.Errorf("%v: %v", how, err)
		}
		if _, err := item(t, v, "etc").Secret(t.Context(), 1); err != nil {
			t.Errorf("%v: %v", how, err)
		}
	}
}

// TestItemRecordElsewhere: the record of one item is not taken for another's, nor
// for another generation or epoch.
func TestItemRecordElsewhere(t *testing.T) {
	k := newKey(t, "main")
	good := newStore()
	v := vault(t, good, k)
	etc, vm := item(t, v, "etc"), item(t, v, "vm1")
	at := func(it *catalog.Item) store.Key {
		return store.Key("keys/" + it.ID().String() + "/00000001-00000001")
	}
	record := read(t, good, at(etc))
	for name, place := range map[string]store.Key{
		"another item": at(vm), "a later epoch": at(vm)[:len(at(vm))-1] + "2",
		"a later generation": store.Key("keys/" + vm.ID().String() + "/00000002-00000001"),
	} {
		for _, of := range [][]byte{record, read(t, good, at(vm)), read(t, good, "keys/vault/00000001-00000001")} {
			if place == at(vm) && bytes.Equal(of, read(t, good, at(vm))) {
				continue
			}
			st := good.Clone()
			check(t, st.Delete(t.Context(), place))
			put(t, st, place, of)
			v, err := catalog.Open(t.Context(), st, catalog.OpenOptions{ID: v.ID(), Ring: kek.NewRing(k)})
			check(t, err)
			_, err = v.Item(t.Context(), "vm1")
			is(t, "at "+name, err, crypt.ErrDamaged)
			_, err = v.Items(t.Context())
			is(t, "all, with one at "+name, err, crypt.ErrDamaged)
			if _, err := v.Item(t.Context(), "etc"); err != nil {
				t.Errorf("at %s: the other item: %v", name, err)
			}
		}
	}
}

func TestPointNames(t *testing.T) {
	random := strings.Repeat("a", 25) + "e"
	name := "20261122t090003.045z-" + random
	got, at, id, err := catalog.ParsePointName(name)
	if err != nil || string(got) != name || !at.Equal(now.Truncate(time.Second).Add(45*time.Millisecond)) || id != [16]byte{15: 1} || !got.Time().Equal(at) {
		t.Errorf("%v %v %v %v", got, at, id, err)
	}
	if got.String() != "2026-11-22T09:00:03Z-aaaa" {
		t.Errorf("for people: %s", got)
	}
	for _, bad := range []string{
		"", "-", name[:21], name[1:], name[:46], name + "a", strings.ToUpper(name), "20261122t090003.045z" + random, "20261122t090003.045z--" + random,
		"20261322t090003.045z-" + random, "20261122t250003.045z-" + random, "20261122t090003z-" + random, "20261122t090003.5z-" + random,
		"20261122t090003,045z-" + random, name[:46] + "f", name + "\n", name + "======",
	} {
		if got, _, _, err := catalog.ParsePointName(bad); err == nil {
			t.Errorf("%q is read as %s", bad, got)
		}
		if catalog.PointName(bad).String() != bad {
			t.Errorf("%q is shown as something else", bad)
		}
	}
}

// TestPointRoundTrip: a point comes back as it was put, also with all that a host
// may be called.
func TestPointRoundTrip(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	it := item(t, vault(t, st, k), "etc")
	full := catalog.Point{
		Item: "etc", Kind: "files", Host: "h\xffst", Agent: "0.1.0", Started: now.UnixNano(), Ended: now.UnixNano() + 1, Parent: "p\xfe",
		Root: []chunk.ID{{1}, {2}}, Packs: []pack.ID{{3}}, Loose: 4, Stats: catalog.Stats{Files: 1, Dirs: 2, Others: 3, Bytes: 4, Read: 5, Changed: 6, New: 7, Stored: 8, Skipped: 9, Unquiet: 10},
		Users: map[uint32]string{0: "root", 1000: "m\xfcller"}, Groups: map[uint32]string{5: "\xff"},
		Skipped: []catalog.Skip{{Path: []byte("/a\xff\x80"), Reason: "open /a\xff: permission denied", Fault: true}, {Path: []byte("/s"), Reason: "socket"}},
		Tags:    []string{"nightly", "\xff"},
	}
	for name, p := range map[string]catalog.Point{"full": full, "empty": {Item: "etc", Started: now.UnixNano(), Packs: []pack.ID{}, Root: []chunk.ID{}}, "nil": {Item: "etc", Started: -1}} {
		check(t, commit(t.Context(), it, &p))
		got, err := it.Point(t.Context(), p.Name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name != "nil" && !reflect.DeepEqual(*got, p) {
			t.Errorf("%s: %+v, want %+v", name, *got, p)
		}
		if p.Name.Time().UnixMilli() != time.Unix(0, p.Started).UnixMilli() {
			t.Errorf("%s: called %s", name, p.Name)
		}
		if name == "full" {
			if got.Host != "h\ufffdst" || got.Users[1000] != "m\ufffdller" || !bytes.Equal(got.Skipped[0].Path, []byte("/a\xff\x80")) || !utf8.ValidString(got.Skipped[0].Reason) {
				t.Errorf("%+v", got)
			}
		}
	}
}

func TestPoints(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	v := vault(t, st, k)
	it, other := item(t, v, "etc"), item(t, v, "vm1")
	var want []catalog.PointName
	for i := range 5 {
		p := &catalog.Point{Item: "etc", Started: now.AddDate(0, i*3, -i).UnixNano()}
		check(t, commit(t.Context(), it, p))
		want = append(want, p.Name)
	}
	if got, err := it.Points(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := other.Points(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("the other item has %v, %v", got, err)
	}
	_, err := other.Point(t.Context(), want[0])
	is(t, "a point of another item", err, catalog.ErrNoPoint)
	put(t, st, other.PointKey(want[0]), read(t, st, it.PointKey(want[0])))
	_, err = other.Point(t.Context(), want[0])
	is(t, "a point in another item's place", err, crypt.ErrDamaged)
	renamed := want[0][:21] + want[1][21:]
	put(t, st, it.PointKey(renamed), read(t, st, it.PointKey(want[0])))
	_, err = it.Point(t.Context(), renamed)
	is(t, "a point under another's name", err, crypt.ErrDamaged)
	later := want[4][:21] + want[0][21:] // the id of one, the time of another
	put(t, st, it.PointKey(later), read(t, st, it.PointKey(want[0])))
	_, err = it.Point(t.Context(), later)
	is(t, "a point at another time", err, crypt.ErrDamaged)
	tamper(t, st, it.PointKey(want[2]), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	_, err = it.Point(t.Context(), want[2])
	is(t, "a damaged point", err, crypt.ErrDamaged)
}

func TestSync(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	it := item(t, vault(t, st, k), "etc")
	l := newLocal()
	sync := func(what string, want catalog.Synced, packs ...pack.Contents) {
		t.Helper()
		done, err := it.Sync(t.Context(), l)
		if err != nil || !reflect.DeepEqual(done, want) || !slices.Equal(l.ids(), ids(packs...)) || l.running {
			t.Errorf("%s: %+v, %v; want %+v; %d packs", what, done, err, want, len(l.packs))
		}
	}
	putIndex := func(c ...pack.Contents) string {
		t.Helper()
		name, _, err := it.PutIndex(t.Context(), c, store.PutOptions{})
		check(t, err)
		got, err := it.Index(t.Context(), name)
		if err != nil || !slices.EqualFunc(got, c, pack.Contents.Equal) {
			t.Fatalf("index %s: %v, %v", name, got, err)
		}
		return name
	}
	sync("an empty item", catalog.Synced{})
	a, b, c := addPack(t, st, it, "a"), addPack(t, st, it, "b"), addPack(t, st, it, "c")
	first := putIndex(a)
	sync("new, with packs that no index names", catalog.Synced{Indexes: 1, Recovered: 2}, a, b, c)
	second := putIndex(b, c)
	sync("an index more", catalog.Synced{Indexes: 1}, a, b, c)
	sync("nothing new", catalog.Synced{}, a, b, c)

	d, e := addPack(t, st, it, "d"), addPack(t, st, it, "e")
	sync("packs of a backup elsewhere that has not ended", catalog.Synced{}, a, b, c)
	l.running = true
	tamper(t, st, pack.Key(it.ID(), e.Pack), func(b []byte) []byte { b[len(b)-60] ^= 1; return b })
	sync("after a crash, with a damaged pack", catalog.Synced{Recovered: 1, Damaged: []store.Key{pack.Key(it.ID(), e.Pack)}}, a, b, c, d)
	tamper(t, st, pack.Key(it.ID(), e.Pack), func([]byte) []byte { return nil })
	l.running = true
	sync("with an empty pack", catalog.Synced{Damaged: []store.Key{pack.Key(it.ID(), e.Pack)}}, a, b, c, d)

	check(t, st.Delete(t.Context(), pack.Key(it.ID(), d.Pack)))
	l.running = true
	sync("after a pack is gone", catalog.Synced{Damaged: []store.Key{pack.Key(it.ID(), e.Pack)}, Gone: []store.Key{pack.Key(it.ID(), d.Pack)}}, a, b, c)

	check(t, st.Delete(t.Context(), it.IndexKey(first)))
	sync("after an index is gone", catalog.Synced{Indexes: 1, Damaged: []store.Key{pack.Key(it.ID(), e.Pack)}, Gone: []store.Key{it.IndexKey(first)}}, a, b, c)
	if l.resets != 1 {
		t.Errorf("%d resets", l.resets)
	}

	// A backup that was interrupted while it synced is found at the next time.
	f := addPack(t, st, it, "f")
	faulty := storetest.NewFaulty(st, func(op storetest.Op) storetest.Fault {
		if op.Kind == storetest.List && strings.Contains(string(op.Key), "/index/") {
			return storetest.Fault{Err: store.ErrUnavailable}
		}
		return storetest.Fault{}
	})
	v, err := catalog.Open(t.Context(), faulty, catalog.OpenOptions{ID: vaultID(t, st), Ring: kek.NewRing(k)})
	check(t, err)
	far, err := v.Item(t.Context(), "etc")
	check(t, err)
	_, err = far.Sync(t.Context(), l)
	is(t, "a store that does not answer", err, store.ErrUnavailable)
	if !l.running {
		t.Error("the mark is gone after a Sync that did not end")
	}
	sync("after that", catalog.Synced{Recovered: 1, Damaged: []store.Key{pack.Key(it.ID(), e.Pack)}}, a, b, c, f)
	if _, ok := l.sources[second]; !ok || len(l.sources) != 1 {
		t.Errorf("sources %v, want %s", l.sources, second)
	}

	// A damaged index costs a listing: its packs say the same of themselves.
	third := putIndex(addPack(t, st, it, "g"))
	tamper(t, st, it.IndexKey(third), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	done, err := it.Sync(t.Context(), l)
	check(t, err)
	if done.Recovered != 1 || len(done.Damaged) != 2 || done.Damaged[0] != it.IndexKey(third) {
		t.Errorf("sync with a damaged index: %+v", done)
	}
}

// vaultID finds the id of the vault in st.
func vaultID(t *testing.T, st *mem.Store) (id crypt.VaultID) {
	t.Helper()
	copy(id[:], bodyOf(read(t, st, "vault"))[3:23])
	return id
}

// TestNameOfAnyBytes: an item whose name is not UTF-8 has points as others do.
func TestNameOfAnyBytes(t *testing.T) {
	it := item(t, vault(t, newStore(), newKey(t, "main")), "db\xff")
	p := &catalog.Point{Item: it.Name(), Started: now.UnixNano()}
	check(t, commit(t.Context(), it, p))
	if _, err := it.Point(t.Context(), p.Name); err != nil {
		t.Error(err)
	}
}

// TestStrays: what is not of the format lies beside the objects and is told of.
func TestStrays(t *testing.T) {
	st := newStore()
	it := item(t, vault(t, st, newKey(t, "main")), "etc")
	c := addPack(t, st, it, "a")
	_, _, err := it.PutIndex(t.Context(), []pack.Contents{c}, store.PutOptions{})
	check(t, err)
	p := &catalog.Point{Item: "etc", Started: now.UnixNano()}
	check(t, commit(t.Context(), it, p))
	root := "items/" + store.Key(it.ID().String())
	id := c.Pack.String()
	want := []store.Key{root + "/index/notes.txt", root + "/packs/" + store.Key(id), root + "/packs/zz/" + store.Key(id), root + "/points/" + store.Key(id), root + "/points/readme"}
	slices.Sort(want) // the id may come before or after "readme"
	for _, key := range want {
		put(t, st, key, []byte("stray"))
	}
	var got []store.Key
	for key, err := range it.Strays(t.Context()) {
		check(t, err)
		got = append(got, key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if names, err := it.Points(t.Context()); err != nil || !slices.Equal(names, []catalog.PointName{p.Name}) {
		t.Errorf("%v, %v", names, err)
	}
}

// TestReader reads chunks back, and refuses those that are not what they are called.
func TestReader(t *testing.T) {
	k := newKey(t, "main")
	st := newStore()
	it := item(t, vault(t, st, k), "etc")
	l := newLocal()
	var contents []pack.Contents
	for i := range 3 {
		contents = append(contents, addPack(t, st, it, fmt.Sprintf("chunk %d", i)))
	}
	_, err := it.Sync(t.Context(), l)
	check(t, err)
	r := it.NewReader(l)
	for i, c := range contents {
		id := c.Frames[0].Chunks[0].ID
		if got, err := r.Chunk(t.Context(), id, pack.Data); err != nil || string(got) != fmt.Sprintf("chunk %d", i) {
			t.Errorf("%q, %v", got, err)
		}
		_, err := r.Chunk(t.Context(), id, pack.Tree)
		is(t, "as another type", err, crypt.ErrDamaged)
	}
	_, err = r.Chunk(t.Context(), chunk.ID{1}, pack.Data)
	is(t, "an unknown chunk", err, crypt.ErrDamaged)
	wrong := contents[0]
	wrong.Frames[0].Chunks[0].ID = chunk.ID{2}
	check(t, l.Add(t.Context(), "", []pack.Contents{wrong}))
	_, err = r.Chunk(t.Context(), chunk.ID{2}, pack.Data)
	is(t, "a chunk under another's id", err, crypt.ErrDamaged)
}
