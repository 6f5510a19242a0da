// Package dir keeps a vault in a folder of a file system: the store that needs
// nothing else.
//
// An object is a file under the name of its key, mode 0400. It is written and
// synced under another name in the folder .tmp, which no listing shows, and then
// given its own name in one step that never replaces. A crash leaves either the
// whole object or a file in .tmp. Whoever writes such a file holds a lock on it,
// so that the next Open can tell a leftover from work in progress without
// trusting any clock, and removes it.
//
// An object under retention has the immutable attribute, where the file system and
// the rights of this process allow it, so that nothing changes or removes it; the
// attribute user.coffer.retain says until when (retain.go).
//
// Folders are made as keys need them, mode 0700, and are never removed: an empty
// one costs nothing, and removing it would race with a Put into it.
//
// A folder that disappears while the store is in use, or that is not mounted any
// more, is ErrMissing and not an empty store: Put leaves .tmp behind to know its
// own folder by.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// tmpName is the folder of unfinished objects. No key starts with a dot.
const tmpName = ".tmp"

// writeBlock is how much is written before ctx is looked at again.
const writeBlock = 4 << 20

// Store is a folder. It implements store.Store.
type Store struct {
	root     string
	tmp      string
	now      func() time.Time
	readOnly bool
	// place gives a finished file its name.
	place func(f *os.File, path string) error
	// known says that .tmp has been seen: if it is not there later, this is not
	// the folder that was opened.
	known atomic.Bool

	mu sync.Mutex
	// durable holds the folders that were made and synced, up to the root. A
	// folder that is merely there may have been made by a process that died
	// before it synced the parent.
	durable map[string]struct{}
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Retainer = (*Store)(nil)
)

// Config of a Store.
type Config struct {
	Root string
	Now  func() time.Time // tells whether a retention has ended; nil: time.Now
	// ReadOnly leaves everything as it is, leftovers of crashes too, and refuses to
	// change anything.
	ReadOnly bool
}

// Create makes the folder of a new store, and the folders above it, and syncs
// them. A folder that is there already must be empty or a store.
func Create(root string) error {
	root = filepath.Clean(root)
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create store in %s: %w", root, classify(err))
	}
	foreign := ""
	for _, e := range entries {
		switch e.Name() {
		case tmpName:
			return nil
		case "lost+found":
		default:
			foreign = e.Name()
		}
	}
	if foreign != "" {
		return fmt.Errorf("create store in %s: the folder is not empty (%q is in it); name a new folder", root, foreign)
	}
	if err := makeDurable(filepath.Join(root, tmpName)); err != nil {
		return fmt.Errorf("create store in %s: %w", root, classify(err))
	}
	return nil
}

// makeDurable makes the folder and those above it, and syncs the names of the
// ones it made. A crash leaves some of them, all empty; the next Create goes on.
func makeDurable(dir string) error {
	err := os.Mkdir(dir, 0o700)
	parent := filepath.Dir(dir)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && parent != dir:
		if err := makeDurable(parent); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case err != nil:
		return err
	}
	return syncDir(parent)
}

// Open opens the store in the folder root on the real clock.
func Open(root string) (*Store, error) { return OpenWith(Config{Root: root}) }

// OpenWith opens the store in a folder, which must be there, and removes what a
// crash left in it. It changes nothing else, so that a store on a read-only file
// system can be read.
func OpenWith(cfg Config) (*Store, error) {
	root := filepath.Clean(cfg.Root)
	s := &Store{root: root, tmp: filepath.Join(root, tmpName), now: cfg.Now, readOnly: cfg.ReadOnly, place: place, durable: make(map[string]struct{})}
	if s.now == nil {
		s.now = time.Now
	}
	f, err := os.Open(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open store %s: %w: there is no such folder; is the file system mounted?", root, store.ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", root, classify(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", root, classify(err))
	} else if !info.IsDir() {
		return nil, fmt.Errorf("open store %s: %w: it is not a folder", root, store.ErrMissing)
	}
	s.sweep()
	return s, nil
}

// sweep removes what crashed Puts left. What cannot be removed, on a read-only
// file system for one, is in nobody's way: its errors do not matter.
func (s *Store) sweep() {
	entries, err := os.ReadDir(s.tmp)
	if err != nil {
		return
	}
	s.known.Store(true)
	for _, e := range entries {
		if e.Type().IsRegular() && !s.readOnly {
			removeStale(filepath.Join(s.tmp, e.Name()))
		}
	}
}

// changes is store.CheckCall for an operation that changes something.
func (s *Store) changes(ctx context.Context, op string, key store.Key) error {
	if err := store.CheckCall(ctx, key); err != nil {
		return err
	}
	if s.readOnly {
		return s.fail(op, key, fmt.Errorf("%w: it was opened for reading", store.ErrDenied))
	}
	return nil
}

func (s *Store) path(key store.Key) string {
	return filepath.Join(s.root, filepath.FromSlash(string(key)))
}

// fail names the operation and the folder, and gives err its sentinel.
func (s *Store) fail(op string, key store.Key, err error) error {
	return fmt.Errorf("%s %s in %s: %w", op, key, s.root, classify(err))
}

// absent tells what it means that a file is not there: no object, or no store.
func (s *Store) absent() error {
	probe := s.root
	if s.known.Load() {
		probe = s.tmp
	}
	if _, err := os.Lstat(probe); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is gone; is the file system mounted?", store.ErrMissing, probe)
	}
	return store.ErrNotExist
}

// Get implements store.Getter.
func (s *Store) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	if err := store.CheckGet(ctx, key, off); err != nil {
		return err
	}
	f, err := os.Open(s.path(key))
	if err != nil {
		if isAbsent(err) {
			err = s.absent()
		}
		return s.fail("get", key, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return s.fail("get", key, err)
	case !info.Mode().IsRegular():
		return s.fail("get", key, store.ErrNotExist) // the folder of other keys
	case off > info.Size() || int64(len(p)) > info.Size()-off:
		return s.fail("get", key, fmt.Errorf("%w: %d bytes at %d of %d", store.ErrShort, len(p), off, info.Size()))
	}
	if _, err := f.ReadAt(p, off); err != nil {
		return s.fail("get", key, err)
	}
	return nil
}

// Stat implements store.Getter.
func (s *Store) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	if err := store.CheckCall(ctx, key); err != nil {
		return store.Info{}, err
	}
	info, err := os.Lstat(s.path(key))
	switch {
	case err != nil && isAbsent(err):
		return store.Info{}, s.fail("stat", key, s.absent())
	case err != nil:
		return store.Info{}, s.fail("stat", key, err)
	case !info.Mode().IsRegular():
		return store.Info{}, s.fail("stat", key, store.ErrNotExist)
	}
	return store.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Delete implements store.Deleter.
func (s *Store) Delete(ctx context.Context, key store.Key) error {
	if err := s.changes(ctx, "delete", key); err != nil {
		return err
	}
	path := s.path(key)
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil // the folder of other keys
	}
	if err == nil {
		err = s.remove(path)
	}
	if err == nil {
		// Without this, a crash could bring back a point whose packs are gone.
		err = syncDir(filepath.Dir(path))
	}
	if err != nil && isAbsent(err) {
		if err = s.absent(); errors.Is(err, store.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return s.fail("delete", key, err)
	}
	return nil
}
