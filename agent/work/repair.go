package work

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/repair"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// repair mends an item that nobody else of this agent works on.
func (w *verifier) repair(ctx context.Context, it *vault.Item) error {
	level, err := chunk.ParseLevel(w.cfg.Settings().Vaults[it.Vault.Name].Compression)
	if err != nil {
		return err
	}
	ended, err := it.BeginWriting(ctx)
	if err != nil {
		return err
	}
	defer ended()
	done, err := repair.Run(ctx, repair.Config{
		Item: it.Item, Index: it.Index, Packs: it.Vault.Store, Level: level, Host: w.cfg.Host, Clock: w.cfg.Clock,
		Options: store.PutOptions{Retention: w.cfg.Vaults.Retention(it.Vault.Name)},
		Verify: func(ctx context.Context, read func(pack.ID) bool) (restore.Report, error) {
			w.anew()
			return w.check(ctx, it, restore.VerifyConfig{Read: read})
		},
		// From then on nobody else brings the index up: it would name packs again that a
		// prune has removed meanwhile.
		BringUp: func(ctx context.Context) (catalog.Synced, error) { return it.BringUpWriting(ctx, func(int) {}) },
		Backup:  func(ctx context.Context) (string, error) { return w.again(ctx, it) },
	})
	w.out.Repaired = append(w.out.Repaired, done.Repaired[:min(len(done.Repaired), queue.MaxNotes)]...)
	if err != nil {
		for _, line := range w.out.Repaired { // which stays, though nothing else is told
			w.job.Note("info", line)
		}
		return err
	}
	if done.Unread != nil {
		w.job.Note("warning", fmt.Sprintf("the source cannot be read again, so nothing was stored again: %v", done.Unread))
	}
	w.found(done.Left.Findings, 0)
	w.lost = done.Left.Points
	return nil
}

// anew has a pass over all points counted from the beginning; what was read stays counted.
func (w *verifier) anew() {
	w.done.Points.Store(0)
	w.done.Files.Store(0)
	w.done.Damaged.Store(0)
	w.job.Follow(w.progress)
}

// again backs the item up, every file read.
func (w *verifier) again(ctx context.Context, it *vault.Item) (string, error) {
	if _, err := w.cfg.Rules.MayWrap(ctx, it.Vault); err != nil {
		return "", err
	}
	result, err := w.backup(ctx, w.job, it, control.BackupRequest{Item: it.Name(), FullRead: true})
	if err != nil {
		return "", err
	}
	p := result.Point
	w.skipped.Store(p.Stats.Skipped)
	return fmt.Sprintf("point %s, %s, %s of them stored anew", p.ID, control.Counted(p.Stats.Files, "file"), control.Size(p.Stats.NewBytes)), nil
}
