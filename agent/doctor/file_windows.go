package doctor

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/windows"
)

const hasModes = false

// room returns the free bytes of a folder's disk.
func room(path string) (bytes, nodes uint64, err error) {
	name, err := windows.UTF16PtrFromString(path)
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(name, &bytes, nil, nil)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look for room in %s: %w", path, err)
	}
	return bytes, unlimited, nil
}

func writable(string) error { return nil } // room says it

func foreign(fs.FileInfo) (uint32, bool) { return 0, false }

func ownedBy(fs.FileInfo) string { return "" }

func runnable(fs.FileInfo) bool { return true }
