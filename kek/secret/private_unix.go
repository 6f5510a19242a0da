//go:build unix

package secret

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// nonblocking keeps a FIFO from holding up whoever opens it.
const nonblocking = syscall.O_NONBLOCK

// checkPrivate refuses a file that others can read or write, or that a user other
// than us and root could replace.
func checkPrivate(path string, info fs.FileInfo) error {
	others := fs.FileMode(0o077)
	if isCredential(path) {
		others = 0o037
	}
	if mode := info.Mode().Perm(); mode&others != 0 {
		return &ExposedError{path, fmt.Sprintf("has mode %04o, so others can reach it: chmod 600 %s", mode, path)}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return &ExposedError{path, "has an owner that cannot be told"}
	}
	if us := os.Geteuid(); stat.Uid != 0 && int(stat.Uid) != us {
		return &ExposedError{path, fmt.Sprintf("belongs to uid %d: chown it to uid %d or root", stat.Uid, us)}
	}
	return nil
}

// isCredential reports whether the file is one that systemd lays out for this service
// alone (systemd.exec(5), LoadCredential). Where the service is not root it may read
// the file by an access control list, whose mask the mode shows as the group's.
func isCredential(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return filepath.IsAbs(dir) && filepath.Dir(path) == filepath.Clean(dir)
}
