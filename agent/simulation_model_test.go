//go:build linux

package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store/pack"
)

// digest is that of a folder: of the names, the modes and the content of its files.
type digest [sha256.Size]byte

func digestOf(root string) (digest, error) {
	sum := sha256.New()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(sum, "%s %s %d\n", strings.TrimPrefix(path, root), info.Mode(), len(content))
		sum.Write(content)
		return err
	})
	return digest(sum.Sum(nil)), err
}

// edit changes some files of a host as a day's work does: new content, content that was
// there before, files that come, go and are copied.
func (h *host) edit(rng *rand.Rand) {
	h.Helper()
	for range 1 + rng.IntN(4) {
		name := h.path("docs", fmt.Sprintf("f%02d", rng.IntN(16)))
		if rng.IntN(6) == 0 {
			if err := os.RemoveAll(name); err != nil {
				h.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(name, text(rng.IntN(80)), 0o600); err != nil {
			h.Fatal(err)
		}
	}
	// No two hours are alike, nor two hosts.
	if err := os.WriteFile(h.path("docs", "diary"), fmt.Appendf(nil, "%s %d", h.name, rng.Uint64()), 0o600); err != nil {
		h.Fatal(err)
	}
	var err error
	if h.digest, err = digestOf(h.path("docs")); err != nil {
		h.Fatal(err)
	}
}

// text is one of the contents that files have.
func text(n int) []byte {
	out := make([]byte, 500+n*n*7)
	rand.NewChaCha8([32]byte{byte(n), 1}).Read(out) //nolint:errcheck // it never fails
	return out
}

// book is what a bystander has written down: what there must be, whatever the agents say.
type book struct {
	w      *world
	points map[catalog.PointName]*entry // all that ever were
	made   int
	gone   int
}

// entry is a point.
type entry struct {
	content []digest  // it has one of these
	loose   time.Time // since when a prune may have marked it, by the true time
	idle    time.Time // since when every prune has let it go, by the true time
	held    bool      // by an operator
	gone    bool
}

// look takes down what has become of the points since the last look. The agents have
// done since then what they did with a clock that said one of these times.
func (b *book) look(pruned bool, times ...time.Time) {
	b.w.Helper()
	there := b.listed()
	for name := range there {
		if b.points[name] == nil {
			b.points[name] = &entry{content: b.w.contents()}
			b.made++
		} else if b.points[name].gone {
			b.w.Errorf("%s: point %s is back", b.w, name)
		}
	}
	// Before what went is taken out: who looked saw it.
	let := make(map[catalog.PointName]bool)
	for _, now := range times {
		for _, d := range b.decide(now) {
			let[catalog.PointName(d.Point.ID)] = let[catalog.PointName(d.Point.ID)] || !d.Keep
		}
	}
	for name, e := range b.points {
		if !e.gone && let[name] && pruned && e.loose.IsZero() {
			e.loose = b.w.clock.True()
		}
		if !let[name] {
			e.idle = time.Time{}
		} else if pruned && e.idle.IsZero() {
			e.idle = b.w.clock.True()
		}
		if !e.gone && !e.idle.IsZero() && b.w.clock.True().Sub(e.idle) > lingers {
			b.w.Errorf("%s: point %s is there still, and was let go at %s", b.w, name, e.idle)
		}
		if _, is := there[name]; is || e.gone {
			continue
		}
		e.gone = true
		b.gone++
		since := b.w.clock.True().Sub(e.loose)
		switch {
		case e.held:
			b.w.Errorf("%s: point %s is gone, and was held", b.w, name)
		case !let[name]:
			b.w.Errorf("%s: point %s is gone, and the retention keeps it", b.w, name)
		case e.loose.IsZero() || since < grace:
			b.w.Errorf("%s: point %s is gone %s after it was let go", b.w, name, since)
		}
	}
}

// decide says of the points that are there whether they are kept.
func (b *book) decide(now time.Time) []policy.Decision {
	b.w.Helper()
	var points []policy.Point
	for name, e := range b.points {
		if e.gone {
			continue
		}
		p := policy.Point{ID: string(name), Time: name.Time()}
		if e.held {
			p.Holds = []policy.Hold{{Owner: "legal"}}
		}
		points = append(points, p)
	}
	keeps := b.w.retention()
	decided, err := policy.Decide(points, policy.Retention{Last: keeps.Last, Hourly: keeps.Hourly, Daily: keeps.Daily, Zone: time.UTC}, now, policy.Allow{})
	if err != nil {
		b.w.Fatal(err)
	}
	return decided
}

// live are the points that are there.
func (b *book) live() []catalog.PointName {
	names := slices.Sorted(maps.Keys(b.points))
	return slices.DeleteFunc(names, func(n catalog.PointName) bool { return b.points[n].gone })
}

// listed are the points in the store.
func (b *book) listed() map[catalog.PointName]struct{} {
	b.w.Helper()
	found := make(map[catalog.PointName]struct{})
	for info, err := range b.w.store.List(context.Background(), "items/") {
		if err != nil {
			b.w.Fatal(err)
		}
		if parts := strings.Split(string(info.Key), "/"); len(parts) == 4 && parts[2] == "points" && info.Size > 0 {
			found[catalog.PointName(parts[3])] = struct{}{}
		}
	}
	return found
}

// restoreAll wants every point to come back as it was backed up.
func (b *book) restoreAll(h *host) {
	b.w.Helper()
	for _, name := range b.live() {
		got, err := h.restore(string(name))
		b.w.counts.restores++
		switch {
		case err != nil:
			b.w.Errorf("%s: point %s: %v", b.w, name, err)
		case !slices.Contains(b.points[name].content, got):
			b.w.Errorf("%s: point %s came back otherwise", b.w, name)
		}
	}
}

// waste is what there is in the store that no point needs, and what is needed and is not
// there.
func (b *book) waste() (packs, sessions, marks int, missing []pack.ID) {
	w := b.w
	w.Helper()
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			w.Helper()
			w.Fatalf("%s: %v", w, err)
		}
	}
	key, err := software.Open(ctx, "main", w.key)
	fail(err)
	defer key.Close()
	id, err := crypt.ParseVaultID(w.vault)
	fail(err)
	v, err := catalog.Open(ctx, w.store, catalog.OpenOptions{ID: id, Ring: kek.NewRing(key)})
	fail(err)
	defer v.Close()
	it, err := v.Item(ctx, "docs")
	fail(err)
	defer it.Close()
	repacks, err := it.Repacks(ctx)
	fail(err)
	needed := make(map[pack.ID]bool)
	for _, name := range b.live() {
		p, err := it.Point(ctx, name)
		fail(err)
		for _, id := range repacks.PacksOf(p) {
			needed[id] = true
		}
	}
	for id, err := range it.Packs(ctx) {
		fail(err)
		if !needed[id] {
			packs++
		}
		delete(needed, id)
	}
	missing = slices.SortedFunc(maps.Keys(needed), func(x, y pack.ID) int { return bytes.Compare(x[:], y[:]) })
	open, err := it.Sessions(ctx)
	fail(err)
	marked, err := it.Marks(ctx)
	fail(err)
	return packs, len(open), len(marked), missing
}
