package files

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/internal/dirfd"
)

// The attributes that are POSIX ACLs.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	aclPrefix  = "system.posix_acl_"
)

// handle is an open file or directory. If it was opened with O_PATH, calls that
// take no such descriptor reach it through path.
type handle struct {
	fd   int
	path string
}

// have is what an entry is before it gets its metadata.
type have struct {
	typ      tree.Type
	uid, gid uint32
	mode     uint32
	fresh    bool // just made: no attributes of its own, a time that is wrong
}

func haveOf(fd int) (have, error) {
	var st unix.Statx_t
	if err := dirfd.StatxFd(fd, &st); err != nil {
		return have{}, err
	}
	return have{typ: dirfd.Type(&st), uid: st.Uid, gid: st.Gid, mode: uint32(st.Mode) & 0o7777}, nil
}

// apply gives an entry its metadata, in an order in which no step undoes or
// forbids another: a new owner clears the set-id bits and capabilities, a mode may
// take away the right to set attributes and changes the ACL's mask, and everything
// changes the times. name is for reports, "" for d itself.
func (d *dir) apply(h handle, node *tree.Node, was have, name string) error {
	mode, err := d.chown(h, node, &was, name)
	if err != nil {
		return err
	}
	if len(node.Xattrs) > 0 || !was.fresh {
		if err := d.setXattrs(h, node, was, name); err != nil {
			return err
		}
	}
	acl := len(node.Xattrs) > 0 || !was.fresh || d.inherits
	if acl {
		if err := removeACLs(h, node); err != nil {
			return err
		}
	}
	if node.Type != tree.Symlink && mode != was.mode {
		if err := h.chmod(mode); err != nil {
			return fail("set mode", err)
		}
	}
	if acl {
		if err := d.setACLs(h, node, mode, name); err != nil {
			return err
		}
	}
	if err := h.setTime(node.MTime); err != nil {
		return fail("set time", err)
	}
	return nil
}

// unknownMode is what no mode is equal to.
const unknownMode = ^uint32(0)

// chown gives the entry its owner as far as that is permitted and returns the mode
// that it may have then.
func (d *dir) chown(h handle, node *tree.Node, was *have, name string) (uint32, error) {
	uid, gid := d.s.users.toHere(node.UID), d.s.groups.toHere(node.GID)
	mode := node.Mode
	if uid == was.uid && gid == was.gid {
		return mode, nil
	}
	was.mode = unknownMode // a new owner clears the set-id bits
	err := h.chown(uid, gid)
	if err == nil {
		return mode, nil
	}
	if !notPermitted(err) {
		return 0, fail("set owner", err)
	}
	d.lack(name, fmt.Sprintf("owner %d:%d: %v", uid, gid, err))
	if uid != was.uid {
		mode &^= unix.S_ISUID
	}
	// A process may give its files to any of its own groups.
	if gid != was.gid && h.chown(nobody, gid) != nil {
		mode &^= unix.S_ISGID
	}
	return mode, nil
}

func notPermitted(err error) bool {
	return err == unix.EPERM || err == unix.EINVAL || err == unix.EOPNOTSUPP // EINVAL: no such id in this user namespace
}

func (h handle) chown(uid, gid uint32) error {
	return unix.Fchownat(h.fd, "", int(int32(uid)), int(int32(gid)), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

func (h handle) chmod(mode uint32) error {
	if h.path == "" {
		return unix.Fchmod(h.fd, mode)
	}
	return unix.Chmod(h.path, mode)
}

// setTime sets the modification time and leaves the access time.
func (h handle) setTime(t tree.Time) error {
	mtime, err := unix.TimeToTimespec(time.Unix(t.Sec, int64(t.Nsec)))
	if err != nil {
		return err
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	if h.path == "" {
		return dirfd.SetTimes(h.fd, &times)
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, h.path, times[:], 0)
}

func (h handle) setXattr(name string, value []byte) error {
	if h.path == "" {
		return unix.Fsetxattr(h.fd, name, value, 0)
	}
	return unix.Setxattr(h.path, name, value, 0)
}

func (h handle) removeXattr(name string) error {
	if h.path == "" {
		return unix.Fremovexattr(h.fd, name)
	}
	return unix.Removexattr(h.path, name)
}

// setXattrs sets all attributes but ACLs, and removes those of the user's and the
// capabilities that the node has not.
func (d *dir) setXattrs(h handle, node *tree.Node, was have, name string) error {
	var old map[string][]byte
	if !was.fresh {
		var err error
		if old, err = h.xattrs(); err != nil {
			return fail("read extended attributes", err)
		}
	}
	for attr := range old {
		if _, ok := node.Xattrs[attr]; ok || !strings.HasPrefix(attr, "user.") && attr != "security.capability" {
			continue
		}
		if err := h.removeXattr(attr); err != nil && err != unix.ENODATA {
			return fail("remove extended attribute "+attr, err)
		}
	}
	for attr, value := range node.Xattrs {
		if strings.HasPrefix(attr, aclPrefix) {
			continue
		}
		if have, ok := old[attr]; ok && string(have) == string(value) {
			continue
		}
		if _, err := d.setXattr(h, attr, value, name); err != nil {
			return err
		}
	}
	return nil
}

func (h handle) xattrs() (map[string][]byte, error) {
	if h.path == "" {
		return dirfd.XattrsFd(h.fd)
	}
	return dirfd.XattrsPath(h.path)
}

// setXattr reports an attribute that cannot be had here and goes on.
func (d *dir) setXattr(h handle, attr string, value []byte, name string) (done bool, err error) {
	switch err := h.setXattr(attr, value); err {
	case nil:
		return true, nil
	case unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSPC, unix.EDQUOT, unix.E2BIG, unix.ERANGE:
		d.lack(name, fmt.Sprintf("attribute %s: %v", attr, err))
		return false, nil
	default:
		return false, fail("set extended attribute "+attr, err)
	}
}

// removeACLs removes the ACLs that the node has not, those that a new entry
// inherited among them.
func removeACLs(h handle, node *tree.Node) error {
	for _, attr := range []string{aclAccess, aclDefault} {
		if _, ok := node.Xattrs[attr]; ok || attr == aclDefault && node.Type != tree.Dir || node.Type == tree.Symlink {
			continue
		}
		switch err := h.removeXattr(attr); err {
		case nil, unix.ENODATA, unix.EOPNOTSUPP, unix.EINVAL:
		default:
			return fail("remove ACL", err)
		}
	}
	return nil
}

// setACLs sets the ACLs that the node has. The group bits of a mode beside an ACL
// are its mask, so without the ACL they would permit the group too much.
func (d *dir) setACLs(h handle, node *tree.Node, mode uint32, name string) error {
	for _, attr := range []string{aclAccess, aclDefault} {
		value, ok := node.Xattrs[attr]
		if !ok {
			continue
		}
		done, err := d.setXattr(h, attr, value, name)
		if err == nil && !done && attr == aclAccess {
			err = h.chmod(mode &^ 0o070)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
