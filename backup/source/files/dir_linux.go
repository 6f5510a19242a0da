package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/files/ignore"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
)

type dir struct {
	s      *session
	parent *dir // nil at the top
	name   string
	fd     int
	place  place
	dev    uint64 // of the file system, with OneFileSystem
	lacks  bool   // a child was left out
	st     unix.Statx_t
	last   *tree.Node // what the last Stat made of st; nil if anything has used st since
	// The owners that were met last: mostly those of the next file too.
	uid, gid uint32
	owned    bool
}

func (s *session) openTop(context.Context) (*dir, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/fd", &st); err != nil {
		return nil, fmt.Errorf("stat /proc/self/fd: %w; mount /proc: extended attributes are read through it", err)
	}
	d := &dir{s: s, fd: -1, place: place{at: s.picks, whole: s.picks.root}}
	fd, err := unix.Open("/", unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d.fd = fd
	if err := dirfd.StatxFd(fd, &d.st); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.dev = dirfd.Dev(&d.st)
	return d, nil
}

// path is made only for what is reported.
func (d *dir) path(names ...string) string {
	slices.Reverse(names)
	for ; d.parent != nil; d = d.parent {
		names = append(names, d.name)
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

func (d *dir) Names(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !d.place.whole {
		return d.place.at.names(), nil
	}
	list, _ := d.s.lists.Get().(*dirfd.List)
	if list == nil {
		list = new(dirfd.List)
	}
	defer d.s.lists.Put(list)
	tag := false
	names, err := list.Read(d.fd, func(name string, typ uint8) bool {
		tag = tag || name == tagName
		keep := d.keeps(name, typ)
		d.lacks = d.lacks || !keep
		return keep
	})
	if err != nil {
		return nil, fmt.Errorf("list directory: %w", err)
	}
	if tag && d.s.cfg.SkipCacheDirs && !d.place.at.isRoot() && tagged(d.fd) {
		d.s.note(d.path(), "cache directory (CACHEDIR.TAG)")
		d.place.whole = false
		names = append(d.place.at.names(), tagName)
		slices.Sort(names)
		return slices.Compact(names), nil
	}
	return names, nil
}

// keeps tells whether the entry that was listed is to be kept. It does not hold
// on to name.
func (d *dir) keeps(name string, typ uint8) bool {
	if d.place.at.child(name) != nil {
		return true
	}
	if typ == unix.DT_SOCK {
		d.s.note(d.path(name), isSocket)
		return false
	}
	if d.s.exclude == nil {
		return true
	}
	kind := ignore.Other
	switch typ {
	case unix.DT_DIR:
		kind = ignore.Dir
	case unix.DT_UNKNOWN:
		d.last = nil
		if dirfd.Statx(d.fd, name, &d.st) == nil && uint32(d.st.Mode)&unix.S_IFMT == unix.S_IFDIR {
			kind = ignore.Dir
		}
	}
	return !d.s.exclude.Match(d.place.below, name, kind)
}

const (
	tagName      = "CACHEDIR.TAG"
	tagSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

// tagged tells whether the directory has a tag that is a file and begins with
// the signature.
func tagged(dir int) bool {
	fd, err := dirfd.OpenRead(dir, tagName, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := dirfd.StatxFd(fd, &st); err != nil || uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	var buf [len(tagSignature)]byte
	n, err := unix.Pread(fd, buf[:], 0)
	return err == nil && string(buf[:n]) == tagSignature
}

func (d *dir) Dir(ctx context.Context, name string) (source.Dir, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &dir{s: d.s, parent: d, name: name, fd: -1}
	c.place = d.place.child(name, func() bool { return !d.s.exclude.Match(d.place.below, name, ignore.Dir) })
	var err error
	switch {
	case c.place.whole:
		c.fd, err = dirfd.OpenRead(d.fd, name, unix.O_DIRECTORY)
	case d.place.follows(name):
		// Only passed through, which takes no permission to list it.
		c.fd, err = dirfd.OpenFollow(d.fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	default:
		c.fd, err = dirfd.Open(d.fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return nil, failed("open directory", err)
	}
	if !d.s.cfg.OneFileSystem || !c.place.whole {
		return c, nil
	}
	if err := dirfd.StatxFd(c.fd, &c.st); err != nil {
		return nil, errors.Join(failed("open directory", err), c.Close())
	}
	c.dev = dirfd.Dev(&c.st)
	if d.foreign(name, &c.st) {
		d.s.note(d.path(name), "another file system is mounted there")
		c.place.whole = false
	}
	return c, nil
}

// foreign tells whether name is a mount point of which only the directory is kept.
func (d *dir) foreign(name string, st *unix.Statx_t) bool {
	return d.s.cfg.OneFileSystem && d.place.whole && !d.place.at.child(name).isRoot() && dirfd.Dev(st) != d.dev
}

// partial tells of the child directory name, which st describes, that not all in
// it is kept, as far as that can be told from here.
func (d *dir) partial(name string, st *unix.Statx_t) bool {
	at := d.place.at.child(name)
	switch {
	case at.isRoot():
		return false
	case !d.place.whole, d.foreign(name, st):
		return true
	}
	return at != nil && d.s.exclude.Match(d.place.below, name, ignore.Dir)
}

// Partial implements source.Partial.
func (d *dir) Partial() bool { return !d.place.whole || d.lacks }

func (d *dir) Close() error {
	if d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// failed says what was being done, or that the entry is gone.
func failed(doing string, err error) error {
	if err == unix.ENOENT || err == unix.ESTALE {
		return source.ErrVanished
	}
	return fmt.Errorf("%s: %w", doing, err)
}
