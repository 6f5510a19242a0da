// Package files is the source of files and directories of this machine.
//
// The tree of a session begins at "/": a configured path has its place in the
// point under its absolute path. The directories on the way to it are there with
// their own metadata and nothing else in them. Where configured paths lie one in
// another, the innermost governs what is below it, so each is backed up as if it
// were alone.
//
// On Linux everything is done relative to open directories: there is no limit on
// the depth of a tree, and a directory that is swapped for a symlink meanwhile
// leads nowhere.
//
// An unchanged file is recognised by type, size, mtime, ctime and inode and not
// opened. A file that is changed twice within one tick of the file system's clock
// can keep all five, so a file whose ctime is not older than the session (less the
// tick) is described without its ctime: it matches nothing, and the next backup
// reads it again. Where a file server makes the stamps, its clock must not be
// behind this machine's for that to hold.
package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/files/ignore"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// Config is what to back up and what of it to leave out.
type Config struct {
	// Paths are absolute. A symlink is kept as a symlink, not followed; symlinks
	// on the way to a path are followed.
	Paths []string
	// Exclude is patterns in the syntax of gitignore(5), relative to each path.
	// A configured path itself is never excluded.
	Exclude []string
	// ExcludeFiles are files of such patterns, which come before those of Exclude.
	ExcludeFiles []string
	// OneFileSystem keeps of a mount point below a path only the directory.
	OneFileSystem bool
	// SkipCacheDirs keeps of a directory with a valid CACHEDIR.TAG (see
	// bford.info/cachedir) only the directory and the tag.
	SkipCacheDirs bool
	// MaxFileSize in bytes passes over larger files; 0 is no limit.
	MaxFileSize uint64
	// Clock is time.Now if nil.
	Clock func() time.Time
}

// Source is the source of one configuration.
type Source struct {
	cfg Config
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Source, error) {
	if len(cfg.Paths) == 0 {
		return nil, errors.New("files: no paths to back up")
	}
	paths := make([]string, len(cfg.Paths))
	for i, p := range cfg.Paths {
		if !filepath.IsAbs(p) {
			return nil, fmt.Errorf("files: path %q is not absolute", p)
		}
		paths[i] = filepath.Clean(p)
	}
	slices.Sort(paths)
	cfg.Paths = slices.Compact(paths)
	for _, p := range cfg.ExcludeFiles {
		if !filepath.IsAbs(p) {
			return nil, fmt.Errorf("files: exclude file %q is not absolute", p)
		}
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Source{cfg: cfg}, nil
}

// Kind is "files".
func (s *Source) Kind() string { return "files" }

// Open begins a session. A configured path that is not there is a fault; if none
// is, Open returns an error.
func (s *Source) Open(ctx context.Context, report func(source.Skip)) (source.Session, error) {
	var lines []string
	for _, p := range s.cfg.ExcludeFiles {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("read exclude file: %w", err)
		}
		lines = append(lines, ignore.Lines(data)...)
	}
	se := &session{
		cfg:     s.cfg,
		report:  report,
		exclude: ignore.New(append(lines, s.cfg.Exclude...)),
		begun:   s.cfg.Clock(),
		picks:   &pick{},
	}
	if err := se.choose(); err != nil {
		return nil, err
	}
	top, err := se.openTop(ctx)
	if err != nil {
		return nil, fmt.Errorf("open /: %w", err)
	}
	se.top = top
	return se, nil
}

type session struct {
	cfg     Config
	report  func(source.Skip)
	exclude *ignore.Matcher
	begun   time.Time
	picks   *pick
	top     *dir
	owners  owners
	lists   sync.Pool // of *dirfd.List
}

func (s *session) Root() source.Dir                          { return s.top }
func (s *session) Owners() (users, groups map[uint32]string) { return s.owners.names() }
func (s *session) Finish(ctx context.Context) error          { return ctx.Err() }
func (s *session) Close() error                              { return s.top.Close() }
func (s *session) note(path, reason string)                  { s.report(source.Skip{Path: path, Reason: reason}) }
func (s *session) fault(path, reason string) {
	s.report(source.Skip{Path: path, Reason: reason, Fault: true})
}

// choose builds picks from the configured paths that are there.
func (s *session) choose() error {
	configured := &pick{}
	for _, p := range s.cfg.Paths {
		configured.add(components(p))
	}
	var last error
	for _, p := range s.cfg.Paths {
		info, err := os.Lstat(p)
		if err != nil {
			last = reason(err)
			s.fault(p, last.Error())
			continue
		}
		parts := components(p)
		if link := configured.linkAbove(parts); link != "" {
			last = fmt.Errorf("reached through the symlink %s, which is itself backed up; configure the real path", link)
			s.fault(p, last.Error())
			continue
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if to, err := os.Stat(p); err == nil && to.IsDir() {
				s.note(p, "symlink to a directory: the symlink is kept, what is in the directory is not")
			}
		}
		s.picks.add(parts)
	}
	if !s.picks.root && s.picks.next == nil {
		return fmt.Errorf("%w: none of the %d paths; the last, %s: %w", source.ErrNothing, len(s.cfg.Paths), s.cfg.Paths[len(s.cfg.Paths)-1], last)
	}
	return nil
}

const isSocket = "socket"

func overLimit(size, limit uint64) string {
	return fmt.Sprintf("size %d is over the limit of %d bytes", size, limit)
}

// reason is what a person needs of a path error: not the path, said elsewhere.
func reason(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// The ticks of file systems that stamp to fractions of a second and to seconds
// (FAT: two). Linux stamps with its timer, at the coarsest every 10 ms.
const (
	fineTick   = 10 * time.Millisecond
	coarseTick = 2 * time.Second
)

// racy tells whether a change during this session could leave the stamps as they
// are.
func (s *session) racy(mtime, ctime tree.Time) bool {
	tick := fineTick
	if mtime.Nsec == 0 && ctime.Nsec == 0 {
		tick = coarseTick
	}
	return !time.Unix(ctime.Sec, int64(ctime.Nsec)).Before(s.begun.Add(-tick))
}
