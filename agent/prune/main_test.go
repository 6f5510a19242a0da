package prune_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
)

// testRing is a ring with one software key, the same for all tests.
var testRing *kek.Ring

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "coffer-kek-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		uri := "file://" + filepath.Join(dir, "kek.pem")
		if err := software.Create(context.Background(), uri, software.CreateOptions{Bits: 2048}); err != nil {
			panic(err)
		}
		k, err := software.Open(context.Background(), "test", uri)
		if err != nil {
			panic(err)
		}
		testRing = kek.NewRing(k)
		return m.Run()
	}())
}

// start is when the clocks of the tests begin.
var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// bench is a vault with one item, and the state folder of a host that uses it.
type bench struct {
	store store.Store
	id    crypt.VaultID
	dir   string       // of the local index
	clock *clock       // of the host
	set   *settings    // shared by the hosts of a vault
	files *memoryFiles // what the host backs up
	wrap  func(*sqlite.Index) index
	kept  *opened // if not nil, what is opened stays open
}

// opened is a vault, its item and the local index, open.
type opened struct {
	vault *catalog.Vault
	item  *catalog.Item
	index *sqlite.Index
}

func (o *opened) close() {
	if o.index != nil {
		o.index.Close()
	}
	if o.item != nil {
		o.item.Close()
	}
	if o.vault != nil {
		o.vault.Close()
	}
	*o = opened{}
}

type index interface {
	backup.Index
	prune.Index
}

// clock is a host's or a store's.
type clock struct{ time time.Time }

func (c *clock) now() time.Time       { return c.time }
func (c *clock) pass(d time.Duration) { c.time = c.time.Add(d) }

// settings of the prunes.
type settings struct {
	retention *policy.Retention
	allow     policy.Allow
	below     int
	dry       bool
	lock      store.Retention
	removing  func(context.Context, catalog.PointName) error
}

const (
	itemName = "etc"
	grace    = time.Hour
	abandon  = 10 * time.Hour
)

var quiet = slog.New(slog.DiscardHandler)

// newBench makes a vault in st, and a host.
func newBench(t testing.TB, st store.Store, c *clock) *bench {
	t.Helper()
	v, err := catalog.Create(t.Context(), st, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: testRing, Now: c.now()})
	check(t, err)
	defer v.Close()
	return &bench{store: st, id: v.ID(), dir: t.TempDir(), clock: c, set: &settings{retention: &policy.Retention{Last: 2}}, files: newFiles()}
}

// newStore is a store on the clock.
func newStore(c *clock) *mem.Store { return mem.New(mem.Config{Now: c.now}) }

// host is another host that uses the vault, over st, with a folder of its own.
func (b *bench) host(st store.Store, dir string, c *clock) *bench {
	other := *b
	other.store, other.dir, other.clock, other.files, other.kept = st, dir, c, b.files.clone(), nil
	return &other
}

// with is the same host with other settings.
func (b *bench) with(set *settings) *bench {
	other := *b
	other.set = set
	return &other
}

// use opens vault, item and index, and closes them again.
func (b *bench) use(ctx context.Context, do func(it *catalog.Item, ix index) error) error {
	o := b.kept
	if o == nil {
		o = new(opened)
		defer o.close()
	}
	if err := b.open(ctx, o); err != nil {
		return err
	}
	var in index = o.index
	if b.wrap != nil {
		in = b.wrap(o.index)
	}
	return do(o.item, in)
}

// open opens what is not open yet.
func (b *bench) open(ctx context.Context, o *opened) (err error) {
	if o.vault == nil {
		if o.vault, err = catalog.Open(ctx, b.store, catalog.OpenOptions{ID: b.id, Ring: testRing}); err != nil {
			return err
		}
	}
	if o.item == nil {
		if o.item, err = o.vault.CreateItem(ctx, itemName, b.clock.now()); err != nil {
			return err
		}
	}
	if o.index == nil {
		o.index, err = sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(b.dir, "index"), Logger: quiet})
	}
	return err
}

func (b *bench) backup(ctx context.Context) (p *catalog.Point, err error) {
	return p, b.use(ctx, func(it *catalog.Item, ix index) error {
		p, err = backup.Run(ctx, backup.Config{Item: it, Packs: b.store, Index: ix, Source: b.files, Uploads: 1,
			Host: "host", Agent: "test", Clock: b.clock.now, Log: quiet})
		return err
	})
}

func (b *bench) config(it *catalog.Item, ix index) prune.Config {
	return prune.Config{Item: it, Store: b.store, Index: ix, Retention: b.set.retention, Allow: b.set.allow, Grace: grace, Abandon: abandon,
		RepackBelow: b.set.below, RepackMost: 1 << 30, Lock: b.set.lock, DryRun: b.set.dry, Host: "host", Removing: b.set.removing, Clock: b.clock.now, Log: quiet}
}

func (b *bench) prune(ctx context.Context) (done prune.Result, err error) {
	return done, b.use(ctx, func(it *catalog.Item, ix index) error {
		if _, err := it.Sync(ctx, ix); err != nil {
			return err
		}
		done, err = prune.Run(ctx, b.config(it, ix))
		return err
	})
}

// mustBackup makes a point of what the files are now, a minute after the one before.
func (b *bench) mustBackup(t testing.TB) catalog.PointName {
	t.Helper()
	b.clock.pass(time.Minute)
	p, err := b.backup(t.Context())
	check(t, err)
	return p.Name
}

func (b *bench) mustPrune(t testing.TB) prune.Result {
	t.Helper()
	done, err := b.prune(t.Context())
	check(t, err)
	return done
}

// points reads every point that is listed, whole, as a host does that knows nothing of
// the vault yet, and compares it with what was backed up.
func (b *bench) points(t testing.TB, known map[string]map[string][]byte) (names []catalog.PointName) {
	t.Helper()
	fresh := b.host(b.store, t.TempDir(), b.clock)
	check(t, fresh.use(t.Context(), func(it *catalog.Item, ix index) error {
		if _, err := it.Sync(t.Context(), ix); err != nil {
			return err
		}
		var err error
		if names, err = it.Points(t.Context()); err != nil {
			return err
		}
		for _, name := range names {
			if err := readPoint(t.Context(), it, ix, name, known); err != nil {
				return fmt.Errorf("point %s: %w", name, err)
			}
		}
		return nil
	}))
	return names
}

// readPoint reads all files of a point and compares them.
func readPoint(ctx context.Context, it *catalog.Item, ix index, name catalog.PointName, known map[string]map[string][]byte) error {
	p, err := it.Point(ctx, name)
	if err != nil {
		return err
	}
	repacks, err := it.Repacks(ctx)
	if err != nil {
		return err
	}
	for _, id := range repacks.PacksOf(p) {
		ok, err := ix.HasPack(ctx, id)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("it needs pack %s, which is not there", id)
		}
	}
	r := it.NewReader(ix)
	var state bytes.Buffer
	if err := restore.Cat(ctx, r, p.Root, "/"+stateFile, &state); err != nil {
		return err
	}
	want, ok := known[state.String()]
	if !ok {
		return fmt.Errorf("nobody backed up state %q", &state)
	}
	found := 0
	for n, err := range r.Nodes(ctx, p.Root) {
		if err != nil {
			return err
		}
		var got bytes.Buffer
		if err := restore.Cat(ctx, r, p.Root, "/"+n.Name, &got); err != nil {
			return err
		}
		if !bytes.Equal(got.Bytes(), want[n.Name]) {
			return fmt.Errorf("file %s has other content", n.Name)
		}
		found++
	}
	if found != len(want) {
		return fmt.Errorf("%d files of %d", found, len(want))
	}
	return nil
}

// objects counts what is in the store, by folder of the item.
func (b *bench) objects(t testing.TB) map[string]int {
	t.Helper()
	count := make(map[string]int)
	for info, err := range b.store.List(t.Context(), "items/") {
		check(t, err)
		folder := string(info.Key[len("items/"):])
		folder = folder[bytes.IndexByte([]byte(folder), '/')+1:]
		folder = folder[:bytes.IndexByte([]byte(folder), '/')]
		if info.Size == 0 {
			folder = "voids"
		}
		count[folder]++
	}
	return count
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// isIn tells whether a key is in a folder of the item.
func isIn(key store.Key, folder string) bool { return strings.Contains(string(key), "/"+folder+"/") }
