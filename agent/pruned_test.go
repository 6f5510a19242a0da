//go:build linux

package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/store"
)

// lastTwo is a policy that keeps two points of docs.
const lastTwo = `policies:
  short: {items: [docs], retention: {last: 2}}
`

// stamps is when objects were put, by the clock of a test: what a store says of them.
type stamps struct {
	clock *clock
	begun time.Time // of what was there before

	mu  sync.Mutex
	put map[store.Key]time.Time
}

// around is a store that tells the time by the stamps' clock. Tests see to it that
// before, if it is set, is called before each Put and Delete.
func (s *stamps) around(st store.Store, before func(ctx context.Context, what string, key store.Key) error) store.Store {
	return stamped{st, s, before}
}

func (s *stamps) of(info store.Info) store.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	info.Modified = s.begun
	if at, ok := s.put[info.Key]; ok {
		info.Modified = at
	}
	return info
}

type stamped struct {
	store.Store
	stamps *stamps
	before func(ctx context.Context, what string, key store.Key) error
}

func (s stamped) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	info, err := s.Store.Stat(ctx, key)
	return s.stamps.of(info), err
}

func (s stamped) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := s.before(ctx, "list", prefix); err != nil {
			yield(store.Info{}, err)
			return
		}
		for info, err := range s.Store.List(ctx, prefix) {
			if !yield(s.stamps.of(info), err) {
				return
			}
		}
	}
}

func (s stamped) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	if err := s.before(ctx, "put", key); err != nil {
		return err
	}
	err := s.Store.Put(ctx, key, body, opts)
	if err == nil {
		s.stamps.mu.Lock()
		defer s.stamps.mu.Unlock()
		s.stamps.put[key] = s.stamps.clock.Now()
	}
	return err
}

func (s stamped) Delete(ctx context.Context, key store.Key) error {
	if err := s.before(ctx, "delete", key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

// pruned is a bench whose stores tell the time by its clock, and that knows what is in
// each point of docs.
type pruned struct {
	*bench
	stamps  *stamps
	content map[string]map[string]string // by point and file
	changes int

	mu     sync.Mutex
	before func(ctx context.Context, what string, key store.Key) error
}

// newPruned is an agent with policies and a point of docs.
func newPruned(t *testing.T, policies string) *pruned {
	t.Helper()
	b := furnished(t)
	b.stop()
	b.clock.advance(time.Hour)
	p := &pruned{bench: b, content: make(map[string]map[string]string),
		stamps: &stamps{clock: b.clock, begun: b.clock.Now(), put: make(map[store.Key]time.Time)}}
	b.around = func(st store.Store) store.Store { return p.stamps.around(st, p.hook) }
	b.configure(twoKeys + policies)
	b.start()
	p.content[p.points()[0].ID] = p.docs()
	return p
}

func (p *pruned) hook(ctx context.Context, what string, key store.Key) error {
	p.mu.Lock()
	before := p.before
	p.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, what, key)
}

// on has f called before each Put and Delete.
func (p *pruned) on(f func(ctx context.Context, what string, key store.Key) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = f
}

// tree is what is in the files of a folder.
func (p *pruned) tree(dir string) map[string]string {
	p.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		out[d.Name()] = string(text)
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return out
}

func (p *pruned) docs() map[string]string { return p.tree(p.path("docs")) }

// edit changes a file of docs: nothing of it is in earlier points.
func (p *pruned) edit() {
	p.Helper()
	p.changes++
	text := strings.Repeat(fmt.Sprintf("Version %d of %s. ", p.changes, p.dir), 200)
	if err := os.WriteFile(p.path("docs", "changing.txt"), []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
}

// change edits docs and backs it up, an hour later.
func (p *pruned) change() string {
	p.Helper()
	p.advance(time.Hour)
	p.edit()
	want := p.docs()
	id := p.done(p.Backup(context.Background(), control.BackupRequest{Item: "docs"})).Point
	p.content[id] = want
	return id
}

// advance lets time pass.
func (p *pruned) advance(d time.Duration) {
	n := p.clock.rested()
	p.clock.advance(d)
	p.rest(n)
}

// points are the points of docs, oldest first.
func (p *pruned) points() []control.Point {
	p.Helper()
	points, err := p.listed("docs")
	if err != nil {
		p.Fatal(err)
	}
	return points
}

func (p *pruned) prune(req control.PruneRequest) control.PruneResult {
	p.Helper()
	return *p.done(p.Prune(context.Background(), req)).Result.Prune
}

// outlive has a prune mark what goes, and another one, after the grace time, remove it.
func (p *pruned) outlive() control.PruneResult {
	p.Helper()
	p.prune(control.PruneRequest{})
	p.advance(73 * time.Hour)
	return p.prune(control.PruneRequest{})
}

// restorable wants every point that is listed to be as it was.
func (p *pruned) restorable() {
	p.Helper()
	for _, point := range p.points() {
		back := p.path("back", point.ID)
		p.done(p.Restore(context.Background(), control.RestoreRequest{Item: "docs", Point: point.ID, Target: back}))
		if got := p.tree(back); !maps.Equal(got, p.content[point.ID]) {
			p.Errorf("point %s came back with %d files, and not as it was", point.ID, len(got))
		}
		if err := os.RemoveAll(back); err != nil {
			p.Fatal(err)
		}
	}
	p.done(p.Verify(context.Background(), control.VerifyRequest{}))
}

// audited are the events of a kind in the audit log.
func (p *pruned) audited(kind audit.Kind) []audit.Event {
	p.Helper()
	files, err := filepath.Glob(p.path("state", "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		p.Fatalf("%v, %v", files, err)
	}
	var out []audit.Event
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			p.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			var l audit.Line
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				p.Fatal(err)
			}
			if l.Kind == kind {
				out = append(out, l.Event)
			}
		}
	}
	return out
}

// objects are the paths of all that is in the store of docs.
func (p *pruned) objects() []string {
	p.Helper()
	var out []string
	err := filepath.WalkDir(p.path("one"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return out
}

// stopAt has the next Put of a point of docs wait until the test goes on. It returns
// when the Put is there.
func (p *pruned) stopAt(start func()) (goOn func()) {
	p.Helper()
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.on(func(ctx context.Context, what string, key store.Key) error {
		if what == "put" && strings.Contains(string(key), "/points/") {
			first := false
			once.Do(func() { first = true })
			if first {
				close(reached)
				select {
				case <-release:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	start()
	select {
	case <-reached:
	case <-time.After(time.Minute):
		p.Fatal("the backup never came to its point")
	}
	return sync.OnceFunc(func() { close(release) })
}

// twin is a second agent of the same host name on the same vault, with a state folder,
// files, and a clock of its own, which is behind.
func (p *pruned) twin(policies string, behind time.Duration) *pruned {
	p.Helper()
	v, err := p.Vault(context.Background(), "one")
	if err != nil {
		p.Fatal(err)
	}
	text := strings.NewReplacer("$DIR/one", p.path("one"), "$DIR/main.pem", p.path("main.pem"), "$DIR/spare.pem", p.path("spare.pem"),
		"keys: [main]}", "keys: [main], id: "+v.ID+"}").Replace(twoKeys + policies)
	q := &pruned{bench: newBench(p, text), stamps: p.stamps, content: p.content}
	q.clock.now = p.clock.Now().Add(-behind)
	q.around = func(st store.Store) store.Store { return p.stamps.around(st, q.hook) }
	if err := os.CopyFS(q.path("docs"), os.DirFS(p.path("docs"))); err != nil {
		p.Fatal(err)
	}
	q.start()
	return q
}
