//go:build unix

package proof

import "golang.org/x/sys/unix"

// space returns how many bytes a folder has room for.
func space(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
