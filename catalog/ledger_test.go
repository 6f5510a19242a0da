package catalog_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// begin announces a backup.
func begin(t testing.TB, it *catalog.Item, at time.Time) catalog.PointName {
	t.Helper()
	s, err := it.Begin(t.Context(), at, "h\xffst")
	check(t, err)
	return s.Name
}

// TestSessionIsDecidedOnce: of a point and a void under one name whichever comes first
// stays, and everybody is told the same.
func TestSessionIsDecidedOnce(t *testing.T) {
	st := newStore()
	it := item(t, vault(t, st, newKey(t, "main")), "etc")
	lost, won, open := begin(t, it, now), begin(t, it, now.Add(time.Second)), begin(t, it, now.Add(time.Hour))
	if names, err := it.Sessions(t.Context()); err != nil || !slices.Equal(names, []catalog.PointName{lost, won, open}) {
		t.Fatalf("sessions %v, %v", names, err)
	}
	if s, err := it.Session(t.Context(), won); err != nil || s.Name != won || s.Host != "h\ufffdst" || !s.Started.Equal(now.Add(time.Second)) {
		t.Errorf("%+v, %v", s, err)
	}
	put := func(name catalog.PointName, at time.Time) error {
		return it.PutPoint(t.Context(), &catalog.Point{Name: name, Item: "etc", Started: at.UnixNano()}, store.PutOptions{})
	}
	for range 2 {
		if committed, err := it.Void(t.Context(), lost); err != nil || committed {
			t.Errorf("void: committed %v, %v", committed, err)
		}
		is(t, "a point that was given up", put(lost, now), catalog.ErrVoided)
	}
	check(t, put(won, now.Add(time.Second)))
	is(t, "a point that is there", put(won, now.Add(time.Second)), store.ErrExist)
	for range 2 {
		if committed, err := it.Void(t.Context(), won); err != nil || !committed {
			t.Errorf("void of a point: committed %v, %v", committed, err)
		}
	}
	_, err := it.Committed(t.Context(), open)
	is(t, "one that is not decided", err, catalog.ErrNoPoint)
	if err := put(open, now); err == nil {
		t.Error("a point of another time was put")
	}
	slept := catalog.Point{Name: open, Item: "etc", Started: now.Add(time.Hour).UnixNano(), Ended: now.Add(catalog.MaxSession + 2*time.Hour).UnixNano()}
	is(t, "a point of a backup that slept", it.PutPoint(t.Context(), &slept, store.PutOptions{}), catalog.ErrVoided)
	if err := put("", now); err == nil {
		t.Error("a point without a name was put")
	}

	if names, err := it.Points(t.Context()); err != nil || !slices.Equal(names, []catalog.PointName{won}) {
		t.Errorf("points %v, %v", names, err)
	}
	if committed, err := it.Committed(t.Context(), lost); err != nil || committed {
		t.Errorf("a void: committed %v, %v", committed, err)
	}
	for key, err := range it.Strays(t.Context()) {
		t.Errorf("stray %s, %v", key, err)
	}
	_, err = it.Point(t.Context(), lost)
	if err == nil {
		t.Error("a void is read as a point")
	}
}

// TestVoidRace: a commit and many voids at once, and all agree on what became of it.
func TestVoidRace(t *testing.T) {
	it := item(t, vault(t, newStore(), newKey(t, "main")), "etc")
	outcomes := make(map[bool]int)
	for i := range 50 {
		at := now.Add(time.Duration(i) * time.Second)
		name := begin(t, it, at)
		var wg sync.WaitGroup
		var put error
		voids := make([]bool, 4)
		wg.Go(func() {
			put = it.PutPoint(t.Context(), &catalog.Point{Name: name, Item: "etc", Started: at.UnixNano()}, store.PutOptions{})
		})
		for n := range voids {
			wg.Go(func() {
				var err error
				if voids[n], err = it.Void(t.Context(), name); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, committed := range voids {
			if committed != (put == nil) {
				t.Fatalf("a void says committed: %v, and the backup %v", committed, put)
			}
		}
		outcomes[put == nil]++
	}
	t.Logf("committed: %v", outcomes)
}

// ledger fills an item with one of everything that backups and prunes leave for each
// other.
func ledger(t testing.TB, it *catalog.Item) (catalog.Mark, catalog.Repack, catalog.Hold) {
	t.Helper()
	p := begin(t, it, now)
	q := begin(t, it, now.Add(-time.Hour))
	m := catalog.Mark{Created: now, Host: "\xfe", Points: []catalog.PointName{p, q}, Packs: []pack.ID{{9}, {3}}, Forgotten: []catalog.PointName{p}}
	check(t, it.PutMark(t.Context(), &m))
	check(t, it.PutWitness(t.Context(), m.ID, []catalog.PointName{p, q}))
	r := catalog.Repack{Replaced: []pack.ID{{2}, {1}}, By: []pack.ID{{8}}, Points: []catalog.PointName{p, q}}
	check(t, it.PutRepack(t.Context(), begin(t, it, now.Add(time.Hour)), &r))
	h := catalog.Hold{Point: p, Owner: "legal", Reason: "case \xff", Since: now}
	check(t, it.PutHold(t.Context(), &h))
	check(t, it.PutHold(t.Context(), &catalog.Hold{Point: q, Owner: "legal", Since: now.Add(time.Minute)}))
	holds, err := it.Holds(t.Context())
	check(t, err)
	check(t, it.Release(t.Context(), holds[1].ID, "who", now))
	_, err = it.Void(t.Context(), q)
	check(t, err)
	check(t, it.PutRemoved(t.Context(), []catalog.PointName{q, p}))
	check(t, it.PutOutcome(t.Context(), m.ID, []pack.ID{{9}, {8}}))
	return m, r, h
}

// TestLedger: what backups and prunes leave for each other comes back as it was.
func TestLedger(t *testing.T) {
	st := newStore()
	v := vault(t, st, newKey(t, "main"))
	it := item(t, v, "etc")
	m, r, h := ledger(t, it)
	marks, err := it.Marks(t.Context())
	check(t, err)
	info, err := st.Stat(t.Context(), it.MarkKey(m.ID))
	check(t, err)
	m.Modified, m.Created = info.Modified, m.Created.UTC()
	if !reflect.DeepEqual(marks, []catalog.Mark{m}) || !slices.IsSorted(m.Points) || m.Packs[0] != (pack.ID{3}) {
		t.Errorf("%+v, want %+v", marks, m)
	}
	sessions, ok, err := it.Witness(t.Context(), m.ID)
	if err != nil || !ok || !slices.Equal(sessions, m.Points) {
		t.Errorf("%v %v %v", sessions, ok, err)
	}
	check(t, it.PutWitness(t.Context(), m.ID, nil))
	if again, _, err := it.Witness(t.Context(), m.ID); err != nil || !slices.Equal(again, sessions) {
		t.Errorf("a second witness took the place of the first: %v %v", again, err)
	}
	if ids, err := it.Witnesses(t.Context()); err != nil || !slices.Equal(ids, []string{m.ID}) {
		t.Errorf("witnesses %v, %v", ids, err)
	}
	if _, ok, err := it.Witness(t.Context(), pack.ID{1}.String()); ok || err != nil {
		t.Errorf("a witness of no mark: %v %v", ok, err)
	}
	is(t, "a second outcome", it.PutOutcome(t.Context(), m.ID, nil), store.ErrExist)
	if packs, ok, err := it.Outcome(t.Context(), m.ID); err != nil || !ok || !slices.Equal(packs, []pack.ID{{8}, {9}}) {
		t.Errorf("outcome %v %v %v", packs, ok, err)
	}
	if _, ok, err := it.Outcome(t.Context(), pack.ID{1}.String()); ok || err != nil {
		t.Errorf("an outcome of no mark: %v %v", ok, err)
	}
	var removed []catalog.PointName
	records, err := it.RemovedRecords(t.Context())
	check(t, err)
	for _, id := range append(records, pack.ID{1}) { // the last is not there
		names, err := it.RemovedPoints(t.Context(), id)
		check(t, err)
		removed = append(removed, names...)
	}
	if len(records) != 2 || !slices.Equal(removed, m.Points) {
		t.Errorf("%d records name %v as removed", len(records), removed)
	}
	repacks, err := it.Repacks(t.Context())
	if err != nil || !reflect.DeepEqual(repacks.All(), []catalog.Repack{r}) {
		t.Errorf("%+v, %v", repacks.All(), err)
	}
	holds, err := it.Holds(t.Context())
	if err != nil || !reflect.DeepEqual(holds, []catalog.Hold{h}) || h.Reason != "case \ufffd" {
		t.Errorf("%+v, %v", holds, err)
	}
	check(t, it.Release(t.Context(), h.ID, "who", now))
	is(t, "a hold that was released", it.Release(t.Context(), h.ID, "who", now), catalog.ErrNoHold)
	is(t, "no hold", it.Release(t.Context(), "x", "who", now), catalog.ErrNoHold)
	for key, err := range it.Strays(t.Context()) {
		t.Errorf("stray %s, %v", key, err)
	}
	checked := 0
	for key, err := range it.CheckRecords(t.Context()) {
		if checked++; err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if checked != 3+1+1+1+3+1+2 { // sessions, a mark, its witness, a repack record, holds and a release, what was removed
		t.Errorf("%d records were checked", checked)
	}
	if err := it.PutMark(t.Context(), &catalog.Mark{Packs: make([]pack.ID, catalog.MaxMarked+1)}); err == nil {
		t.Error("a mark without end was put")
	}

	_, err = v.Erase(t.Context(), st, "etc", now)
	check(t, err)
	if left := keys(t, st, "items/"); len(left) > 0 {
		t.Errorf("an erasure leaves %v", left)
	}
}

// TestLedgerDamage: a flipped bit in any of it is found, and whoever needs the object
// is not told something else.
func TestLedgerDamage(t *testing.T) {
	good := newStore()
	k := newKey(t, "main")
	v := vault(t, good, k)
	m, _, _ := ledger(t, item(t, v, "etc"))
	flips := 0
	for _, key := range keys(t, good, "items/") {
		size := len(read(t, good, key))
		for at := 0; at < size; at += 11 {
			st := good.Clone()
			tamper(t, st, key, func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b })
			it := item(t, open(t, st, v.ID(), k), "etc")
			found := false
			for at, err := range it.CheckRecords(t.Context()) {
				found = found || at == key && errors.Is(err, crypt.ErrDamaged) || at == key && has(err, "newer build")
			}
			if !found {
				t.Errorf("byte %d of %s: not found", at, key)
			}
			marks, merr := it.Marks(t.Context())
			_, _, werr := it.Witness(t.Context(), m.ID)
			_, rerr := it.Repacks(t.Context())
			_, herr := it.Holds(t.Context())
			told := map[string]bool{
				"marks": merr != nil || marks[0].Fault != nil && len(marks[0].Packs)+len(marks[0].Points) == 0, "witnesses": werr != nil,
				"repacks": rerr != nil, "holds": herr != nil, "sessions": true,
			}
			for folder, is := range told {
				if strings.Contains(string(key), "/"+folder+"/") && !is {
					t.Errorf("byte %d of %s: whoever reads it is not told", at, key)
				}
			}
			flips++
		}
	}
	t.Logf("%d flipped bits", flips)

	// In another's place.
	for _, pair := range [][2]string{{"marks", "witnesses"}, {"repacks", "marks"}, {"holds", "repacks"}, {"witnesses", "holds"}} {
		st := good.Clone()
		it := item(t, open(t, st, v.ID(), k), "etc")
		folder := "items/" + store.Key(it.ID().String()) + "/"
		to, from := keys(t, st, folder+store.Key(pair[0])+"/")[0], keys(t, st, folder+store.Key(pair[1])+"/")[0]
		b := read(t, st, from)
		tamper(t, st, to, func([]byte) []byte { return b })
		found := false
		for at, err := range it.CheckRecords(t.Context()) {
			found = found || at == to && errors.Is(err, crypt.ErrDamaged)
		}
		if !found {
			t.Errorf("one of the %s in the place of one of the %s was not found", pair[1], pair[0])
		}
	}
}

// TestForgedLedger: payloads that somebody with the secret sealed, and that are not what
// a writer writes, are refused.
func TestForgedLedger(t *testing.T) {
	st := newStore()
	it := item(t, vault(t, st, newKey(t, "main")), "etc")
	for name, body := range map[string]struct {
		kind    crypt.Kind
		key     func(string) store.Key
		payload string
	}{
		"an empty mark":             {crypt.Mark, it.MarkKey, ""},
		"a mark of a wrong point":   {crypt.Mark, it.MarkKey, "\xa3\x01\x00\x02\x60\x03\x81\x61x"},
		"an unknown field":          {crypt.Mark, it.MarkKey, "\xa3\x01\x00\x02\x60\x18\x63\x00"},
		"a long number":             {crypt.Mark, it.MarkKey, "\xa2\x01\x18\x00\x02\x60"},
		"a witness of no point":     {crypt.Witness, it.WitnessKey, "\xa1\x01\x81\x61x"},
		"a repack of no point":      {crypt.Repack, it.RepackKey, "\xa3\x01\x80\x02\x80\x03\x81\x61x"},
		"a removal of no point":     {crypt.Removed, it.RemovedKey, "\xa1\x01\x81\x61x"},
		"a hold of nothing":         {crypt.Hold, it.HoldKey, "\xa2\x02\x60\x04\x00"},
		"a release of half a hold":  {crypt.Hold, it.HoldKey, "\xa3\x02\x60\x04\x00\x05\x41\x01"},
		"a hold that is a release":  {crypt.Hold, it.HoldKey, "\xa4\x01\x61x\x02\x60\x04\x00\x05\x50" + strings.Repeat("a", 16)},
		"a release that ends short": {crypt.Hold, it.HoldKey, "\xa3\x02\x60\x04\x00\x05"},
	} {
		s, err := it.Secret(t.Context(), 1)
		check(t, err)
		id := pack.ID{7}
		raw, err := pack.SealObject(s, crypt.Place{Kind: body.kind, Item: it.ID(), Generation: 1, ID: id}, []byte(body.payload))
		check(t, err)
		key := body.key(id.String())
		put(t, st, key, raw)
		found := false
		for at, err := range it.CheckRecords(t.Context()) {
			found = found || at == key && errors.Is(err, crypt.ErrDamaged)
		}
		if !found {
			t.Errorf("%s is taken", name)
		}
		check(t, st.Delete(t.Context(), key))
	}
}

// FuzzLedger: no payload of any kind makes a reader fall over, and what is taken is
// exactly what a writer would write again.
func FuzzLedger(f *testing.F) {
	st := newStore()
	k := newKey(f, "main")
	v := vault(f, st, k)
	it := item(f, v, "etc")
	ledger(f, it)
	for _, payload := range []string{"", "\xa2\x01\x00\x02\x60", "\xa3\x01\x80\x02\x80\x03\x80", "\xa1\x01\x80", "\xa2\x01\x60\x02\x00"} {
		for kind := range uint8(5) {
			f.Add(kind, []byte(payload))
		}
	}
	s, err := it.Secret(f.Context(), 1)
	check(f, err)
	name := begin(f, it, now)
	_, _, nameID, err := catalog.ParsePointName(string(name))
	check(f, err)
	id := pack.ID{7}
	kinds := []struct {
		kind crypt.Kind
		key  store.Key
		id   [16]byte
	}{
		{crypt.Session, it.SessionKey(name), nameID}, {crypt.Mark, it.MarkKey(id.String()), id}, {crypt.Witness, it.WitnessKey(id.String()), id},
		{crypt.Repack, it.RepackKey(id.String()), id}, {crypt.Hold, it.HoldKey(id.String()), id}, {crypt.Removed, it.RemovedKey(id.String()), id},
	}
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		of := kinds[int(kind)%len(kinds)]
		raw, err := pack.SealObject(s, crypt.Place{Kind: of.kind, Item: it.ID(), Generation: 1, ID: of.id}, payload)
		check(t, err)
		check(t, st.Delete(t.Context(), of.key))
		put(t, st, of.key, raw)
		defer st.Delete(t.Context(), of.key)
		bad := false
		for at, err := range it.CheckRecords(t.Context()) {
			if err != nil && (at != of.key || !errors.Is(err, crypt.ErrDamaged)) {
				t.Fatalf("%s: %v", at, err)
			}
			bad = bad || err != nil
		}
		if _, err := catalog.DecodeSummary(payload); err != nil && !errors.Is(err, crypt.ErrDamaged) {
			t.Fatal(err)
		}
		marks, err := it.Marks(t.Context())
		check(t, err)
		for _, m := range marks {
			if m.ID == id.String() && (m.Fault != nil) != bad {
				t.Errorf("mark with fault %v", m.Fault)
			}
		}
	})
}

// TestPacksOf: a point needs what stands for the packs that it lists, as far as a record
// covers it.
func TestPacksOf(t *testing.T) {
	old, young := catalog.NewSession(now, "").Name, catalog.NewSession(now.Add(time.Hour), "").Name
	repacks := catalog.NewRepacks(
		catalog.Repack{Replaced: []pack.ID{{1}, {2}}, By: []pack.ID{{11}}, Points: []catalog.PointName{old}},
		catalog.Repack{Replaced: []pack.ID{{11}, {3}}, By: []pack.ID{{12}, {13}}, Points: []catalog.PointName{old, young}},
		catalog.Repack{Replaced: []pack.ID{{5}}, By: []pack.ID{{6}}, Points: []catalog.PointName{young}},
		// A repair found what was wanted of a new pack in the old one, which was there still.
		catalog.Repack{Replaced: []pack.ID{{6}}, By: []pack.ID{{5}, {7}}, Points: []catalog.PointName{young}},
	)
	for _, tt := range []struct {
		name        catalog.PointName
		packs, want []pack.ID
	}{
		{old, []pack.ID{{1}, {4}}, []pack.ID{{4}, {12}, {13}}},
		{old, []pack.ID{{1}, {2}, {3}, {12}}, []pack.ID{{12}, {13}}},
		{young, []pack.ID{{1}, {2}}, []pack.ID{{1}, {2}}},
		{young, []pack.ID{{3}, {1}}, []pack.ID{{1}, {12}, {13}}},
		{young, []pack.ID{{4}, {11}}, []pack.ID{{4}, {12}, {13}}},
		{young, []pack.ID{{4}, {5}}, []pack.ID{{4}, {5}, {7}}},
		{old, nil, nil},
		{"20260101t000000.000z-x", []pack.ID{{1}, {5}}, []pack.ID{{1}, {5}}},
	} {
		if got := repacks.PacksOf(&catalog.Point{Name: tt.name, Packs: tt.packs}); !slices.Equal(got, tt.want) {
			t.Errorf("%s with %v needs %v, want %v", tt.name, tt.packs, got, tt.want)
		}
	}
	none := catalog.NewRepacks()
	if got := none.PacksOf(&catalog.Point{Packs: []pack.ID{{2}, {1}}}); !slices.Equal(got, []pack.ID{{2}, {1}}) {
		t.Errorf("without a record: %v", got)
	}
}
