package keyring_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/kek"
)

// key is one version of a key. What it wraps is the secret itself.
type key struct {
	ref   kek.Ref
	mu    sync.Mutex
	ends  int // how often it was closed
	fails error
}

func (k *key) Ref() kek.Ref { return k.ref }

func (k *key) Wrap(secret []byte) (kek.Wrapped, error) {
	return kek.Wrapped{Fingerprint: k.ref.Fingerprint, Ciphertext: slices.Clone(secret)}, nil
}

func (k *key) Unwrap(_ context.Context, w kek.Wrapped) ([]byte, error) {
	if k.closed() > 0 {
		return nil, errors.New("asked after it was closed")
	}
	if k.fails != nil {
		return nil, k.fails
	}
	return slices.Clone(w.Ciphertext), nil
}

func (k *key) Check(context.Context) error { return k.fails }

func (k *key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends++
	return nil
}

func (k *key) closed() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ends
}

// memory is a Memory that does not outlive anything.
type memory struct {
	mu    sync.Mutex
	used  map[string][]keyring.Version
	fails error
}

func (m *memory) Used(name string) []keyring.Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.used[name])
}

func (m *memory) Use(name string, v keyring.Version) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails == nil {
		m.used[name] = append(m.used[name], v)
	}
	return m.fails
}

// bench is a keyring whose provider does what a test says.
type bench struct {
	*keyring.Keyring
	memory *memory
	lines  []audit.Event
	full   error // why the audit log takes no line

	mu     sync.Mutex
	has    map[string][]string // versions by key name, the newest first
	fails  error
	silent chan struct{} // if not nil, nothing is answered before it is closed
	opened []*key
}

func newBench() *bench {
	b := &bench{memory: &memory{used: make(map[string][]keyring.Version)}, has: make(map[string][]string)}
	b.restart()
	return b
}

// restart begins with what is remembered alone.
func (b *bench) restart() {
	b.Keyring = keyring.New(keyring.Config{
		Keys: map[string]config.Key{"main": {URI: "pkcs11:main"}, "spare": {URI: "pkcs11:spare"}, "escrow": {Public: "/escrow.pub"}},
		Open: b.open, Memory: b.memory, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
		Escrow: func(_ context.Context, name string, _ config.Key) (kek.Wrapper, error) {
			return &key{ref: refOf(name, "offline")}, nil
		},
		Record: func(_ context.Context, e audit.Event) error {
			if b.full == nil {
				b.lines = append(b.lines, e)
			}
			return b.full
		},
	})
}

func refOf(name, version string) kek.Ref {
	return kek.Ref{Name: name, URI: "pkcs11:" + name, Version: version, Fingerprint: sha256.Sum256([]byte(version))}
}

func (b *bench) open(ctx context.Context, name string, _ config.Key) ([]kek.Key, error) {
	b.mu.Lock()
	silent, fails, has := b.silent, b.fails, b.has[name]
	b.mu.Unlock()
	if silent != nil {
		select {
		case <-silent:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fails != nil {
		return nil, fails
	}
	var out []kek.Key
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, version := range has {
		k := &key{ref: refOf(name, version)}
		b.opened = append(b.opened, k)
		out = append(out, k)
	}
	return out, nil
}

// shows wants the versions of main that open, the one that wraps, and the one that may
// come next, as of the last look.
func (b *bench) shows(t *testing.T, versions, inUse, next string) *keyring.Entry {
	t.Helper()
	e, err := b.Entry(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	var open, wraps, follows string
	for _, r := range e.Refs() {
		open += r.Version + " "
	}
	if e.InUse != nil {
		wraps = e.InUse.Ref().Version
	}
	if e.Next != nil {
		follows = e.Next.Ref().Version
	}
	if open != versions || wraps != inUse || follows != next {
		t.Errorf("%q open, %q wraps, %q is next; want %q, %q, %q", open, wraps, follows, versions, inUse, next)
	}
	if (e.Stale != nil) != (e.InUse == nil) || e.Stale != nil && !errors.Is(e.Stale, keyring.ErrStale) {
		t.Errorf("%q wraps, and it is stale: %v", wraps, e.Stale)
	}
	return e
}

func (b *bench) look(t *testing.T, versions ...string) error {
	t.Helper()
	b.has["main"] = versions
	_, err := b.Refresh(t.Context(), "main")
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestVersions goes through what a provider may show, look by look: versions come into
// use forwards, one by one, and only when they are adopted.
func TestVersions(t *testing.T) {
	b := newBench()
	must(t, b.look(t, "v1"))
	b.shows(t, "v1 ", "v1", "")
	must(t, b.look(t, "v2", "v1"))
	b.shows(t, "v2 v1 ", "v1", "v2")
	must(t, b.Adopt(t.Context(), "main", refOf("main", "v2").Fingerprint))
	b.shows(t, "v2 v1 ", "v2", "")

	must(t, b.look(t, "v2")) // v1 was destroyed, and what it opened before is still asked of it
	b.shows(t, "v2 v1 ", "v2", "")
	must(t, b.look(t, "v1", "v2")) // the provider calls the old one the newest
	b.shows(t, "v1 v2 ", "v2", "")
	must(t, b.look(t, "v1")) // v2 is gone: v1 does not take its place
	b.shows(t, "v1 v2 ", "", "")
	must(t, b.look(t, "v3", "v1"))
	b.shows(t, "v3 v1 v2 ", "", "v3")
	must(t, b.look(t, "v2", "v1")) // it is back
	b.shows(t, "v2 v1 v3 ", "v2", "")

	b.restart() // what was in use is remembered, and what is open is not
	must(t, b.look(t, "v1"))
	b.shows(t, "v1 ", "", "")
	must(t, b.look(t, "v3", "v2"))
	b.shows(t, "v3 v2 v1 ", "v2", "v3")
}

// TestVersionsVanish: a provider that shows no version of a key at all changes nothing.
func TestVersionsVanish(t *testing.T) {
	b := newBench()
	if err := b.look(t); !errors.Is(err, kek.ErrMissing) {
		t.Errorf("a key without versions: %v", err)
	}
	must(t, b.look(t, "v1"))
	if err := b.look(t); !errors.Is(err, kek.ErrMissing) {
		t.Errorf("a key whose versions are gone: %v", err)
	}
	b.fails = kek.ErrUnreachable
	if err := b.look(t, "v2"); !errors.Is(err, kek.ErrUnreachable) {
		t.Errorf("a provider that does not answer: %v", err)
	}
	b.shows(t, "v1 ", "v1", "")
}

// TestAdoptWhatWasTried: a version that nobody has tried does not come into use.
func TestAdoptWhatWasTried(t *testing.T) {
	b := newBench()
	v2 := refOf("main", "v2").Fingerprint
	must(t, b.Adopt(t.Context(), "main", v2)) // nothing is open
	must(t, b.look(t, "v1"))
	must(t, b.look(t, "v2", "v1"))
	must(t, b.look(t, "v3", "v2", "v1"))
	if err := b.Adopt(t.Context(), "main", v2); !errors.Is(err, keyring.ErrNewer) {
		t.Errorf("adopting v2 when v3 was found: %v", err)
	}
	b.shows(t, "v3 v2 v1 ", "v1", "v3")
	b.memory.fails = errors.New("disk full")
	if err := b.Adopt(t.Context(), "main", refOf("main", "v3").Fingerprint); err == nil {
		t.Error("a version came into use that cannot be remembered")
	}
	b.shows(t, "v3 v2 v1 ", "v1", "v3")
	b.memory.fails = nil
	for range 2 { // the second finds it done
		must(t, b.Adopt(t.Context(), "main", refOf("main", "v3").Fingerprint))
	}
	if used := b.memory.Used("main"); len(used) != 2 || used[1].Version != "v3" {
		t.Errorf("%+v is remembered", used)
	}
}

// TestRefreshKeepsOpen: what was given out stays usable over any number of looks, what
// a look opens twice is closed, and all is closed once at the end.
func TestRefreshKeepsOpen(t *testing.T) {
	b := newBench()
	must(t, b.look(t, "v1"))
	first := b.shows(t, "v1 ", "v1", "").Versions[0]
	w, err := first.Wrap([]byte("secret"))
	must(t, err)
	for range 3 {
		must(t, b.look(t, "v2", "v1"))
	}
	must(t, b.look(t, "v2"))
	if got, err := first.Unwrap(t.Context(), w); err != nil || string(got) != "secret" {
		t.Errorf("the first version opens %q, %v", got, err)
	}
	if e := b.shows(t, "v2 v1 ", "", "v2"); e.Versions[1] != first {
		t.Error("the version that was open was opened again")
	}
	open := 0
	for _, k := range b.opened {
		if k.closed() == 0 {
			open++
		}
	}
	if open != 2 {
		t.Errorf("%d keys are open, want one of each version", open)
	}
	must(t, b.Close())
	for _, k := range b.opened {
		if k.closed() != 1 {
			t.Errorf("version %s was closed %d times", k.ref.Version, k.closed())
		}
	}
}

// TestForgetfulMemory: a key whose use cannot be remembered is not open, and nothing
// of it is left.
func TestForgetfulMemory(t *testing.T) {
	b := newBench()
	b.memory.fails = errors.New("disk full")
	if err := b.look(t, "v1"); err == nil {
		t.Error("a key is in use that cannot be remembered")
	}
	for _, k := range b.opened {
		if k.closed() != 1 {
			t.Errorf("version %s was closed %d times", k.ref.Version, k.closed())
		}
	}
	b.memory.fails = nil
	must(t, b.look(t, "v1"))
	b.shows(t, "v1 ", "v1", "")
}

// TestSilentProvider: while a provider is asked, and does not answer, what was open
// stays at hand, and other keys too; who waits for what is not open waits no longer
// than he wants.
func TestSilentProvider(t *testing.T) {
	b := newBench()
	must(t, b.look(t, "v1"))
	_, err := b.Entry(t.Context(), "escrow")
	must(t, err)
	silent := make(chan struct{})
	b.silent, b.has["spare"] = silent, []string{"s1"}
	asked := make(chan error, 2)
	for _, name := range []string{"main", "spare"} {
		go func() {
			_, err := b.Refresh(t.Context(), name)
			asked <- err
		}()
	}
	b.shows(t, "v1 ", "v1", "")
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	ring, missing := b.Ring(short, keyring.Use{Keys: []string{"main", "spare", "escrow"}})
	if len(ring.Keys()) != 1 || len(ring.Wrappers()) != 2 || len(missing) != 1 || !errors.Is(missing[0], context.DeadlineExceeded) {
		t.Errorf("%v open, %v wrap, %v are missing", ring.Keys(), ring.Wrappers(), missing)
	}
	close(silent)
	for range 2 {
		must(t, <-asked)
	}
}

// TestConcurrentUse has everything done at once; the race detector watches.
func TestConcurrentUse(t *testing.T) {
	b := newBench()
	b.has["main"], b.has["spare"] = []string{"v2", "v1"}, []string{"s1"}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				e, err := b.Refresh(t.Context(), "main")
				if err == nil && e.Next != nil {
					err = b.Adopt(t.Context(), "main", e.Next.Ref().Fingerprint)
				}
				if err != nil {
					t.Error(err)
				}
				link := b.Link(config.Key{URI: "file:///linked.pem"})
				b.Ring(t.Context(), keyring.Use{Keys: []string{"main", "spare"}, Open: []string{link}})
			}
		})
	}
	all.Wait()
	must(t, b.Close())
	for _, k := range b.opened {
		if k.closed() != 1 {
			t.Errorf("%s version %s was closed %d times", k.ref.Name, k.ref.Version, k.closed())
		}
	}
}
