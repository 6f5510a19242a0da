package prune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// VaultConfig of a prune of what belongs to no item that is there.
type VaultConfig struct {
	Vault  *catalog.Vault
	Store  store.Store
	Grace  time.Duration
	DryRun bool
	Clock  func() time.Time
	Log    *slog.Logger
}

// VaultResult says what it did.
type VaultResult struct {
	Records     int64 // key records that counted no more
	Swept       int64 // objects of erased items
	FreedBytes  int64
	Locked      int64 // objects that the store does not let go yet
	LockedUntil time.Time
}

// Vault removes key records in whose place a later one has counted for the grace time,
// and what is left of items that were erased. A dry run counts the records only.
func Vault(ctx context.Context, cfg VaultConfig) (VaultResult, error) {
	var out VaultResult
	del := &remover{store: cfg.Store, dry: cfg.DryRun, progress: new(Progress)}
	err := records(ctx, cfg, del, &out)
	if err == nil && !cfg.DryRun {
		err = leftovers(ctx, cfg, &out)
	}
	if err != nil {
		err = fmt.Errorf("prune what belongs to no item: %w", err)
	}
	out.FreedBytes += del.freed
	for _, until := range del.locked {
		out.keep(1, until)
	}
	return out, err
}

func (r *VaultResult) keep(objects int64, until time.Time) {
	r.Locked += objects
	if until.After(r.LockedUntil) {
		r.LockedUntil = until
	}
}

func records(ctx context.Context, cfg VaultConfig, del *remover, out *VaultResult) error {
	old, err := cfg.Vault.Superseded(ctx)
	if err != nil {
		return err
	}
	now := cfg.Clock()
	for _, s := range old {
		// An agent that has just listed the records may still read the older one.
		if now.Sub(s.Since) < cfg.Grace {
			continue
		}
		gone, err := del.object(ctx, s.Key, s.Size)
		if err != nil {
			return err
		}
		if gone {
			out.Records++
		}
	}
	return nil
}

// leftovers sweeps every item of the vault: those that were never erased are passed
// over.
func leftovers(ctx context.Context, cfg VaultConfig, out *VaultResult) error {
	seen := make(map[string]struct{})
	for record, err := range cfg.Vault.KeyRecords(ctx) {
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) {
				return err
			}
			cfg.Log.Warn("key record not readable, so its item is not swept", "err", err)
			continue
		}
		if _, again := seen[record.Item]; again || record.Item == "" {
			continue
		}
		seen[record.Item] = struct{}{}
		done, err := cfg.Vault.Sweep(ctx, cfg.Store, record.Item)
		out.Swept += int64(done.Deleted)
		out.keep(int64(done.Locked), done.LockedUntil)
		if errors.Is(err, store.ErrDenied) {
			err = fmt.Errorf("%w: %w", ErrMayNotDelete, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
