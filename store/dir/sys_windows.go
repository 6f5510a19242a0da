package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"

	"github.com/cofferbackup/coffer/store"
)

// classify gives an error of the operating system its sentinel.
func classify(err error) error {
	switch {
	case errors.Is(err, windows.ERROR_DISK_FULL), errors.Is(err, windows.ERROR_HANDLE_DISK_FULL),
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case errors.Is(err, windows.ERROR_WRITE_PROTECT), errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return fmt.Errorf("%w: %w", store.ErrDenied, err)
	case errors.Is(err, windows.ERROR_SHARING_VIOLATION), errors.Is(err, windows.ERROR_NETNAME_DELETED),
		errors.Is(err, windows.ERROR_SEM_TIMEOUT):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// isAbsent tells whether err says that there is no such file.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, windows.ERROR_DIRECTORY)
}

// syncDir does nothing: NTFS keeps the order of changes to its folders.
func syncDir(string) error { return nil }

// lockNew does nothing: Windows removes no file that is open.
func lockNew(*os.File) bool { return true }

// removeStale removes a file that nobody has open.
func removeStale(path string) { _ = os.Remove(path) }
