package work

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore"
)

// TryBackup backs an item up for a drill.
func (d *Desk) TryBackup(ctx context.Context, name string) (*catalog.Point, error) {
	it, err := d.cfg.Vaults.Protected(ctx, name)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	src, err := d.cfg.Source(d.cfg.Settings().Items[name], "", nil)
	if err != nil {
		return nil, err
	}
	done, err := it.BeginWriting(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	cfg, err := d.writing(it, src, new(backup.Progress))
	if err != nil {
		return nil, err
	}
	cfg.Tags = []string{"drill"}
	return d.run(ctx, it, cfg)
}

// ReadBack reads all of a point and keeps nothing.
func (d *Desk) ReadBack(ctx context.Context, name string, p *catalog.Point) (int64, error) {
	it, err := d.cfg.Vaults.Existing(ctx, name)
	if err != nil {
		return 0, err
	}
	defer it.Close()
	done := new(restore.VerifyProgress)
	report, err := restore.Verify(ctx, restore.VerifyConfig{Item: it.Item, Objects: it.Vault.Store, Reader: it.Reader, Points: []catalog.PointName{p.Name}, Progress: done})
	if err == nil && len(report.Findings) > 0 {
		err = fmt.Errorf("%d faults, the first in %s: %w", len(report.Findings), report.Findings[0].Object, report.Findings[0].Err)
	}
	return int64(done.Bytes.Load()), err
}
