package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// An object under retention says so itself, in an extended attribute of its file:
//
//	user.coffer.retain    governance 2026-11-22T09:00:03Z
//
// and has the immutable attribute besides, with which even root changes and removes
// nothing before he takes it off. The first is written before the file gets its name,
// and Delete goes by it. The second comes right after: a crash between the two
// leaves an object that the store keeps and rm does not, until Retain comes by.
//
// Root can always take the attribute off, so there is no compliance here.

// attribute is the name of the extended attribute.
const attribute = "user.coffer.retain"

const governance = "governance "

// formatKept writes the attribute, no earlier than the time asked for.
func formatKept(r store.Retention) string {
	return governance + r.Until.Add(time.Second-1).UTC().Truncate(time.Second).Format(time.RFC3339)
}

// parseKept is the inverse of formatKept.
func parseKept(path string, b []byte) (store.Retention, error) {
	text, ok := strings.CutPrefix(string(b), governance)
	until, err := time.Parse(time.RFC3339, text)
	if !ok || err != nil {
		return store.Retention{}, fmt.Errorf("attribute %s of %s is no retention; write %q into it and a time, or take it away", attribute, path, governance)
	}
	return store.Retention{Until: until}, nil
}

// keeps refuses what no folder can promise.
func keeps(r store.Retention) error {
	if !r.Until.IsZero() && r.Compliance {
		return fmt.Errorf("%w: root can always take away what protects a file, so a folder has no compliance; "+
			"ask for governance, or use a bucket with object lock", errors.ErrUnsupported)
	}
	return nil
}

// locked tells by an error that a retention is in force.
func (s *Store) locked(r store.Retention) error {
	if s.now().Before(r.Until) {
		return fmt.Errorf("%w until %s", store.ErrLocked, r.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// remove removes the file of an object, unless it is kept.
func (s *Store) remove(path string) error {
	r, err := keptAt(path)
	if err != nil {
		return err
	}
	if err := s.locked(r); err != nil {
		return err
	}
	if r.Until.IsZero() {
		if err := os.Remove(path); err != nil {
			return frozen(path, err)
		}
		return nil
	}
	f, err := openLocked(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// Somebody may have extended it before we had the lock.
	if r, err = keptOf(f); err != nil {
		return err
	}
	if err := s.locked(r); err != nil {
		return err
	}
	if err := thaw(f); err != nil {
		return err
	}
	// A crash here leaves an object whose time is over, without its attribute.
	return os.Remove(path)
}

// RetainedUntil implements store.Retainer.
func (s *Store) RetainedUntil(ctx context.Context, key store.Key) (time.Time, error) {
	if _, err := s.Stat(ctx, key); err != nil {
		return time.Time{}, err
	}
	r, err := keptAt(s.path(key))
	if err != nil {
		return time.Time{}, s.fail("retention of", key, err)
	}
	return r.Until, nil
}

// Retain implements store.Retainer. It also freezes an object that a crash left
// unfrozen.
func (s *Store) Retain(ctx context.Context, key store.Key, r store.Retention) error {
	if err := s.changes(ctx, "retain", key); err != nil {
		return err
	}
	if _, err := s.Stat(ctx, key); err != nil {
		return err
	}
	err := keeps(r)
	if err == nil {
		err = s.retain(s.path(key), r)
	}
	if err != nil {
		return s.fail("retain", key, err)
	}
	return nil
}

func (s *Store) retain(path string, r store.Retention) error {
	f, err := openLocked(path)
	if err != nil {
		if isAbsent(err) {
			err = s.absent()
		}
		return err
	}
	defer f.Close()
	has, err := keptOf(f)
	if err != nil {
		return err
	}
	if has.Until.Before(r.Until) {
		// First what may be refused, while nothing has changed.
		if err := freeze(f); err != nil {
			return err
		}
		if err := thaw(f); err != nil {
			return err
		}
		// A crash here leaves an object that Delete keeps and rm does not.
		unseal(f)
		err := mark(f, r)
		seal(f)
		if err != nil {
			return err
		}
	}
	if has.Until.IsZero() && r.Until.IsZero() {
		return nil
	}
	if err := freeze(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// A Delete that came before the attribute has won.
	if !linked(f) {
		return s.absent()
	}
	return nil
}
