package dir

import (
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
)

// ParseURL returns the folder that a store URL names: file:///srv/backup, or on
// Windows file:///D:/backup.
func ParseURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("store url: %w", err)
	}
	switch {
	case u.Scheme != "file":
		return "", fmt.Errorf("store url %q: the scheme of a folder is file", raw)
	case u.Host != "" || u.User != nil:
		return "", fmt.Errorf("store url %q: a folder has no host; three slashes come before its path: file:///srv/backup", raw)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", fmt.Errorf("store url %q: a folder takes no options", raw)
	}
	path := u.Path
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/")
	}
	path = filepath.FromSlash(path)
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("store url %q: it needs an absolute path: file:///srv/backup", raw)
	}
	return filepath.Clean(path), nil
}
