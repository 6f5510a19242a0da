package files

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
)

func (d *dir) Stat(_ context.Context, name string, prev *tree.Node) (*tree.Node, bool, error) {
	st := &d.st
	d.last = nil
	follow := d.place.follows(name)
	var err error
	if follow {
		err = dirfd.StatxFollow(d.fd, name, st)
	} else {
		err = dirfd.Statx(d.fd, name, st)
	}
	if err != nil {
		return nil, false, failed("stat", err)
	}
	typ := dirfd.Type(st)
	switch limit := d.s.cfg.MaxFileSize; {
	case typ == 0:
		d.lacks = true
		d.s.note(d.path(name), isSocket)
		return nil, false, source.ErrSkipped
	case typ == tree.File && limit > 0 && st.Size > limit:
		d.lacks = true
		d.s.note(d.path(name), overLimit(st.Size, limit))
		return nil, false, source.ErrSkipped
	}
	if !d.owned || d.uid != st.Uid || d.gid != st.Gid {
		d.uid, d.gid, d.owned = st.Uid, st.Gid, true
		d.s.owners.add(st.Uid, st.Gid)
	}
	if prev != nil && unchanged(prev, st, typ) {
		return relink(prev, st), true, nil
	}
	node, err := d.describe(name, follow)
	return node, false, err
}

// unchanged tells whether st is what prev was. A node without a ctime was racy.
func unchanged(prev *tree.Node, st *unix.Statx_t, typ tree.Type) bool {
	return prev.Type == typ && typ != tree.Dir &&
		prev.Inode == st.Ino &&
		prev.CTime == dirfd.Time(st.Ctime) && prev.CTime != tree.Time{} &&
		prev.MTime == dirfd.Time(st.Mtime) &&
		(typ != tree.File || prev.Size == st.Size) &&
		!prev.Changing
}

// relink returns prev, or a copy if its Link is not what it would be today: file
// systems get their numbers when they are mounted, and all names of a file must
// have one.
func relink(prev *tree.Node, st *unix.Statx_t) *tree.Node {
	dev := dirfd.Dev(st)
	if st.Nlink <= 1 && prev.Link == nil ||
		st.Nlink > 1 && prev.Link != nil && prev.Link.Dev == dev && prev.Link.Inode == st.Ino {
		return prev
	}
	node := *prev
	node.Link = nil
	if st.Nlink > 1 {
		node.Link = &tree.Inode{Dev: dev, Inode: st.Ino}
	}
	return &node
}

// describe makes a node of d.st and of what else there is about name.
func (d *dir) describe(name string, follow bool) (*tree.Node, error) {
	node := dirfd.Node(&d.st, name)
	node.Partial = node.Type == tree.Dir && d.partial(name, &d.st)
	var err error
	if node.Type == tree.Symlink {
		if node.Target, err = dirfd.Readlink(d.fd, name); err != nil {
			return nil, failed("read symlink", err)
		}
	}
	if follow {
		node.Xattrs, err = xattrsBehind(d.fd, name)
	} else {
		node.Xattrs, err = dirfd.Xattrs(d.fd, name)
	}
	if err != nil {
		return nil, failed("read extended attributes", err)
	}
	if node.Type != tree.Dir && d.s.racy(node.MTime, node.CTime) {
		node.CTime = tree.Time{}
	}
	d.last = node
	return node, nil
}

// xattrsBehind returns the attributes of the directory that name leads to.
func xattrsBehind(dir int, name string) (map[string][]byte, error) {
	fd, err := dirfd.OpenFollow(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES {
		return nil, nil // passing through it is all that is permitted
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return dirfd.XattrsFd(fd)
}
