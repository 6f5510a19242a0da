package dir

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/cofferbackup/coffer/store"
)

// List implements store.Lister. It passes over files that cannot be objects:
// their names are not keys. It holds the names of one folder per level.
func (s *Store) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := store.CheckList(ctx, prefix); err != nil {
			yield(store.Info{}, err)
			return
		}
		// A folder that is not mounted looks like an empty one.
		if err := s.absent(); err != store.ErrNotExist {
			yield(store.Info{}, s.fail("list", prefix, err))
			return
		}
		cut := strings.LastIndexByte(string(prefix), '/') + 1
		w := walk{ctx: ctx, store: s, yield: yield}
		w.folder(prefix[:cut], string(prefix[cut:]))
	}
}

// walk is one listing while it runs.
type walk struct {
	ctx   context.Context
	store *Store
	yield func(store.Info, error) bool
}

func (w *walk) fail(folder store.Key, err error) bool {
	w.yield(store.Info{}, w.store.fail("list", folder, err))
	return false
}

// folder yields what is below folder ("" or ending in "/") and whose name there
// starts with start. It answers whether to go on.
func (w *walk) folder(folder store.Key, start string) bool {
	entries, err := os.ReadDir(w.store.path(folder))
	if err != nil && isAbsent(err) {
		if err = w.store.absent(); err == store.ErrNotExist {
			return true
		}
	}
	if err != nil {
		return w.fail(folder, err)
	}
	// Keys ascend by their bytes, in which a folder's name goes on with a "/".
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			w.yield(store.Info{}, err)
			return false
		}
		name := e.Name()
		key := folder + store.Key(name)
		if !strings.HasPrefix(name, start) || key.Check() != nil {
			continue
		}
		switch {
		case e.IsDir():
			if !w.folder(key+"/", "") {
				return false
			}
		case e.Type().IsRegular():
			if !w.object(key, e) {
				return false
			}
		}
	}
	return true
}

func (w *walk) object(key store.Key, e fs.DirEntry) bool {
	info, err := e.Info()
	if err != nil && isAbsent(err) {
		if err = w.store.absent(); err == store.ErrNotExist {
			return true // deleted meanwhile
		}
	}
	if err != nil {
		return w.fail(key, fmt.Errorf("stat: %w", err))
	}
	return w.yield(store.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil)
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}
