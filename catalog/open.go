package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/store"
)

// OpenOptions of Open.
type OpenOptions struct {
	ID     crypt.VaultID // what is opened has this id and no other
	Ring   *kek.Ring     // any key of it may open the vault
	Floors Floors        // nil: rollbacks are not noticed
}

// Open opens the vault called id. It asks the ring's keys to unwrap the vault key,
// and believes nothing that the id does not vouch for.
//
// The current record of the vault key is the newest that the vault key itself
// authenticates, and its wrappings alone open the vault: an earlier one, of a key
// that was taken out since, does not. ErrRolledBack if a newer one was seen before.
func Open(ctx context.Context, objects Objects, opts OpenOptions) (*Vault, error) {
	v, err := open(ctx, objects, opts)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", opts.ID, err)
	}
	return v, nil
}

func open(ctx context.Context, objects Objects, opts OpenOptions) (*Vault, error) {
	raw, err := store.ReadAll(ctx, objects, Descriptor, maxRecord)
	if errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrHidden) {
		err = ErrNoVault
	}
	if err != nil {
		return nil, err
	}
	var d descriptor
	rec, err := parseRecord(descriptorMagic, Descriptor, raw, &d)
	if err != nil {
		return nil, err
	}
	if d.Vault != opts.ID {
		return nil, fmt.Errorf("its id is %s: %w", d.Vault, ErrOtherVault)
	}
	key, body, err := openVaultKey(ctx, objects, opts)
	if err != nil {
		return nil, err
	}
	v := newVault(objects, key, opts.Ring, opts.Floors)
	v.created = time.Unix(d.Created, 0).UTC()
	if err = rec.verify(key); err == nil {
		err = v.admit(body, v.vaultFloor())
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// candidate is a record of the vault key that may be the current one.
type candidate struct {
	body keyRecord
	rec  record
	err  error // why it does not open
}

// openVaultKey opens the vault key, and returns its current record.
func openVaultKey(ctx context.Context, objects Objects, opts OpenOptions) (*crypt.VaultKey, keyRecord, error) {
	none := func(err error) (*crypt.VaultKey, keyRecord, error) { return nil, keyRecord{}, err }
	names, err := listRecords(ctx, objects, VaultRecords)
	if err != nil {
		return none(err)
	}
	failures := []error{}
	var newer []candidate // that did not open, newest first
	for _, n := range slices.Backward(names) {
		c := candidate{}
		if c.body, c.rec, err = loadRecord(ctx, objects, n, opts.ID); err != nil {
			if final(ctx, err) {
				return none(err) // it may be the one that counts
			}
			failures = append(failures, err)
			continue
		}
		key, _, err := crypt.OpenVaultKey(ctx, opts.Ring, c.body.wrapped(), opts.ID)
		if err != nil {
			if ctx.Err() != nil {
				return none(err)
			}
			c.err = fmt.Errorf("%s: %w", n.key(), err)
			newer, failures = append(newer, c), append(failures, c.err)
			continue
		}
		// Now it can be told which of the newer ones are the vault's own. If one is,
		// the keys that open this one were taken out, and do not count.
		for _, c := range newer {
			if c.rec.verify(key) == nil {
				key.Close()
				return none(c.err)
			}
		}
		if err := c.rec.verify(key); err != nil { // the right key, in somebody else's record
			key.Close()
			failures = append(failures, err)
			continue
		}
		return key, c.body, nil
	}
	if len(failures) == 0 {
		return none(fmt.Errorf("it has no key record: %w", crypt.ErrDamaged))
	}
	return none(errors.Join(failures...))
}
