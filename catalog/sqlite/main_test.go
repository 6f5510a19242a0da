//go:build linux

package sqlite_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/cofferbackup/coffer/catalog/sqlite"
)

var (
	discard = slog.New(slog.DiscardHandler)
	ctx     = context.Background()
)

// What TestMain does instead of running the tests.
const (
	holdEnv = "COFFER_TEST_INDEX_HOLD" // open the index and close it
	fillEnv = "COFFER_TEST_INDEX_FILL" // add to it until killed
)

// TestMain also is the process that tests start to measure or to kill.
func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(scaleEnv) != "":
		var n int
		if n, err = strconv.Atoi(os.Getenv(scaleEnv)); err == nil {
			err = scaleMain(os.Args[1], n)
		}
	case os.Getenv(holdEnv) != "":
		var x *sqlite.Index
		if x, err = sqlite.Open(ctx, sqlite.Config{Path: os.Getenv(holdEnv), Logger: discard}); err == nil {
			err = x.Close()
		}
	case os.Getenv(fillEnv) != "":
		err = fillMain(os.Getenv(fillEnv))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is this program with a variable set.
func child(t testing.TB, name, value string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), name+"="+value)
	return cmd
}

func contains(out []byte, s string) bool { return bytes.Contains(out, []byte(s)) }
