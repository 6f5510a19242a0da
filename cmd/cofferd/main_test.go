//go:build linux

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	cofferd "github.com/cofferbackup/coffer/cmd/cofferd"
)

// bin is the folder of the programs under test. It is written before the tests
// begin and never after.
var bin string

// aheadOf is the name of a variable that has this program be cofferd, and says by how
// much its clock is ahead.
const aheadOf = "COFFER_TEST_AHEAD"

// TestMain builds both programs as make build does. Tests run them as operators do,
// with folders, sockets and stores of their own.
func TestMain(m *testing.M) {
	if ahead, err := time.ParseDuration(os.Getenv(aheadOf)); err == nil {
		os.Exit(cofferd.Execute(func() time.Time { return time.Now().Add(ahead) }))
	}
	os.Exit(func() int {
		dir, err := build()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		return m.Run()
	}())
}

// build returns a folder with cofferd and coffer that every user may run.
func build() (string, error) {
	dir, err := os.MkdirTemp("", "coffer-bin")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), ".", "../coffer")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}
