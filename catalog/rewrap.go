package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// RewrapOptions of a Rewrap.
type RewrapOptions struct {
	// Wrappers are the keys under which every secret is wrapped afterwards. Those
	// that are new to the vault and in its ring must open what they wrap.
	Wrappers []kek.Wrapper
	// Keep says which other wrappings stay: those of keys that belong to the vault
	// and do not answer now, so that their public half is not known. nil: none. A
	// software key's never stay in a vault that is customer-managed.
	Keep func(kek.Wrapped) bool
	// Mode that the vault gets; 0: as it is. It can be raised and not lowered
	// (ErrMode). Items whose secret a software key ever wrapped get a new generation.
	Mode Mode

	Parallel int              // secrets that are opened at once; 0: 1
	Now      func() time.Time // nil: time.Now
	Progress func(Rewrapped)  // told after each secret, one call at a time; may be nil
}

// Rewrapped counts what a Rewrap has done.
type Rewrapped struct {
	Secrets int   // that there are: the vault key, and those of items by generation
	Done    int   // that were wrapped anew, new generations included
	Skipped int   // that were wrapped as they should be
	Made    int   // new generations
	Unwraps int   // of secrets, by keys
	Bytes   int64 // of key records that were written
}

// Rewrap wraps every secret of the vault under other keys. It touches key records
// and nothing else: packs stay as they are. A record that is as it should be is passed
// over, so that a Rewrap that was interrupted goes on where it stopped, and two at
// once do each other no harm.
//
// A crash at any write leaves a vault that opens under each key that opened it before
// and each of the new ones, and items that open under the one or the other. What
// cannot be wrapped because it is damaged, or because no key opens it, is in the
// error; the rest is wrapped all the same, but old keys then stay on the vault key,
// and the mode as it is.
//
// Earlier records stay in the store, and who has an old key and one of those still
// opens the secret: against that only a new generation helps, for what comes after.
func (v *Vault) Rewrap(ctx context.Context, opts RewrapOptions) (Rewrapped, error) {
	r := &rewrap{RewrapOptions: opts, vault: v, seen: make(map[secretID]bool)}
	err := r.prepare(ctx)
	if err == nil {
		err = r.run(ctx)
	}
	if err != nil {
		err = fmt.Errorf("rewrap vault %s: %w", v.id, err)
	}
	return r.done, err
}

// rewrap is a Rewrap under way.
type rewrap struct {
	RewrapOptions
	vault *Vault
	raise bool // the mode is to be raised at the end

	mu     sync.Mutex
	done   Rewrapped
	seen   map[secretID]bool // counted; true: as done. The vault key is the zero id's
	wrote  int               // records, in this pass
	faults []error           // of secrets that could not be wrapped, in this pass
}

func (r *rewrap) prepare(ctx context.Context) error {
	if r.Parallel < 1 {
		r.Parallel = 1
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Keep == nil {
		r.Keep = func(kek.Wrapped) bool { return false }
	}
	r.Wrappers = distinct(r.Wrappers)
	body, err := r.vault.vaultRecord(ctx)
	if err != nil {
		return err
	}
	if r.Mode == 0 {
		r.Mode = body.Mode
	}
	if r.Mode < body.Mode || r.Mode > CustomerManaged {
		return fmt.Errorf("make a %s vault a %s one: %w", body.Mode, r.Mode, ErrMode)
	}
	r.raise = r.Mode > body.Mode
	would := make([]kek.Wrapped, len(r.Wrappers))
	for i, w := range r.Wrappers {
		would[i].Provider = w.Ref().Provider
	}
	return checkWrappings(r.Mode, would)
}

// run takes the steps in an order in which any of them may be the last.
func (r *rewrap) run(ctx context.Context) error {
	// First the vault key is under old and new keys, so that whatever key opens an
	// item opens the vault.
	if err := r.vaultKey(ctx, func(kek.Wrapped) bool { return true }, 0); err != nil {
		return err
	}
	// A crash from here on leaves some items under old and others under new keys.
	for {
		if err := r.items(ctx); err != nil {
			return err
		}
		if len(r.faults) > 0 {
			return errors.Join(r.faults...)
		}
		// Items that another agent made meanwhile must not have a software key when the
		// mode says that none has.
		if !r.raise || r.wrote == 0 {
			break
		}
	}
	// Last, nothing needs the old keys any more, and what the mode says is true.
	return r.vaultKey(ctx, r.Keep, r.Mode)
}

// plan tells which wrappings of a record are of the wanted keys, which others stay,
// and which keys are missing. If changed is false, the record is as it should be.
func (r *rewrap) plan(have []kek.Wrapped, keep func(kek.Wrapped) bool, mode Mode) (wanted, kept []kek.Wrapped, missing []kek.Wrapper, changed bool) {
	lacks := make(map[keyIdentity]bool)
	for _, w := range r.Wrappers {
		lacks[identityOfKey(w)] = true
	}
	seen := make(map[keyIdentity]bool)
	for _, w := range have {
		id := identityOf(w)
		switch {
		case seen[id]:
			continue
		case lacks[id]:
			wanted = append(wanted, w)
			delete(lacks, id)
		case keep(w) && (mode != CustomerManaged || !isSoftware(w)):
			kept = append(kept, w)
		}
		seen[id] = true
	}
	for _, w := range r.Wrappers {
		if lacks[identityOfKey(w)] {
			missing = append(missing, w)
		}
	}
	return wanted, kept, missing, len(missing) > 0 || len(wanted)+len(kept) != len(have)
}

// vaultKey writes the next record of the vault key, if the current one lacks a key,
// or has one that does not stay, or another mode. Mode 0 is the one it has.
func (r *rewrap) vaultKey(ctx context.Context, keep func(kek.Wrapped) bool, mode Mode) error {
	v := r.vault
	taken := uint32(0) // the highest name that turned out to be taken
	for {
		body, err := v.vaultRecord(ctx)
		if err != nil {
			return err
		}
		mode = max(mode, body.Mode)
		wanted, kept, missing, changed := r.plan(body.wrapped(), keep, mode)
		if !changed && mode == body.Mode {
			r.note(secretID{}, false, 0)
			return nil
		}
		fresh, err := wrapAll(missing, v.key)
		if err != nil {
			return err
		}
		if err := r.prove(ctx, fresh); err != nil {
			return err
		}
		all := slices.Concat(wanted, fresh, kept)
		if err := checkWrappings(mode, all); err != nil {
			return err
		}
		body.Epoch, body.Written, body.Mode, body.Wrappings = max(body.Epoch, taken)+1, r.Now().Unix(), mode, wrappings(all)
		size, err := v.putKeyRecord(ctx, body)
		if errors.Is(err, store.ErrExist) {
			// By another agent, or by a Put that happened after all; or it is rubbish, which
			// readers pass over, and so does the next record.
			taken = body.Epoch
			continue
		}
		if err != nil {
			return err
		}
		r.note(secretID{}, true, size)
		return v.admit(body, 0)
	}
}

// prove has every key that the ring has open what it just wrapped: nothing old may
// go before that.
func (r *rewrap) prove(ctx context.Context, fresh []kek.Wrapped) error {
	for _, w := range fresh {
		key, _, err := crypt.OpenVaultKey(ctx, r.vault.keys(), []kek.Wrapped{w}, r.vault.id)
		var unopened *kek.UnwrapError
		if errors.As(err, &unopened) && len(unopened.Tried) == 0 { // an escrow key
			continue
		}
		r.mu.Lock()
		r.done.Unwraps++
		r.mu.Unlock()
		if err != nil {
			return fmt.Errorf("see whether a new key opens what it wraps: %w", err)
		}
		key.Close()
	}
	return nil
}

// items takes care of all items once.
func (r *rewrap) items(ctx context.Context) error {
	r.wrote, r.faults = 0, nil
	items, faults := r.vault.items(ctx)
	for _, err := range faults {
		if err := r.fault(ctx, err); err != nil {
			return err
		}
	}
	secrets := 1
	for _, it := range items {
		secrets += len(it.records)
	}
	r.done.Secrets = max(r.done.Secrets, secrets)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(r.Parallel)
	for _, it := range items {
		group.Go(func() error {
			defer it.Close()
			if gctx.Err() != nil {
				return gctx.Err()
			}
			if err := r.item(gctx, it); err != nil {
				return r.fault(gctx, fmt.Errorf("item %s: %w", it.name, err))
			}
			return nil
		})
	}
	return group.Wait()
}

// fault notes what is wrong with one item, and returns what would be wrong with the
// next as well.
func (r *rewrap) fault(ctx context.Context, err error) error {
	stays := errors.Is(err, kek.ErrUnreachable) || errors.Is(err, kek.ErrDenied) || final(ctx, err)
	if stays || !errors.Is(err, crypt.ErrDamaged) && !errors.Is(err, ErrRolledBack) && !isUnopened(err) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err)
	return nil
}

// item takes care of all generations of an item.
func (r *rewrap) item(ctx context.Context, it *Item) error {
	if r.raise && it.generation != 0 {
		if err := r.renew(ctx, it); err != nil {
			return err
		}
	}
	for _, generation := range slices.Sorted(maps.Keys(it.records)) {
		if err := r.record(ctx, it, it.records[generation]); err != nil {
			return err
		}
	}
	return nil
}

// record writes the next record of a generation, unless it is as it should be.
func (r *rewrap) record(ctx context.Context, it *Item, body keyRecord) error {
	v, id := r.vault, secretID{it.id, body.Generation}
	mode := max(r.Mode, v.Mode())
	for {
		_, kept, _, changed := r.plan(body.wrapped(), r.Keep, mode)
		if !changed {
			r.note(id, false, 0)
			return nil
		}
		secret, err := r.secret(ctx, it, body.Generation)
		if err != nil {
			return err
		}
		fresh, err := wrapAll(r.Wrappers, secret)
		if err != nil {
			return err
		}
		all := append(fresh, kept...)
		if err := checkWrappings(mode, all); err != nil {
			return err
		}
		next := body
		next.Epoch, next.Written, next.Wrappings = body.Epoch+1, r.Now().Unix(), wrappings(all)
		size, err := v.putKeyRecord(ctx, next)
		if errors.Is(err, store.ErrExist) { // another agent, or a Put that happened after all
			body, err = v.newerRecord(ctx, body)
			if errors.Is(err, ErrErased) {
				return nil
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		r.note(id, true, size)
		return nil
	}
}

// secret returns the secret of a generation of the item, which closes it.
func (r *rewrap) secret(ctx context.Context, it *Item, generation uint32) (*crypt.Secret, error) {
	s, unwrapped, err := it.open(ctx, generation)
	if unwrapped {
		r.mu.Lock()
		r.done.Unwraps++
		r.mu.Unlock()
	}
	return s, err
}

// note counts a secret.
func (r *rewrap) note(id secretID, wrote bool, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if size > 0 {
		r.wrote++
		r.done.Bytes += size
	}
	done, seen := r.seen[id]
	switch {
	case !seen && wrote:
		r.done.Done++
	case !seen:
		r.done.Skipped++
	case wrote && !done:
		r.done.Skipped--
		r.done.Done++
	}
	r.seen[id] = done || wrote
	r.done.Secrets = max(r.done.Secrets, len(r.seen))
	if r.Progress != nil {
		r.Progress(r.done)
	}
}
