package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cofferbackup/coffer/store"
)

// Put implements store.Putter. It refuses retention where the folder cannot keep that
// promise, and compliance everywhere.
func (s *Store) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	if err := store.CheckPut(ctx, key, body); err != nil {
		return err
	}
	if err := s.changes(ctx, "put", key); err != nil {
		return err
	}
	if err := keeps(opts.Retention); err != nil {
		return s.fail("put", key, err)
	}
	if err := s.put(ctx, s.path(key), body, opts.Retention); err != nil {
		return s.fail("put", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, path string, body store.Body, r store.Retention) error {
	// Only to save the work: place decides.
	if _, err := os.Lstat(path); err == nil {
		return s.taken(path)
	}
	f, err := s.temp()
	if err != nil {
		return err
	}
	placed := false
	defer func() {
		if !placed {
			_ = os.Remove(f.Name())
		}
		_ = f.Close() // gives up the lock; what was written has been synced
	}()
	if err := write(ctx, f, body); err != nil {
		return err
	}
	if err := protect(f, r); err != nil {
		return err
	}
	seal(f)
	if err := f.Sync(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.settle(f, path); err != nil {
		return err
	}
	placed = true
	if !r.Until.IsZero() {
		// A crash here leaves an object that Delete keeps and rm does not.
		if err := freeze(f); err != nil {
			return err
		}
	}
	// A crash here leaves the whole object or nothing, as the file system likes.
	return syncDir(filepath.Dir(path))
}

// settle places a written file under its name, in a folder that is made if need be.
// store.ErrExist if the name is taken.
func (s *Store) settle(f *os.File, path string) error {
	if err := s.ensure(filepath.Dir(path)); err != nil {
		return err
	}
	// Until here a crash leaves a file in .tmp, which the next Open removes.
	err := s.place(f, path)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody removed the folder behind our back, or our file.
		s.forget()
		if err := s.ensure(filepath.Dir(path)); err != nil {
			return err
		}
		err = s.place(f, path)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return s.taken(path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// taken answers for a key whose file is there. The caller may rely on that
// object from now on, so its name is made durable first: whoever put it may not
// have come that far.
func (s *Store) taken(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not an object but a folder of others", path)
	}
	if err := s.ensure(filepath.Dir(path)); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return store.ErrExist
}

// temp makes a file in .tmp and locks it.
func (s *Store) temp() (*os.File, error) {
	for range 100 {
		f, err := os.CreateTemp(s.tmp, "put-*")
		if errors.Is(err, fs.ErrNotExist) {
			if err := s.absent(); !errors.Is(err, store.ErrNotExist) {
				return nil, err
			}
			// The first Put of a store that was not made by Create.
			if err := os.Mkdir(s.tmp, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		s.known.Store(true)
		if lockNew(f) {
			return f, nil
		}
		// An Open took it for a leftover between its creation and the lock.
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	return nil, fmt.Errorf("%w: files in %s are removed as soon as they are made", store.ErrUnavailable, s.tmp)
}

func write(ctx context.Context, f *os.File, body store.Body) error {
	for _, part := range body {
		for len(part) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			block := part[:min(len(part), writeBlock)]
			if _, err := f.Write(block); err != nil {
				return err
			}
			part = part[len(block):]
		}
	}
	return nil
}

// ensure makes dir and the folders above it, below the root, and their names
// durable.
func (s *Store) ensure(dir string) error {
	s.mu.Lock()
	_, ok := s.durable[dir]
	s.mu.Unlock()
	if ok || dir == s.root {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := s.ensure(parent); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if gone := s.absent(); !errors.Is(gone, store.ErrNotExist) {
			return gone
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(parent); err != nil {
		return err
	}
	s.mu.Lock()
	s.durable[dir] = struct{}{}
	s.mu.Unlock()
	return nil
}

func (s *Store) forget() {
	s.mu.Lock()
	clear(s.durable)
	s.mu.Unlock()
}
