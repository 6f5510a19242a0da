package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/controltest"
)

var now = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// TestMain runs coffer itself where a script says so: with a fixed clock, and
// without waiting for agents that will not start.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"coffer": func() {
			soft, hard, stop := interrupts()
			code := run(soft, &env{
				args: os.Args[1:], in: os.Stdin, out: os.Stdout, err: os.Stderr,
				getenv: os.Getenv, now: func() time.Time { return now }, version: "0.1.0", hard: hard,
			})
			stop()
			os.Exit(code)
		},
	})
}

// TestScripts plays what operators do against an agent that answers from a script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("COFFER_UPDATE_SCRIPTS") != "", // then read the diff
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"code": exitCode},
		Setup: func(e *testscript.Env) error {
			serve(t, e, "s", world(), "0.1.0", nil)
			serve(t, e, "other", world(), "0.2.0", nil)
			serve(t, e, "closed", world(), "0.1.0", func(control.Peer) control.Role { return control.RoleNone })
			serve(t, e, "viewer", world(), "0.1.0", func(control.Peer) control.Role { return control.RoleViewer })
			serve(t, e, "sick", ill(), "0.1.0", nil)
			serve(t, e, "crowded", crowded(), "0.1.0", nil)
			serve(t, e, "custody", custody(), "0.1.0", nil)
			serve(t, e, "kept", kept(), "0.1.0", nil)
			serve(t, e, "many", many(20), "0.1.0", nil)
			serve(t, e, "some", some(20), "0.1.0", nil)
			serve(t, e, "empty", &controltest.Backend{Now: now, Host: "web2"}, "0.1.0", nil)
			e.Setenv("CALLER", strconv.Itoa(os.Geteuid()))
			e.Setenv("COFFER_SOCKET", filepath.Join(e.WorkDir, "s"))
			l, err := net.Listen("unix", filepath.Join(e.WorkDir, "stale"))
			if err != nil {
				return err
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			return l.Close()
		},
	})
}

// exitCode is "code N program args...": the program must exit with N.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// serve starts an agent on a socket of the script's folder.
func serve(t *testing.T, e *testscript.Env, name string, b control.Backend, version string, role func(control.Peer) control.Role) {
	t.Helper()
	l, err := control.Listen(t.Context(), filepath.Join(e.WorkDir, name), control.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if role == nil {
		role = control.Access{UID: uint32(os.Geteuid())}.Role
	}
	srv := control.NewServer(control.ServerConfig{Backend: b, Logger: slog.New(slog.DiscardHandler), Role: role, Version: version})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, l) }()
	e.Defer(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// world is an agent with two vaults, three items and some history.
func world() *controltest.Backend {
	main := control.Key{
		Name: "main", URI: "pkcs11:token=backup;object=coffer-kek", Provider: "pkcs11", Version: "v3", Bits: 3072,
		Algorithm: "RSA-OAEP-256", Fingerprint: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	}
	escrow := control.Key{
		Name: "escrow", URI: "file:///etc/coffer/escrow.pem", Provider: "software",
		Error: &control.Error{Code: control.CodeFailed, Message: "file is readable by others", Next: "chmod 0600 /etc/coffer/escrow.pem"},
	}
	point := control.Point{
		ID: "2026-11-22T02:00:03Z-k3f9", Item: "etc", Vault: "site", Time: now.Add(-7 * time.Hour), Host: "web1", Kind: "files",
		Roots: []string{"/etc"}, Stats: control.PointStats{
			Files: 18204, Dirs: 1200, SourceBytes: 1288490189, ReadBytes: 20 << 20, NewBytes: 3250586, StoredBytes: 1258291,
			Changed: 214, Seconds: 2.94,
		},
	}
	older := point
	older.ID, older.Time, older.Tags = "2026-09-02T02:00:00Z-a1b2", time.Date(2026, 9, 2, 2, 0, 0, 0, time.UTC), []string{"before-upgrade"}
	older.Stats.Skipped = 2
	return &controltest.Backend{
		Now: now, Host: "web1", KeyList: []control.Key{main, escrow},
		VaultList: []control.Vault{
			{
				Name: "site", ID: "vjx4k2", Store: "s3://minio.example:9000/backups", Keys: []control.Key{main, escrow},
				State: control.StateAccessible, Checked: now.Add(-40 * time.Second), Created: now.Add(-80 * 24 * time.Hour),
			},
			{Name: "new", Store: "file:///srv/backup", Keys: []control.Key{main}, State: control.StateAbsent},
		},
		ItemList: []control.Item{
			{
				Name: "etc", Vault: "site", Kind: "files", Source: "/etc", LastPoint: point.ID, LastGood: point.Time,
				Points: 42, SourceBytes: 1288490189, StoredBytes: 310 << 20,
			},
			{Name: "db", Vault: "site", Kind: "stream", Source: "standard input"},
			{Name: "locked", Vault: "site", Kind: "files", Source: "/home"},
			{Name: "slow", Vault: "site", Kind: "files", Source: "/srv"},
		},
		PointList: []control.Point{older, point},
		Files: []control.Entry{
			{Path: "/etc", Type: "dir", Mode: 0o755, User: "root", Group: "root", MTime: now},
			{Path: "/etc/fstab", Type: "file", Mode: 0o4644, Size: 1234, MTime: now},
			{Path: "/etc/l", Type: "symlink", Mode: 0o777, MTime: now, Target: "../x\n"},
			{Path: "/etc/\x1b[31mred\xff\u202e", Type: "file", Mode: 0o1600, MTime: now, Changing: true},
		},
		Differ: []control.DiffEntry{
			{Path: "/etc/new", Change: control.Added, Type: "file"},
			{Path: "/etc/old", Change: control.Removed, Type: "file"},
			{Path: "/etc/passwd", Change: control.Changed, Type: "file", What: []string{"content", "mtime"}, OldSize: 1024, NewSize: 2048},
			{Path: "/etc/mode", Change: control.Changed, Type: "file", What: []string{"mode"}, OldSize: 5, NewSize: 5},
		},
		Bytes:  map[string][]byte{"/etc/fstab": []byte("UUID=1 / ext4\n"), "/etc/broken": []byte("half")},
		Breaks: map[string]error{"/etc/broken": &control.Error{Code: control.CodeDamaged, Message: "pack abc does not verify", Next: "coffer verify etc"}},
		Config: control.ConfigReport{Problems: []control.ConfigProblem{
			{Line: 3, Column: 7, Field: "items.etc", Message: `unknown field "pahts"`, Next: "did you mean paths?"},
		}},
		Script: func(kind, item string) controltest.Play { return play(kind, item, point) },
	}
}

// ill is an agent with something of everything that can be wrong.
func ill() *working {
	b := world()
	b.Problems = []control.Problem{
		{Subject: "vault site", Message: "no key opens it: token not present", Next: "put the token back"},
		{Subject: "item etc", Message: "no good point for 3 d"},
	}
	b.VaultList = []control.Vault{
		{Name: "a", Store: "file:///a", State: control.StateInaccessible, Error: &control.Error{Message: "token not present", Next: "put the token back"}},
		{Name: "b", Store: "file:///b", State: control.StateRevalidation},
		{Name: "c", Store: "file:///c", State: control.StateUnknown},
	}
	b.ItemList = nil
	return &working{b, []control.Job{
		{ID: 7, Kind: "backup", Item: "etc", State: control.JobRunning, Queued: now.Add(-time.Hour), Started: now.Add(-time.Minute),
			Progress: control.Progress{Bytes: 25, BytesTotal: 100, Skipped: 1}},
		{ID: 8, Kind: "verify", State: control.JobQueued, Queued: now.Add(-time.Minute)},
	}}
}

// crowded is an agent of which two jobs run and many wait.
func crowded() *working {
	b := &controltest.Backend{Now: now, Host: "web2"}
	var jobs []control.Job
	for i := 40; i > 0; i-- { // the newest first, as agents tell them
		j := control.Job{ID: int64(i), Kind: "backup", Item: fmt.Sprint("host", i), State: control.JobQueued, Queued: now.Add(-time.Hour)}
		if i == 1 || i == 30 {
			j.State, j.Started = control.JobRunning, now.Add(-time.Minute)
		}
		jobs = append(jobs, j)
	}
	return &working{b, jobs}
}

// working has jobs that never end.
type working struct {
	*controltest.Backend
	jobs []control.Job
}

func (w *working) Status(ctx context.Context) (control.Status, error) {
	st, err := w.Backend.Status(ctx)
	st.Jobs = w.jobs
	return st, err
}

// play is what happens in the world's jobs.
func play(kind, item string, point control.Point) controltest.Play {
	run := controltest.Play{Step: 4 * time.Second, End: control.Job{State: control.JobDone}}
	at := func(done int64) control.Event {
		return control.Event{Progress: &control.Progress{Phase: "reading", Bytes: done << 20, BytesTotal: 1200 << 20, Entries: done}}
	}
	point.Item = item
	switch {
	case item == "locked":
		run.End = control.Job{State: control.JobFailed, Error: &control.Error{
			Code: control.CodeKeysInaccessible, Message: "a key that this needs does not answer",
			Needs: []string{"main v3: token not present"}, Next: "put the token back",
		}}
	case item == "slow" || item == "db":
		run.Waits = true
		run.End.Result = &control.JobResult{Point: &point}
		run.Events = []control.Event{at(0)}
	case kind == control.KindBackup:
		run.Events = []control.Event{at(0), at(400), at(800), {Note: &control.Note{Level: "warn", Message: "/etc/x\x1b vanished"}}, at(1200)}
		run.End.Result = &control.JobResult{Point: &point}
		run.End.Progress.Skipped = 2
		run.End.Skips = []control.Skip{{Path: "/etc/shadow", Reason: "permission denied"}}
	case kind == control.KindRestore:
		run.End.Point = point.ID
		run.End.Result = &control.JobResult{Restore: &control.RestoreResult{
			Target: "/srv/x", Files: 100, Bytes: 1 << 20, Unchanged: 90, Kept: 2, Deleted: 3, WrittenBytes: 4096, Seconds: 61,
		}}
	case kind == control.KindVerify && item == "":
		run.End.Result = &control.JobResult{Verify: &control.VerifyResult{Points: 3, Objects: 120, Files: 40000, ReadBytes: 5 << 30, Seconds: 3700}}
	case kind == control.KindVerify:
		run.End = control.Job{State: control.JobFailed, Error: &control.Error{
			Code: control.CodeDamaged, Message: "1 object is damaged", Next: "see docs/runbook.md",
		}}
	}
	return run
}
