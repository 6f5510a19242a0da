package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Sealed objects of an item: how they are listed, read and put.

// Items is what the objects of all items are under.
const Items store.Key = "items/"

func (it *Item) prefix(kind string) store.Key { return prefixOf(it.id, kind) }

func prefixOf(id crypt.ItemID, kind string) store.Key {
	return Items + store.Key(id.String()+"/"+kind+"/")
}

// folders are the folders of an item, in the order in which an erasure empties them.
var folders = [...]string{"points", "sessions", "marks", "witnesses", "repacks", "holds", "removed", "index", "packs"}

// namedEntry is an object that has the name of a point.
type namedEntry struct {
	store.Info
	name PointName
}

// named yields the objects of a folder that have the names of points, in order.
func (it *Item) named(ctx context.Context, kind string) iter.Seq2[namedEntry, error] {
	return func(yield func(namedEntry, error) bool) {
		prefix := it.prefix(kind)
		for info, err := range it.vault.objects.List(ctx, prefix) {
			if err != nil {
				yield(namedEntry{}, err)
				return
			}
			name, _, _, err := ParsePointName(string(info.Key[len(prefix):]))
			if err != nil {
				continue // what else lies there is no point; Strays tells of it
			}
			dead := false
			if info.Size > 0 { // a void has no generation
				if dead, err = it.isDead(ctx, info.Key); err != nil {
					yield(namedEntry{}, err)
					return
				}
			}
			if !dead && !yield(namedEntry{info, name}, nil) {
				return
			}
		}
	}
}

// infos yields the objects of a folder that have an id for a name.
func (it *Item) infos(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for info, err := range it.vault.objects.List(ctx, prefix) {
			if err != nil {
				yield(store.Info{}, err) // it names the folder
				return
			}
			if _, err := pack.ParseID(info.Key.Base()); err != nil {
				continue
			}
			dead, err := it.isDead(ctx, info.Key)
			if err != nil {
				yield(store.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !dead && !yield(info, nil) {
				return
			}
		}
	}
}

// ids yields the ids that end the names of objects under prefix.
func (it *Item) ids(ctx context.Context, prefix store.Key) iter.Seq2[pack.ID, error] {
	return func(yield func(pack.ID, error) bool) {
		for info, err := range it.infos(ctx, prefix) {
			var id pack.ID
			if err == nil {
				id, err = pack.ParseID(info.Key.Base())
			}
			if !yield(id, err) || err != nil {
				return
			}
		}
	}
}

// readRecords reads all objects of a folder, a few at once, in the order of their
// names. What is gone since the listing is passed over.
func readRecords[T any](ctx context.Context, it *Item, kind string, read func(context.Context, store.Info, pack.ID) (T, error)) ([]T, error) {
	var found []*T
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	var failed error
	for info, err := range it.infos(ctx, it.prefix(kind)) {
		if err != nil {
			failed = err
			break
		}
		mu.Lock()
		at := len(found)
		found = append(found, nil)
		mu.Unlock()
		group.Go(func() error {
			id, err := pack.ParseID(info.Key.Base())
			if err != nil {
				return err
			}
			record, err := read(gctx, info, id)
			if errors.Is(err, store.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[at] = &record
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	var records []T
	for _, r := range found {
		if r != nil {
			records = append(records, *r)
		}
	}
	return records, nil
}

// putSealed seals and writes an object whose payload is the encoding of body.
func (it *Item) putSealed(ctx context.Context, key store.Key, kind crypt.Kind, id [16]byte, body any) error {
	payload, err := encoding.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return it.putObject(ctx, key, kind, id, payload, store.PutOptions{})
}

// readSealed is the inverse of putSealed; body points to its zero value. crypt.ErrDamaged
// if it is not what putSealed writes.
func (it *Item) readSealed(ctx context.Context, key store.Key, kind crypt.Kind, id [16]byte, body any) error {
	payload, err := it.readObject(ctx, key, kind, id)
	if err != nil {
		return err
	}
	if err := decode(payload, body); err != nil {
		return fmt.Errorf("read %s: %w: %w", key, err, crypt.ErrDamaged)
	}
	return nil
}

func (it *Item) readObject(ctx context.Context, key store.Key, kind crypt.Kind, id [16]byte) ([]byte, error) {
	raw, err := store.ReadAll(ctx, it.vault.objects, key, store.MaxObject)
	if err != nil {
		return nil, err
	}
	h, err := crypt.ParseHeader(raw)
	if err != nil {
		return nil, err
	}
	if h.Generation <= it.tombstone {
		return nil, fmt.Errorf("%s was erased: %w", key, store.ErrNotExist)
	}
	s, err := it.Secret(ctx, h.Generation)
	if err != nil {
		return nil, err
	}
	return pack.OpenObject(s, crypt.Place{Kind: kind, Item: it.id, Generation: h.Generation, ID: id}, raw)
}

func (it *Item) putObject(ctx context.Context, key store.Key, kind crypt.Kind, id [16]byte, payload []byte, opts store.PutOptions) error {
	generation := it.Generation()
	s, err := it.Secret(ctx, generation)
	if err != nil {
		return err
	}
	raw, err := pack.SealObject(s, crypt.Place{Kind: kind, Item: it.id, Generation: generation, ID: id}, payload)
	if err != nil {
		return err
	}
	return it.vault.objects.Put(ctx, key, store.Body{raw}, opts)
}

// Strays yields the objects that lie among the item's and are none of the format.
func (it *Item) Strays(ctx context.Context) iter.Seq2[store.Key, error] {
	return func(yield func(store.Key, error) bool) {
		for info, err := range it.vault.objects.List(ctx, Items+store.Key(it.id.String()+"/")) {
			if err != nil {
				yield("", fmt.Errorf("list objects of %s: %w", it.name, err))
				return
			}
			if !it.known(info.Key) && !yield(info.Key, nil) {
				return
			}
		}
	}
}

// known tells whether a key is one that the format gives to objects of the item.
func (it *Item) known(key store.Key) bool {
	base := key.Base()
	if _, _, _, err := ParsePointName(base); err == nil {
		return key == it.PointKey(PointName(base)) || key == it.SessionKey(PointName(base))
	}
	id, err := pack.ParseID(base)
	if err != nil {
		return false
	}
	switch key {
	case it.IndexKey(base), pack.Key(it.id, id), it.MarkKey(base), it.WitnessKey(base), it.RepackKey(base), it.HoldKey(base), it.RemovedKey(base):
		return true
	}
	return false
}

// CheckRecords reads everything that backups and prunes have left for each other:
// sessions, marks, witnesses, repack records, holds and what was removed. It yields each object with what
// is wrong with it, or nil. An error without a key says that it could not go on.
func (it *Item) CheckRecords(ctx context.Context) iter.Seq2[store.Key, error] {
	return func(yield func(store.Key, error) bool) {
		for entry, err := range it.named(ctx, "sessions") {
			if err != nil {
				yield("", fmt.Errorf("list sessions of %s: %w", it.name, err))
				return
			}
			if _, err = it.Session(ctx, entry.name); !it.checked(ctx, entry.Key, err, yield) {
				return
			}
		}
		for _, folder := range []struct {
			name string
			read func(context.Context, store.Info, pack.ID) error
		}{
			{"marks", func(ctx context.Context, info store.Info, id pack.ID) error {
				_, err := it.readMark(ctx, info, id)
				return err
			}},
			{"witnesses", func(ctx context.Context, _ store.Info, id pack.ID) error {
				_, _, err := it.Witness(ctx, id.String())
				return err
			}},
			{"repacks", func(ctx context.Context, info store.Info, id pack.ID) error {
				_, err := it.readRepack(ctx, info, id)
				return err
			}},
			{"holds", func(ctx context.Context, info store.Info, id pack.ID) error {
				_, err := it.readHold(ctx, info, id)
				return err
			}},
			{"removed", func(ctx context.Context, info store.Info, id pack.ID) error {
				_, err := it.readRemoved(ctx, id)
				return err
			}},
		} {
			for info, err := range it.infos(ctx, it.prefix(folder.name)) {
				var id pack.ID
				if err == nil {
					id, err = pack.ParseID(info.Key.Base())
				}
				if err != nil {
					yield("", err)
					return
				}
				if !it.checked(ctx, info.Key, folder.read(ctx, info, id), yield) {
					return
				}
			}
		}
	}
}

// checked yields what was found of an object, unless it is gone meanwhile or the check
// cannot go on.
func (it *Item) checked(ctx context.Context, key store.Key, err error, yield func(store.Key, error) bool) bool {
	switch {
	case errors.Is(err, store.ErrNotExist):
		return true
	case err != nil && final(ctx, err):
		yield("", err)
		return false
	}
	return yield(key, err)
}
