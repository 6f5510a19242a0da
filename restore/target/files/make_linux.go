package files

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
	"github.com/cofferbackup/coffer/restore/target"
)

// Make makes the entry under a temporary name and renames it. A crash between
// leaves an empty FIFO, device or a symlink of that name, which nothing removes.
func (d *dir) Make(node *tree.Node) error {
	if err := d.check(node.Name); err != nil {
		return err
	}
	temp := ""
	err := error(unix.EEXIST)
	for i := 0; i < tries && err == unix.EEXIST; i++ {
		temp = d.s.tempName()
		err = d.mknod(temp, node)
	}
	if err != nil {
		return fail("make "+node.Type.String(), err)
	}
	if err = d.dress(temp, node); err == nil {
		err = d.place(temp, node.Name)
	}
	if err != nil {
		err = errors.Join(err, unix.Unlinkat(d.fd, temp, 0))
	}
	return err
}

func (d *dir) mknod(temp string, node *tree.Node) error {
	mode, dev := uint32(0), 0
	switch node.Type {
	case tree.Symlink:
		return unix.Symlinkat(node.Target, d.fd, temp)
	case tree.FIFO:
		mode = unix.S_IFIFO
	case tree.CharDevice:
		mode = unix.S_IFCHR
	case tree.BlockDevice:
		mode = unix.S_IFBLK
	default:
		return errors.ErrUnsupported
	}
	if mode != unix.S_IFIFO {
		dev = int(unix.Mkdev(uint32(node.Device>>32), uint32(node.Device)))
	}
	err := unix.Mknodat(d.fd, temp, mode|0o600, dev)
	if err == unix.EPERM {
		return fmt.Errorf("%w: %w", target.ErrPrivilege, err)
	}
	return err
}

// dress gives what was just made its metadata, if it still is what was made.
func (d *dir) dress(temp string, node *tree.Node) error {
	fd, err := dirfd.Open(d.fd, temp, unix.O_PATH, 0)
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(fd)
	was, err := haveOf(fd)
	if err != nil {
		return fail("stat", err)
	}
	if was.typ != node.Type {
		return errors.New("somebody else replaced it while it was being made")
	}
	was.fresh = true
	return d.apply(handle{fd: fd, path: dirfd.ProcPath(fd, "")}, node, was, node.Name)
}

func (d *dir) Link(name string, from target.Dir, old string) error {
	if err := d.check(name); err != nil {
		return err
	}
	src, ok := from.(*dir)
	if !ok {
		return fmt.Errorf("link: %w", errors.ErrUnsupported)
	}
	if err := src.check(old); err != nil {
		return err
	}
	err := unix.Linkat(src.fd, old, d.fd, name, 0)
	if err == unix.EEXIST {
		return d.relink(name, src, old)
	}
	if err != nil {
		return fail("link", err)
	}
	return nil
}

// relink puts the link in place of what has the name. Renaming one name of a file
// to another does nothing, so that case is told apart.
func (d *dir) relink(name string, src *dir, old string) error {
	var is, want unix.Statx_t
	if err := errors.Join(dirfd.Statx(d.fd, name, &is), dirfd.Statx(src.fd, old, &want)); err != nil {
		return fail("stat", err)
	}
	if dirfd.Dev(&is) == dirfd.Dev(&want) && is.Ino == want.Ino {
		return nil
	}
	if dirfd.Type(&is) == tree.Dir {
		return fmt.Errorf("link: %w", target.ErrInTheWay)
	}
	temp := ""
	err := error(unix.EEXIST)
	for i := 0; i < tries && err == unix.EEXIST; i++ {
		temp = d.s.tempName()
		err = unix.Linkat(src.fd, old, d.fd, temp, 0)
	}
	if err != nil {
		return fail("link", err)
	}
	if err := d.place(temp, name); err != nil {
		return errors.Join(err, unix.Unlinkat(d.fd, temp, 0))
	}
	return nil
}
