package prune

import (
	"context"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// voidKept is how long a void stays: longer than any Put of the point that it stands
// for can be under way, or its backup be asleep. It counts from when the void was put,
// by the store's clock and by this host's.
// What was removed is remembered as long.
const voidKept = 365 * 24 * time.Hour

// tidy removes repack records that no point needs, and voids and records of what was
// removed that are old.
func (r *run) tidy(ctx context.Context) error {
	for _, record := range r.seen.repacks.All() {
		if r.covers(record) {
			continue
		}
		// Its session is gone already, or is given up some day.
		if _, err := r.del.object(ctx, r.Item.RepackKey(record.ID), 0); err != nil {
			return err
		}
	}
	var old []store.Key
	removed := r.Item.RemovedKey("")
	for _, folder := range []store.Key{r.Item.PointKey(""), r.Item.RepackKey(""), removed} {
		for info, err := range r.Store.List(ctx, folder) {
			if err != nil {
				return err
			}
			if info.Size > 0 && folder != removed || folder == removed && r.has(info.Key.Base()) {
				continue
			}
			passed, err := r.passed(ctx, info.Modified, info.Modified, voidKept)
			if err != nil {
				return err
			}
			if passed {
				old = append(old, info.Key)
			}
		}
	}
	return each(ctx, old, func(ctx context.Context, key store.Key) error {
		_, err := r.del.object(ctx, key, 0)
		return err
	})
}

// has tells whether a mark of that id was there: what is decided of it stays as long.
func (r *run) has(id string) bool {
	return slices.ContainsFunc(r.marks, func(m catalog.Mark) bool { return m.ID == id })
}
