package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/store"
)

// renew makes a new generation of an item whose newest was ever under a software
// key. It comes before that generation is wrapped anew: a crash between leaves an
// item that shows no more that it was under one.
func (r *rewrap) renew(ctx context.Context, it *Item) error {
	was, err := r.vault.everSoftware(ctx, it)
	if err != nil || !was {
		return err
	}
	secret, err := r.secret(ctx, it, it.generation)
	if err != nil {
		return err
	}
	size, err := it.next(ctx, secret, r.Wrappers, r.Now())
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.wrote++ // by whomever: the next pass looks at it
	if size > 0 {
		r.done.Made++
		r.done.Secrets++
	}
	r.mu.Unlock()
	if size > 0 {
		r.note(secretID{it.id, it.generation}, true, size)
	}
	return nil
}

// everSoftware tells whether any record of the item's newest generation, of any
// epoch, has a software key.
func (v *Vault) everSoftware(ctx context.Context, it *Item) (bool, error) {
	names, err := listRecords(ctx, v.objects, store.Key(fmt.Sprintf("keys/%s/%08d-", it.id, it.generation)))
	if err != nil {
		return false, err
	}
	for _, n := range names {
		body, err := v.readRecord(ctx, n)
		if err != nil && final(ctx, err) {
			return false, err
		}
		if err == nil && slices.ContainsFunc(body.wrapped(), isSoftware) {
			return true, nil
		}
	}
	return false, nil
}
