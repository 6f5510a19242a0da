// Package files restores to directories and files of this machine.
//
// On Linux every name is one component relative to an open directory, and every
// directory is opened without following a symlink: whatever names a point has,
// and whoever else writes to the target meanwhile, nothing leads out of it. The
// path of the target itself is the operator's and may contain symlinks.
//
// A file is written under a temporary name in its own directory and renamed when
// it is complete. A crash leaves such files behind; the next restore that opens
// the directory removes them. They are told from the user's own by their name, by
// the sticky bit, which means nothing on a file and which a complete file has lost,
// and by nobody holding a lock on them.
//
// There is no fsync per file: Finish syncs the file systems that were written to.
// After a crash before that, a restore is run again.
//
// Owners are given by name where the point knows a name that this machine knows
// too, else by number. A process that may not change owners (an ordinary user)
// restores everything else, without the set-id bits that would then lend somebody
// else's rights, and reports what is missing.
package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/restore/target"
)

// Config says where to restore to.
type Config struct {
	Path string // absolute; made if it is not there
	// Clock is time.Now if nil.
	Clock func() time.Time
}

// Target is a directory.
type Target struct {
	cfg Config
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Target, error) {
	if !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("restore: target %q is not absolute", cfg.Path)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Target{cfg: cfg}, nil
}

// Open begins a session.
func (t *Target) Open(ctx context.Context, opts target.Options) (target.Sink, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if opts.Report == nil {
		opts.Report = func(target.Lack) {}
	}
	if info, err := os.Stat(t.cfg.Path); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("open target %s: %w", t.cfg.Path, target.ErrFile)
	}
	if opts.DryRun {
		return openDry(t.cfg, opts)
	}
	s, err := open(t.cfg, opts)
	if err != nil {
		return nil, fmt.Errorf("open target %s: %w", t.cfg.Path, err)
	}
	return s, nil
}

// checkName refuses what is not the name of an entry of a directory.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || !filepath.IsLocal(name) {
		return fmt.Errorf("%w: %q", target.ErrName, name)
	}
	return nil
}

// errClosed: a method was called after Commit, Abort, Finish or Close.
var errClosed = errors.New("already closed")
