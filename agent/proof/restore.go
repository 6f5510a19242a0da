package proof

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/restore/target"
)

// Config of a proof by restore.
type Config struct {
	Point   *catalog.Point
	Reader  *catalog.Reader
	Scratch *Scratch
	// Source, if not nil, is what the point was made of: files that have not changed
	// since are compared with it too.
	Source source.Source

	Progress *Progress // counts as it goes; may be nil
}

// Progress counts what was restored and compared. It may be read at any time.
type Progress struct {
	Restored restore.Progress
	Compared atomic.Uint64 // files whose content was compared with the point's
	Source   atomic.Uint64 // of them with the source too
	Bytes    atomic.Uint64 // compared
	Faults   atomic.Uint64
}

// Finding is an entry that did not come back as it was.
type Finding struct {
	Path string
	Err  error
}

// MaxFindings is how many findings a proof remembers. Progress counts all.
const MaxFindings = 1000

// ErrSpace: the scratch folder has no room for the point.
var ErrSpace = errors.New("not enough room in the scratch folder")

// Restore restores a point into a folder of its own below the scratch folder, compares
// it with the point, entry by entry and byte by byte, and takes it away again. It
// returns what did not come back right; the error says that it could not go on.
//
// What only root can give, owners and devices among it, is compared only where it could
// be given.
func Restore(ctx context.Context, cfg Config) (findings []Finding, err error) {
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	if err := cfg.room(ctx); err != nil {
		if catalog.Lost(err) {
			cfg.Progress.Faults.Add(1)
			return []Finding{{Path: "/", Err: err}}, nil
		}
		return nil, err
	}
	folder, into, err := cfg.Scratch.begin()
	if err != nil {
		return nil, err
	}
	defer func() {
		// A crash before this leaves the folder; Scratch.Clean takes it when the agent
		// starts again.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
		defer cancel()
		err = errors.Join(err, cfg.Scratch.remove(end, filepath.Base(folder)))
	}()
	lacks := &lacking{Target: into}
	result, err := restore.Run(ctx, restore.Config{Point: cfg.Point, Reader: cfg.Reader, Target: lacks, NumericOwner: true,
		Progress: &cfg.Progress.Restored})
	if errors.Is(err, target.ErrFull) {
		return nil, fmt.Errorf("%w %s: it filled up: %w", ErrSpace, cfg.Scratch.Dir, err)
	}
	if err != nil && !catalog.Lost(err) {
		return nil, err
	}
	c := &comparing{Config: cfg, folder: folder, lacks: lacks, skipped: make(map[string]string), links: make(map[tree.Inode]tree.Inode), root: os.Geteuid() == 0}
	if err != nil { // the top of the point does not open
		c.wrong("/", err)
	}
	for _, s := range result.Skipped {
		c.skipped[string(s.Path)] = s.Reason
	}
	err = c.run(ctx, into)
	return c.findings, err
}

// room refuses a point that is larger than what the scratch folder has room for.
func (cfg Config) room(ctx context.Context) error {
	need, err := size(ctx, cfg.Reader, cfg.Point.Root)
	if err != nil {
		return fmt.Errorf("measure point %s: %w", cfg.Point.Name, err)
	}
	if err := os.MkdirAll(cfg.Scratch.Dir, 0o700); err != nil {
		return fmt.Errorf("make scratch folder: %w", err)
	}
	have, err := space(cfg.Scratch.Dir)
	if err != nil {
		return fmt.Errorf("measure scratch folder: %w", err)
	}
	if need > have {
		return fmt.Errorf("%w: %s has %d MiB, and point %s needs %d MiB", ErrSpace, cfg.Scratch.Dir, have>>20, cfg.Point.Name, need>>20+1)
	}
	return nil
}

// entrySize is what an entry takes besides its content, about.
const entrySize = 4 << 10

// size returns how many bytes a tree takes on disk, about: holes take none.
func size(ctx context.Context, r *catalog.Reader, trees []chunk.ID) (uint64, error) {
	total := uint64(0)
	for node, err := range r.Nodes(ctx, trees) {
		if err != nil {
			return 0, err
		}
		below := uint64(0)
		if node.Type == tree.Dir {
			if below, err = size(ctx, r, node.Trees); err != nil {
				return 0, err
			}
		}
		total += entrySize + below
		for e, err := range r.Extents(ctx, node.Content) {
			if err != nil {
				return 0, err
			}
			if e.Kind == tree.Content {
				total += e.Length
			}
		}
	}
	return total, nil
}

// Scratch is a folder for proofs. Others may use it too: what is an agent's own has its
// name, the agent's tag and the tag of its process.
type Scratch struct {
	Dir    string // absolute
	Owner  string // tells this agent from others that use the folder: [a-z0-9]
	Run    string // tells this process from those of the agent before it
	Target func(path string) (target.Target, error)
}

// mine is how the folders of this process begin, and how those of this agent do.
func (s *Scratch) mine() (process, agent string) {
	agent = "coffer-proof-" + s.Owner + "-"
	return agent + s.Run + "-", agent
}

// begin makes a folder for a run.
func (s *Scratch) begin() (folder string, into target.Target, err error) {
	process, _ := s.mine()
	if folder, err = os.MkdirTemp(s.Dir, process); err != nil { // mode 0700
		return "", nil, fmt.Errorf("make scratch folder: %w", err)
	}
	into, err = s.Target(folder)
	return folder, into, err
}

// Clean removes what runs of this agent left behind before it was started.
func (s *Scratch) Clean(ctx context.Context) error {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean scratch folder: %w", err)
	}
	process, agent := s.mine()
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), agent) || strings.HasPrefix(e.Name(), process) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.remove(ctx, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a folder of the scratch folder, with all in it whatever its mode.
func (s *Scratch) remove(ctx context.Context, name string) error {
	in, err := s.Target(s.Dir)
	if err != nil {
		return err
	}
	sink, err := in.Open(ctx, target.Options{})
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	defer sink.Close()
	root := sink.Root()
	err = root.Remove(name)
	if err = errors.Join(err, root.Finish(nil)); err != nil {
		return fmt.Errorf("remove %s from scratch folder %s: %w", name, s.Dir, err)
	}
	return nil
}

// lacking is a target that remembers what entries were restored without.
type lacking struct {
	target.Target
	mu    sync.Mutex
	paths map[string]struct{}
	more  bool // there were too many
}

// maxLacks bounds the memory of what entries lack.
const maxLacks = 64 << 10

// Open implements target.Target.
func (l *lacking) Open(ctx context.Context, opts target.Options) (target.Sink, error) {
	opts.Report = func(lack target.Lack) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.paths == nil {
			l.paths = make(map[string]struct{})
		}
		if l.more = len(l.paths) >= maxLacks; !l.more {
			l.paths["/"+lack.Path] = struct{}{}
		}
	}
	return l.Target.Open(ctx, opts)
}

// lacks tells whether an entry may be without some of its metadata.
func (l *lacking) lacks(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.paths[path]
	return ok || l.more
}
