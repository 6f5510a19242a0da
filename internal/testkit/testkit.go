// Package testkit starts the real servers that tests run against, on loopback or
// private sockets, and stops them when the test ends.
package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// Missing ends the test because a part is not on this machine: a failure where
// everything must be there (CI, make test), a skip on a plain laptop.
func Missing(t testing.TB, what, how string) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("COFFER_TEST_ALL") != "" {
		t.Fatalf("%s is missing: %s", what, how)
	}
	t.Skipf("%s is missing: %s", what, how)
}

// Part says which real part a test runs against, for the count at the end of a
// test run.
func Part(t testing.TB, name string) {
	t.Helper()
	t.Attr("part", name)
}

// Tool returns the path of a program that make built into the tool cache.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(cache(t), "bin", name)
	if _, err := os.Stat(path); err != nil {
		Missing(t, name, "make tools builds it")
	}
	return path
}

// cache is the folder of what is made once.
func cache(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("COFFER_TOOLS"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "coffer-tools")
}
