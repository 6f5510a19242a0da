package restore

import (
	"bytes"
	"io"
	"maps"

	"github.com/cofferbackup/coffer/catalog/tree"
)

// sameMeta tells whether what is there has the metadata that a restore would give
// it. Change times and inode numbers cannot be restored.
func sameMeta(there, node *tree.Node) bool {
	return there.Mode == node.Mode && there.UID == node.UID && there.GID == node.GID && there.MTime == node.MTime &&
		maps.EqualFunc(there.Xattrs, node.Xattrs, bytes.Equal)
}

// sameSpecial is sameMeta for what is neither file nor directory.
func sameSpecial(there, node *tree.Node) bool {
	return there.Type == node.Type && there.Target == node.Target && there.Device == node.Device && sameMeta(there, node)
}

// zeroAt tells whether length bytes at off of a file are there and zero.
func zeroAt(f io.ReaderAt, off, length uint64) (bool, error) {
	buf := make([]byte, min(length, 256<<10))
	zero := make([]byte, len(buf))
	for length > 0 {
		n := min(length, uint64(len(buf)))
		if m, _ := f.ReadAt(buf[:n], int64(off)); uint64(m) < n || !bytes.Equal(buf[:n], zero[:n]) {
			return false, nil
		}
		off, length = off+n, length-n
	}
	return true, nil
}
