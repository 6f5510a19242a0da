//go:build linux

package main_test

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

// TestUnreadableFile has a file that the agent may not read. The rest is kept, the
// exit code says so, and the job names the file.
func TestUnreadableFile(t *testing.T) {
	needRoot(t)
	h := newHost(t, plain)
	h.as = nobody(t, h)
	furnish(t, h.path("docs"))
	must(t, os.WriteFile(h.path("docs/shadow"), []byte("secret"), 0o600)) // root's, as is docs/closed
	must(t, os.Chown(h.path("docs/empty"), nobodyID, nobodyID))
	must(t, os.Chown(h.path("docs/letter.txt"), nobodyID, nobodyID))
	h.ready()
	h.coffer("backup", "docs").says(control.ExitSkipped, "2 entries skipped", "coffer job show 1")
	h.coffer("job", "show", "1").says(control.ExitDone, h.path("docs/shadow"), h.path("docs/closed"), "permission denied")
	j := h.job(1)
	if j.State != control.JobDone || len(j.Skips) != 2 || j.Result.Point.Stats.Skipped != 2 {
		t.Errorf("the job says %+v", j)
	}
	if got := h.coffer("cat", "docs", h.path("docs/letter.txt")); got.code != 0 || got.out != "Dear vault,\n" {
		t.Errorf("of what could be read it kept %q", got.out)
	}
}

// TestNothingToKeep has an item whose folder is not there.
func TestNothingToKeep(t *testing.T) {
	h := newHost(t, plain)
	h.ready()
	must(t, os.Remove(h.path("docs")))
	h.coffer("backup", "docs").says(control.ExitFailed, h.path("docs"), "no such file")
	if got := h.points("docs"); len(got) != 0 {
		t.Errorf("points %q of nothing", got)
	}
}

// TestStdin keeps a stream whole, or not at all where its sender dies.
func TestStdin(t *testing.T) {
	h := newHost(t, plain)
	h.ready()
	dump := slices.Repeat([]byte("insert into t values (1);\n"), 200_000)
	j := fromJSON[control.Job](h.run(dump, "coffer", "backup", "pipe", "--stdin", "--name", "all.sql", "--json").done())
	if got := h.coffer("cat", "pipe@"+j.Result.Point.ID, "all.sql").done(); got.out != string(dump) {
		t.Errorf("%d bytes came back of %d", len(got.out), len(dump))
	}

	before, stored := h.points("pipe"), packs(h.path("vault"))
	sender := h.command(context.Background(), "coffer", "backup", "pipe", "--stdin", "--name", "all.sql")
	in, err := sender.StdinPipe()
	must(t, err)
	must(t, sender.Start())
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(in, rand.NewChaCha8([32]byte{1})) // without an end
		written <- err
	}()
	var id int64
	until(t, "the agent has some of the stream", func() bool {
		id = h.newest()
		return h.job(id).State == control.JobRunning && packs(h.path("vault")) > stored
	})
	must(t, sender.Process.Kill())
	<-written
	_ = sender.Wait() // it was killed
	until(t, "the job ends", func() bool { return h.job(id).State.Ended() })
	if j := h.job(id); j.State == control.JobDone {
		t.Errorf("half a stream is %s", j.State)
	}
	if got := h.points("pipe"); !slices.Equal(got, before) {
		t.Errorf("half a stream made a point: %q", got)
	}
	h.coffer("backup", "pipe").fails(control.ExitFailed, "--stdin") // it has no command
	h.run([]byte("again"), "coffer", "backup", "pipe", "--stdin").done()
}

// newest returns the number of the job that was asked for last.
func (h *host) newest() int64 {
	h.Helper()
	return fromJSON[[]control.Job](h.coffer("job", "list", "--limit", "1", "--json").done())[0].ID
}

// commands is plain with items whose data is a command's output.
const commands = `
agent: {state: $DIR/state, socket: $DIR/s}
keys:
  main: {uri: "file://$DIR/kek.pem"}
vaults:
  local: {store: "file://$DIR/vault", keys: [main]}
items:
  good:   {vault: local, stream: {name: out, command: [/bin/echo, hello]}}
  breaks: {vault: local, stream: {name: out, command: [/bin/sh, -c, "echo half; echo no room >&2; exit 7"]}}
  slow:   {vault: local, stream: {name: out, command: [/bin/sh, -c, "echo begun; touch $DIR/begun; exec sleep 1000"]}}
  nobody: {vault: local, stream: {name: out, command: [/nonexistent/dump]}}
`

// TestCommand lets the exit code of a command decide, and its errors be heard.
func TestCommand(t *testing.T) {
	h := newHost(t, commands)
	h.ready()
	h.coffer("backup", "good").done()
	if got := h.coffer("cat", "good", "out").done(); got.out != "hello\n" {
		t.Errorf("kept %q", got.out)
	}
	h.coffer("backup", "breaks").says(control.ExitFailed, "exit code 7", "no room")
	h.coffer("backup", "nobody").says(control.ExitFailed, "/nonexistent/dump")
	for _, item := range []string{"breaks", "nobody"} {
		if got := h.points(item); len(got) != 0 {
			t.Errorf("%s has points %q", item, got)
		}
	}
}

// TestCancel cancels a backup that would not end, and one that waits behind it.
func TestCancel(t *testing.T) {
	h := newHost(t, commands)
	h.ready()
	running := h.detached("backup", "slow")
	until(t, "the command runs", func() bool { return exists(h.path("begun")) })
	queued := h.detached("backup", "slow")
	for _, id := range []int64{queued, running} {
		h.coffer("job", "cancel", itoa(int(id))).done()
		h.coffer("job", "watch", itoa(int(id))).says(control.ExitFailed, "cancelled")
		if j := h.job(id); j.State != control.JobCancelled {
			t.Errorf("job %d is %s", id, j.State)
		}
	}
	if got := h.points("slow"); len(got) != 0 {
		t.Errorf("points %q of a backup that was cancelled", got)
	}
	h.coffer("job", "cancel", "99").fails(control.ExitFailed, "job 99")
	h.coffer("backup", "good").done()
}

// TestMistakes are faults of the caller.
func TestMistakes(t *testing.T) {
	h := newHost(t, plain)
	furnish(t, h.path("docs"))
	h.ready()
	h.backup("docs")
	h.coffer("backup").fails(control.ExitUsage)
	h.coffer("backup", "dosc").fails(control.ExitFailed, `"dosc"`)
	h.coffer("restore", "docs@1999-01-01", h.path("back")).fails(control.ExitFailed, "1999-01-01")
	h.coffer("restore", "docs", h.path("back"), "--path", "/nowhere").fails(control.ExitFailed, "no such path in the point")
	h.coffer("cat", "docs", h.path("docs/many")).fails(control.ExitFailed)
	h.coffer("vault", "create", "local").fails(control.ExitFailed, "made already")
	h.coffer("key", "create", "main").fails(control.ExitFailed, "kek.pem")
	h.run(nil, "cofferd", "rescue", "ls").says(control.ExitUsage, "recovery sheet")
	h.run(nil, "cofferd", "launch").says(control.ExitUsage, `"launch"`)
	h.write("bad.yaml", strings.ReplaceAll(h.read("coffer.yaml"), "paths:", "pahts:"))
	h.coffer("config", "check", h.path("bad.yaml")).says(control.ExitFailed, "pahts", "paths", "bad.yaml:")
}

// TestBadConfig starts an agent with a configuration that it must refuse.
func TestBadConfig(t *testing.T) {
	for name, tt := range map[string]struct{ config, says string }{
		"unknown field": {strings.ReplaceAll(plain, "paths:", "pahts:"), "pahts"},
		"no vault":      {strings.ReplaceAll(plain, "{vault: local, stream", "{vault: locla, stream"), "locla"},
		"two sources":   {strings.ReplaceAll(plain, "stream: {name: dump}", "stream: {name: dump}, files: {paths: [/etc]}"), "stream"},
		"not YAML":      {plain + "\n  }{", "coffer.yaml:"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.config)
			r := h.run(nil, "cofferd", "run", "--config", h.path("coffer.yaml"))
			r.says(control.ExitFailed, tt.says, "coffer.yaml:")
			if exists(h.path("state")) || exists(h.path("s")) {
				t.Error("it began to work with it")
			}
		})
	}
	h := newHost(t, plain)
	h.run(nil, "cofferd", "run", "--config", h.path("none.yaml")).says(control.ExitFailed, "none.yaml")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
