//go:build linux

package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// hostKey is where a script's host is kept.
type hostKey struct{}

// TestDays plays days of an operator with the real programs. Each script has a host
// of its own, in $DIR.
func TestDays(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			h := newHost(t, plain)
			e.Values[hostKey{}] = h
			e.Setenv("DIR", h.dir)
			e.Setenv("COFFER_SOCKET", h.path("s"))
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// agent start|stop|kill
			"agent": func(ts *testscript.TestScript, _ bool, args []string) {
				h := ts.Value(hostKey{}).(*host)
				switch args[0] {
				case "start":
					h.start()
				case "stop":
					h.stop()
				case "kill":
					h.kill()
				default:
					ts.Fatalf("agent has no verb %s", args[0])
				}
			},
			// same WANT GOT: two trees are equal
			"same": func(_ *testscript.TestScript, _ bool, args []string) { sameTree(t, args[0], args[1]) },
			// keep NAME PATTERN: the first group of what was printed last becomes $NAME
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
				if found == nil {
					ts.Fatalf("nothing matches %s", args[1])
				}
				ts.Setenv(args[0], found[1])
			},
		},
	})
}
