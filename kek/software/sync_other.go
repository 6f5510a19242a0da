//go:build !unix

package software

// syncDir has nothing to do: folders are journalled and cannot be synced.
func syncDir(string) error { return nil }
