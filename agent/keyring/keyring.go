// Package keyring holds the keys of the configuration open, and knows which version
// of each is in use.
//
// A key without a version in its URI follows new ones, and only forward: a version
// that another has replaced never wraps again, whatever its provider says. A new
// version is in use from the moment that Adopt says so, which is when everything
// that must open with it has been tried.
//
// Invariants:
//   - Every unwrap is in the audit log before its secret is handed out; if the log
//     cannot be written, nothing is opened.
//   - A key that was opened stays usable until Close, also while its provider is
//     away or its versions are looked for again.
package keyring

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/internal/gate"
	"github.com/cofferbackup/coffer/kek"
)

// Config of a Keyring. All fields must be set.
type Config struct {
	Keys map[string]config.Key
	// Open opens all versions of a key, the newest first; Escrow the public half of
	// an escrow key.
	Open   func(ctx context.Context, name string, key config.Key) ([]kek.Key, error)
	Escrow func(ctx context.Context, name string, key config.Key) (kek.Wrapper, error)
	Memory Memory
	Record func(ctx context.Context, e audit.Event) error
	Clock  func() time.Time
	Log    *slog.Logger
}

// Memory keeps which versions of a key have been in use. It outlives the agent.
type Memory interface {
	// Used returns them in order, the one in use last.
	Used(name string) []Version
	// Use makes v the version in use.
	Use(name string, v Version) error
}

// Version is a version of a key that came into use.
type Version struct {
	Fingerprint string    `json:"fingerprint"`
	Version     string    `json:"version,omitempty"`
	Since       time.Time `json:"since"`
}

// Keyring is the open keys. It is safe for concurrent use.
type Keyring struct {
	cfg Config

	mu     sync.Mutex
	keys   map[string]config.Key // of the config, by name; replaced, never changed
	slots  map[string]*slot      // by name
	links  map[string]config.Key // keys that are not in the config, by name
	former []*slot               // of keys that the config no longer has so
}

// slot is where a key is opened. A provider that is slow holds up nobody who wants
// another's key.
type slot struct {
	gate  gate.Gate             // held while the provider is asked
	entry atomic.Pointer[Entry] // nil before it was opened; stored with the gate held
}

// New returns a keyring with nothing open.
func New(cfg Config) *Keyring {
	return &Keyring{cfg: cfg, keys: cfg.Keys, slots: make(map[string]*slot), links: make(map[string]config.Key)}
}

// SetKeys gives the keyring the keys of another configuration. Those that it does not
// have, or has otherwise, are opened anew by whoever needs them next; what was opened
// before stays usable.
func (r *Keyring) SetKeys(keys map[string]config.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, s := range r.slots {
		now, ok := keys[name]
		if before, had := r.keys[name]; had && !(ok && reflect.DeepEqual(now, before)) {
			r.former = append(r.former, s)
			delete(r.slots, name)
		}
	}
	r.keys = keys
}

// slot returns where a key is opened.
func (r *Keyring) slot(name string) *slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[name]
	if s == nil {
		s = &slot{gate: gate.New()}
		r.slots[name] = s
	}
	return s
}

// Link adds a key that is not in the config and returns the name that it has here.
func (r *Keyring) Link(key config.Key) string {
	sum := sha256.Sum256([]byte(key.URI))
	name := fmt.Sprintf("link-%x", sum[:4])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links[name] = key
	return name
}

// named returns a key of the config, or a linked one.
func (r *Keyring) named(name string) (key config.Key, isLink, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key, ok := r.keys[name]; ok {
		return key, false, true
	}
	key, ok = r.links[name]
	return key, true, ok
}

// Entry is an open key. It is never changed.
type Entry struct {
	Name string
	// Versions open what was wrapped with them: the newest first, then those that
	// the provider no longer has. None of an escrow key.
	Versions []kek.Key
	// InUse wraps what is new. Nil: none may, because of Stale.
	InUse kek.Wrapper
	Stale error
	// Next is a newer version that is not in use yet, or nil.
	Next kek.Key
}

// Refs names what there is of the key, the newest first.
func (e *Entry) Refs() []kek.Ref {
	if len(e.Versions) == 0 && e.InUse != nil {
		return []kek.Ref{e.InUse.Ref()}
	}
	refs := make([]kek.Ref, len(e.Versions))
	for i, k := range e.Versions {
		refs[i] = k.Ref()
	}
	return refs
}

// ErrStale: the version in use is gone, and an older one does not take its place.
var ErrStale = errors.New("the version in use is gone")

// Entry opens a key, once. One that is open is there at once, also while its
// versions are looked for again.
func (r *Keyring) Entry(ctx context.Context, name string) (*Entry, error) {
	s := r.slot(name)
	if e := s.entry.Load(); e != nil {
		return e, nil
	}
	if err := s.gate.Enter(ctx); err != nil {
		return nil, kek.Interrupted(ctx, "wait until key "+name+" is open")
	}
	defer s.gate.Leave()
	if e := s.entry.Load(); e != nil { // somebody else opened it
		return e, nil
	}
	err := r.look(ctx, s, name)
	return s.entry.Load(), err
}

// Refresh looks for versions of a key again. If the provider does not answer, the
// key stays as it was, and the error says why.
func (r *Keyring) Refresh(ctx context.Context, name string) (*Entry, error) {
	s := r.slot(name)
	if err := s.gate.Enter(ctx); err != nil {
		return nil, kek.Interrupted(ctx, "wait until the versions of key "+name+" are found")
	}
	defer s.gate.Leave()
	err := r.look(ctx, s, name)
	return s.entry.Load(), err
}

// look asks the provider. The caller holds the slot's gate.
func (r *Keyring) look(ctx context.Context, s *slot, name string) error {
	cfg, isLink, ok := r.named(name)
	if !ok {
		return fmt.Errorf("key %s: %w: it is not in the config", name, kek.ErrNoKey)
	}
	if cfg.Public != "" {
		w, err := r.cfg.Escrow(ctx, name, cfg)
		if err != nil {
			return fmt.Errorf("key %s: %w", name, err)
		}
		s.entry.Store(&Entry{Name: name, InUse: w})
		return nil
	}
	found, err := r.cfg.Open(ctx, name, cfg)
	if err != nil {
		return fmt.Errorf("key %s: %w", name, err)
	}
	if len(found) == 0 {
		return fmt.Errorf("key %s: %w: its provider has no version of it", name, kek.ErrMissing)
	}
	e := &Entry{Name: name, Versions: r.merge(s.entry.Load(), found)}
	if !isLink {
		if err := r.choose(e, len(found)); err != nil {
			return errors.Join(err, r.drop(s.entry.Load(), e))
		}
	}
	s.entry.Store(e)
	return nil
}

// merge returns the versions found, as the keys that are open already where they
// are, then those that are gone.
func (r *Keyring) merge(old *Entry, found []kek.Key) []kek.Key {
	var known []kek.Key
	if old != nil {
		known = old.Versions
	}
	var out []kek.Key
	for _, k := range found {
		i := slices.IndexFunc(known, func(o kek.Key) bool { return o.Ref() == k.Ref() })
		if i < 0 {
			out = append(out, &audited{Key: k, record: r.cfg.Record})
			continue
		}
		out = append(out, known[i])
		if err := k.Close(); err != nil {
			r.cfg.Log.Warn("key not closed", "key", k.Ref(), "err", err)
		}
	}
	for _, o := range known {
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

// drop closes the keys of an entry that is not taken, apart from those that are open
// already.
func (r *Keyring) drop(old, e *Entry) error {
	var errs []error
	for _, k := range e.Versions {
		if old == nil || !slices.Contains(old.Versions, k) {
			errs = append(errs, k.Close())
		}
	}
	return errors.Join(errs...)
}

// choose says which version is in use. present is how many the provider has.
func (r *Keyring) choose(e *Entry, present int) error {
	newest := e.Versions[0]
	used := r.cfg.Memory.Used(e.Name)
	if len(used) == 0 {
		if err := r.use(newest); err != nil {
			return err
		}
		e.InUse = newest
		return nil
	}
	last := used[len(used)-1].Fingerprint
	i := slices.IndexFunc(e.Versions[:present], func(k kek.Key) bool { return k.Ref().Fingerprint.String() == last })
	switch {
	case i == 0:
		e.InUse = newest
	case !slices.ContainsFunc(used, func(v Version) bool { return v.Fingerprint == newest.Ref().Fingerprint.String() }):
		e.Next = newest
		if i > 0 {
			e.InUse = e.Versions[i]
		} else {
			e.Stale = fmt.Errorf("key %s: %w (%.12s); %.12s takes its place at the next rotation", e.Name, ErrStale, last, newest.Ref().Fingerprint.String())
		}
	case i > 0: // the provider calls an older one the newest
		e.InUse = e.Versions[i]
	default:
		e.Stale = fmt.Errorf("key %s: %w (%.12s), and the older %.12s does not take its place: put the version back, or make a new one", e.Name, ErrStale, last, newest.Ref().Fingerprint.String())
	}
	return nil
}

func (r *Keyring) use(k kek.Key) error {
	ref := k.Ref()
	v := Version{Fingerprint: ref.Fingerprint.String(), Version: ref.Version, Since: r.cfg.Clock().UTC()}
	if err := r.cfg.Memory.Use(ref.Name, v); err != nil {
		return fmt.Errorf("remember the version of key %s: %w", ref.Name, err)
	}
	return nil
}

// ErrNewer: another version was found since the one that was tried.
var ErrNewer = errors.New("a newer version was found meanwhile")

// Adopt takes the Next of a key into use, if it is still the one that was tried:
// ErrNewer if not. If one was adopted meanwhile there is nothing to do.
func (r *Keyring) Adopt(ctx context.Context, name string, tried kek.Fingerprint) error {
	s := r.slot(name)
	if err := s.gate.Enter(ctx); err != nil {
		return err
	}
	defer s.gate.Leave()
	e := s.entry.Load()
	if e == nil || e.Next == nil {
		return nil
	}
	if got := e.Next.Ref().Fingerprint; got != tried {
		return fmt.Errorf("key %s: %w: %.12s, and %.12s was tried", name, ErrNewer, got.String(), tried.String())
	}
	if err := r.use(e.Next); err != nil {
		return err
	}
	s.entry.Store(&Entry{Name: name, Versions: e.Versions, InUse: e.Next})
	return nil
}

// Use says which keys a vault is used with.
type Use struct {
	Keys    []string // open and wrap, the primary first
	Open    []string // open only
	Without string   // does not open, as if it were away; what it has of a public half still wraps
}

// Ring returns the keys of a vault. Those that do not open, or have no version that
// may wrap, are in the errors; one that opens is enough to read.
func (r *Keyring) Ring(ctx context.Context, u Use) (*kek.Ring, []error) {
	var keys []kek.Key
	var wrappers []kek.Wrapper
	var missing []error
	for i, name := range slices.Concat(u.Keys, u.Open) {
		e, err := r.Entry(ctx, name)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		if name != u.Without {
			keys = append(keys, e.Versions...)
		}
		switch {
		case i >= len(u.Keys):
		case e.InUse != nil:
			wrappers = append(wrappers, e.InUse)
		default:
			missing = append(missing, e.Stale)
		}
	}
	return kek.NewRing(keys...).WrapWith(wrappers...), missing
}

// Close closes every key. Nobody uses the keyring any more.
func (r *Keyring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, s := range slices.AppendSeq(r.former, maps.Values(r.slots)) {
		e := s.entry.Load()
		if e == nil {
			continue
		}
		for _, k := range e.Versions {
			if err := k.Close(); err != nil {
				errs = append(errs, fmt.Errorf("close key %s: %w", e.Name, err))
			}
		}
	}
	clear(r.slots)
	r.former = nil
	return errors.Join(errs...)
}
