//go:build unix

package escrow

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// nonblocking keeps a FIFO from holding up whoever opens it.
const nonblocking = syscall.O_NONBLOCK

// exposed says what to do if others could replace the key, or nothing.
func exposed(info fs.FileInfo) string {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Sprintf("it has mode %04o; chmod 644", mode)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if us := os.Geteuid(); ok && stat.Uid != 0 && int(stat.Uid) != us {
		return fmt.Sprintf("it belongs to uid %d; chown it to root", stat.Uid)
	}
	return ""
}
