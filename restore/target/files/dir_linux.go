package files

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
	"github.com/cofferbackup/coffer/restore/target"
)

type dir struct {
	s      *sink
	parent *dir // for paths in reports and the number of its file system; nil at the top
	name   string
	fd     int
	broken error // why it cannot be used
	dev    uint64
	// inherits says that a default ACL gives new entries an ACL.
	inherits bool
	// was is the mode to give back if Finish gives none: its owner had to be
	// allowed to write. 0 if nothing was changed.
	was uint32
	// birth is the owner of new files here: uid, gid, plus one; 0 if not known yet.
	birth atomic.Uint64
}

// path is made only for what is reported.
func (d *dir) path(name string) string {
	var parts []string
	if name != "" {
		parts = append(parts, name)
	}
	for ; d.parent != nil; d = d.parent {
		parts = append(parts, d.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

func (d *dir) lack(name, reason string) {
	d.s.opts.Report(target.Lack{Path: d.path(name), Reason: reason})
}

// check says why an operation on name cannot be done at all.
func (d *dir) check(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return d.usable()
}

func (d *dir) usable() error {
	if d.broken == nil && d.fd < 0 {
		return fmt.Errorf("directory: %w", errClosed)
	}
	return d.broken
}

func (d *dir) Look(name string) (*tree.Node, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	var st unix.Statx_t
	err := dirfd.Statx(d.fd, name, &st)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, fail("stat", err)
	}
	node := dirfd.Node(&st, name)
	node.UID, node.GID = d.s.users.toPoint(st.Uid), d.s.groups.toPoint(st.Gid)
	if node.Type == tree.Symlink {
		if node.Target, err = dirfd.Readlink(d.fd, name); err != nil {
			return nil, fail("read symlink", err)
		}
	}
	if node.Xattrs, err = dirfd.Xattrs(d.fd, name); err != nil {
		return nil, fail("read extended attributes", err)
	}
	return node, nil
}

func (d *dir) Names() ([]string, error) {
	if err := d.usable(); err != nil {
		return nil, err
	}
	names, err := d.list(func(name string, _ uint8) bool { return !unfinished(d.fd, name) })
	if err != nil {
		return nil, fail("list directory", err)
	}
	return names, nil
}

func (d *dir) Existing(name string) (target.Existing, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	fd, err := dirfd.OpenRead(d.fd, name, 0)
	if err == unix.ELOOP || err == unix.ENXIO { // a symlink, a socket
		return nil, fmt.Errorf("open: %w", target.ErrInTheWay)
	}
	if err != nil {
		return nil, fail("open", err)
	}
	e := &existing{s: d.s, fd: fd}
	d.s.mu.Lock()
	d.s.olds[e] = struct{}{}
	d.s.mu.Unlock()
	var st unix.Statx_t
	if err := dirfd.StatxFd(fd, &st); err != nil {
		return nil, errors.Join(fail("stat", err), e.Close())
	}
	if dirfd.Type(&st) != tree.File {
		return nil, errors.Join(fmt.Errorf("open: %w", target.ErrInTheWay), e.Close())
	}
	e.size = int64(st.Size)
	return e, nil
}

func (d *dir) Dir(name string) (target.Dir, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	err := unix.Mkdirat(d.fd, name, 0o700)
	if err == unix.EEXIST {
		return d.enter(name)
	}
	if err != nil {
		return nil, fail("make directory", err)
	}
	fd, err := dirfd.Open(d.fd, name, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, fail("open directory", err)
	}
	c := &dir{s: d.s, parent: d, name: name, fd: fd, dev: d.dev, inherits: d.inherits}
	d.s.add(c)
	return c, nil
}

// enter opens a directory that is there, to write in it.
func (d *dir) enter(name string) (target.Dir, error) {
	c, err := d.openChild(name)
	if err != nil {
		return nil, err
	}
	if err := c.settle(); err != nil {
		return nil, errors.Join(err, c.Finish(nil))
	}
	return c, nil
}

// view opens a directory that is there, to look at it.
func (d *dir) view(name string) (viewer, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	return d.openChild(name)
}

func (d *dir) openChild(name string) (*dir, error) {
	c := &dir{s: d.s, parent: d, name: name, dev: d.dev}
	var err error
	c.fd, err = dirfd.Open(d.fd, name, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	switch err {
	case nil:
	case unix.ENOTDIR, unix.ELOOP:
		return nil, fmt.Errorf("open directory: %w", target.ErrInTheWay)
	default:
		return nil, fail("open directory", err)
	}
	d.s.add(c)
	return c, nil
}

// settle gets a directory that was there ready to be written to.
func (d *dir) settle() error {
	var st unix.Statx_t
	if err := dirfd.StatxFd(d.fd, &st); err != nil {
		return fail("stat directory", err)
	}
	d.dev = dirfd.Dev(&st)
	if d.parent != nil && d.dev != d.parent.dev {
		d.s.mounted(d.dev, d.fd)
	}
	if uid := unix.Geteuid(); uid != 0 && int(st.Uid) == uid && st.Mode&0o300 != 0o300 {
		if err := unix.Fchmod(d.fd, uint32(st.Mode)&0o7777|0o300); err != nil {
			return fail("make directory writable", err)
		}
		d.was = uint32(st.Mode)
	}
	if n, err := unix.Fgetxattr(d.fd, aclDefault, nil); err == nil && n > 0 {
		d.inherits = true
	}
	if changed := time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)); changed.After(d.s.begun) {
		return nil
	}
	if err := d.sweep(); err != nil {
		return fail("list directory", err)
	}
	return nil
}

// Finish may be called on a directory that is broken.
func (d *dir) Finish(node *tree.Node) error {
	d.s.mu.Lock()
	_, mine := d.s.dirs[d]
	delete(d.s.dirs, d)
	d.s.mu.Unlock()
	if !mine { // the sink was closed, or the directory could not be opened
		return d.usable()
	}
	fd := d.fd
	d.fd = -1
	err := d.finish(fd, node)
	return errors.Join(err, unix.Close(fd))
}

func (d *dir) finish(fd int, node *tree.Node) error {
	switch {
	case node != nil:
		have, err := haveOf(fd)
		if err != nil {
			return fail("stat directory", err)
		}
		return d.apply(handle{fd: fd}, node, have, "")
	case d.was != 0:
		if err := unix.Fchmod(fd, d.was&0o7777); err != nil {
			return fail("restore mode", err)
		}
	}
	return nil
}

func (d *dir) SetMeta(node *tree.Node) error {
	if err := d.check(node.Name); err != nil {
		return err
	}
	fd, err := dirfd.Open(d.fd, node.Name, unix.O_PATH, 0)
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(fd)
	have, err := haveOf(fd)
	if err != nil {
		return fail("stat", err)
	}
	if have.typ != node.Type || node.Type != tree.File && node.Type != tree.Dir {
		return fmt.Errorf("set metadata: %w", target.ErrInTheWay)
	}
	return d.apply(handle{fd: fd, path: dirfd.ProcPath(fd, "")}, node, have, node.Name)
}

// existing is a file to compare with.
type existing struct {
	s    *sink
	fd   int
	size int64
}

func (e *existing) ReadAt(p []byte, off int64) (int, error) {
	if e.fd < 0 {
		return 0, fs.ErrClosed
	}
	return preadFull(e.fd, p, off)
}

func (e *existing) Close() error {
	e.s.mu.Lock()
	_, mine := e.s.olds[e]
	delete(e.s.olds, e)
	e.s.mu.Unlock()
	fd := e.fd
	e.fd = -1
	if !mine { // closed before, or with the sink
		return nil
	}
	return unix.Close(fd)
}
