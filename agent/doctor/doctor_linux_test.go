package doctor_test

import (
	"context"
	"errors"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/doctor"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
	"github.com/cofferbackup/coffer/store/mem"
)

// outcomes are checks as "what: outcome".
func outcomes(checks []control.Check) string {
	var out []string
	for _, c := range checks {
		out = append(out, c.What+": "+c.Outcome)
	}
	return strings.Join(out, ", ")
}

// told checks that what is wrong says what, and what to do.
func told(t *testing.T, checks []control.Check) {
	t.Helper()
	for _, c := range checks {
		if wrong := c.Outcome == control.CheckBad || c.Outcome == control.CheckWarning; c.Says == "" || wrong != (c.Next != "") {
			t.Errorf("%+v", c)
		}
	}
}

func write(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFolder looks at state folders of all kinds.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	mode := func(m os.FileMode) func(string) error { return func(path string) error { return os.Chmod(path, m) } }
	for _, test := range []struct {
		name string
		make func(string) error
		want string
	}{
		{"good", mode(0o700), "owner and mode: good, write: good"},
		{"others", mode(0o755), "owner and mode: bad, write: good"},
		{"missing", os.Remove, "folder: bad"},
		{"file", func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) }, "folder: bad"},
	} {
		path := filepath.Join(dir, test.name)
		if err := errors.Join(os.Mkdir(path, 0o700), test.make(path)); err != nil {
			t.Fatal(err)
		}
		found := doctor.Folder(path)
		if got := outcomes(found); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %s", test.name, got)
		}
		told(t, found)
		if left, err := os.ReadDir(path); err == nil && len(left) > 0 {
			t.Errorf("%s: %q is left", test.name, left)
		}
	}
}

// TestFolderFull looks at a folder on a disk that is full, and on one that is read-only.
func TestFolderFull(t *testing.T) {
	if os.Getuid() != 0 {
		testkit.Missing(t, "root", "a disk is mounted")
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=20,mode=700", "none", dir).CombinedOutput(); err != nil {
		testkit.Missing(t, "mount", string(out))
	}
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	found := doctor.Folder(dir)
	if got := outcomes(found); got != "owner and mode: good, write: bad, room: bad, inodes: bad" {
		t.Errorf("full: %s", got)
	}
	told(t, found)
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if got := outcomes(doctor.Folder(dir)); !strings.HasPrefix(got, "owner and mode: good, write: bad") {
		t.Errorf("read-only: %s", got)
	}
}

// TestFiles looks at the config file, the socket, programs and secrets.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.Mkdir(filepath.Join(dir, "closed"), 0o700)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "closed", "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	exposed, err := net.Listen("unix", filepath.Join(open, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer exposed.Close()
	read := func(ref string) ([]byte, error) { return os.ReadFile(strings.TrimPrefix(ref, "file:")) }
	foreign := write(t, filepath.Join(dir, "foreign"), 0o755)
	wantForeign := "good"
	if os.Getuid() == 0 {
		wantForeign = "bad"
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	one := func(c control.Check) []control.Check { return []control.Check{c} }
	for name, test := range map[string]struct {
		found []control.Check
		want  string
	}{
		"config":             {one(doctor.ConfigFile(write(t, filepath.Join(dir, "a.yaml"), 0o644))), "owner and mode: good"},
		"config of others":   {one(doctor.ConfigFile(write(t, filepath.Join(dir, "b.yaml"), 0o664))), "owner and mode: bad"},
		"config gone":        {one(doctor.ConfigFile(filepath.Join(dir, "gone"))), "owner and mode: bad"},
		"socket":             {doctor.Socket(socket), "socket: good, folder: good"},
		"socket in the open": {doctor.Socket(filepath.Join(open, "s")), "socket: good, folder: bad"},
		"socket gone":        {doctor.Socket(filepath.Join(dir, "gone")), "socket: bad"},
		"no socket":          {doctor.Socket(foreign), "socket: bad"},
		"program":            {one(doctor.Program(write(t, filepath.Join(dir, "closed", "p"), 0o755))), "program: good"},
		"program of others":  {one(doctor.Program(write(t, filepath.Join(dir, "closed", "q"), 0o777))), "program: bad"},
		"replaceable":        {one(doctor.Program(write(t, filepath.Join(open, "p"), 0o755))), "program: bad"},
		"not run":            {one(doctor.Program(write(t, filepath.Join(dir, "closed", "r"), 0o644))), "program: bad"},
		"program gone":       {one(doctor.Program(filepath.Join(dir, "gone"))), "program: bad"},
		"someone's program":  {one(doctor.Program(foreign)), "program: " + wantForeign},
		"path":               {one(doctor.Source(foreign)), foreign + ": good"},
		"folder":             {one(doctor.Source(dir)), dir + ": good"},
		"empty":              {one(doctor.Source(t.TempDir())), ": warning"},
		"path gone":          {one(doctor.Source("/gone/away")), "/gone/away: bad"},
		"secret":             {one(doctor.Secret("file:"+foreign, read)), "file:" + foreign + ": good"},
		"secret gone":        {one(doctor.Secret("file:/gone/away", read)), "file:/gone/away: bad"},
		"variable gone":      {one(doctor.Secret("env:GONE", read)), "env:GONE: bad"},
	} {
		if got := outcomes(test.found); !strings.HasSuffix(got, test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		told(t, test.found)
	}
}

// TestHost: what the kernel says of clock and rights.
func TestHost(t *testing.T) {
	told(t, []control.Check{doctor.Clock(), doctor.Capabilities()})
	for _, test := range []struct {
		status string
		want   string
	}{
		{"CapEff:\t000001ffffffffff\n", control.CheckGood},
		{"CapEff:\t0000000000000004\n", control.CheckGood},
		{"CapEff:\t0000000000000000\n", control.CheckWarning},
		{"CapEff:\tnothing\n", control.CheckSkipped},
		{"", control.CheckSkipped},
	} {
		if got := doctor.JudgeCapabilities("Name: x\n"+test.status, 990); got.Outcome != test.want {
			t.Errorf("%q: %+v", test.status, got)
		}
	}
	for _, test := range []struct {
		state  int
		status int32
		err    error
		want   string
	}{{0, 0, nil, control.CheckGood}, {0, 0x40, nil, control.CheckWarning}, {5, 0, nil, control.CheckWarning}, {0, 0, errors.New("not allowed"), control.CheckSkipped}, {-1, 0, unix.EPERM, control.CheckSkipped}} {
		if got := doctor.JudgeClock("synchronised", test.state, test.status, test.err); got.Outcome != test.want {
			t.Errorf("%+v: %+v", test, got)
		}
	}
}

// lax is a store with faults that a look has to find.
type lax struct {
	*mem.Store
	put      error // instead of ErrExist; nil: it replaces
	puts     bool  // put is used
	list     error
	modified time.Time
	until    time.Time
	kept     error
}

func (s lax) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	if s.puts {
		return s.put
	}
	return s.Store.Put(ctx, key, body, opts)
}

func (s lax) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if s.list != nil {
			yield(store.Info{}, s.list)
			return
		}
		for info, err := range s.Store.List(ctx, prefix) {
			if !s.modified.IsZero() {
				info.Modified = s.modified
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

func (s lax) RetainedUntil(_ context.Context, key store.Key) (time.Time, error) {
	if strings.Contains(string(key), "/sessions/") { // nothing puts these under a lock
		return time.Time{}, nil
	}
	return s.until, s.kept
}

// TestStore looks at stores of all kinds.
func TestStore(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		st   lax
		lock bool
		want string
	}{
		"good":           {lax{}, false, "reach and list: good, written once: good, clock: good"},
		"replaces":       {lax{puts: true}, false, "reach and list: good, written once: bad, clock: good"},
		"read only":      {lax{puts: true, put: store.ErrDenied}, false, "reach and list: good, written once: warning, clock: good"},
		"full":           {lax{puts: true, put: store.ErrFull}, false, "reach and list: good, written once: bad, clock: good"},
		"away":           {lax{list: store.ErrUnavailable}, false, "reach and list: bad"},
		"no bucket":      {lax{list: store.ErrMissing}, false, "reach and list: bad"},
		"other clock":    {lax{modified: now.Add(time.Hour)}, false, "reach and list: good, written once: good, clock: warning"},
		"locked":         {lax{until: now.Add(time.Hour)}, true, "reach and list: good, written once: good, clock: good, object lock: good"},
		"not locked":     {lax{}, true, "reach and list: good, written once: good, clock: good, object lock: bad"},
		"lock over":      {lax{until: now.Add(-time.Hour)}, true, "reach and list: good, written once: good, clock: good, object lock: warning"},
		"cannot be told": {lax{kept: errors.ErrUnsupported}, true, "reach and list: good, written once: good, clock: good, object lock: bad"},
	} {
		t.Run(name, func(t *testing.T) {
			st := test.st
			st.Store = mem.New(mem.Config{})
			for _, key := range []store.Key{"vault", "items/a/points/b", "items/a/sessions/b"} {
				if err := st.Store.Put(t.Context(), key, store.Body{[]byte("sealed")}, store.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			ask := doctor.StoreAsk{Known: "vault", Now: now}
			if test.lock {
				ask.Lock = doctor.LockAsk{Under: "items/", Next: doctor.LockNext("site", "s3://host/bucket")}
			}
			found := doctor.Store(t.Context(), st, ask)
			if got := outcomes(found); got != test.want {
				t.Errorf("%s", got)
			}
			told(t, found)
			if raw, err := store.ReadAll(t.Context(), st.Store, "vault", 100); err != nil || string(raw) != "sealed" {
				t.Errorf("the vault's object is %q now, %v", raw, err)
			}
		})
	}
	empty := lax{Store: mem.New(mem.Config{})}
	if got := outcomes(doctor.Store(t.Context(), empty, doctor.StoreAsk{Known: "vault", Now: now, Lock: doctor.LockAsk{Under: "items/"}})); got != "reach and list: good, written once: skipped, clock: good, object lock: skipped" {
		t.Errorf("empty: %s", got)
	}
}

// TestReadOnlyFolder: a folder that cannot be written to is found out, though it refuses
// to replace an object; and nothing is left in one that can.
func TestReadOnlyFolder(t *testing.T) {
	if os.Getuid() != 0 {
		testkit.Missing(t, "root", "a disk is mounted")
	}
	root := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "none", root).CombinedOutput(); err != nil {
		testkit.Missing(t, "mount", string(out))
	}
	t.Cleanup(func() { exec.Command("umount", root).Run() })
	st, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []store.Key{"vault", "items/a/points/b"} {
		if err := st.Put(t.Context(), key, store.Body{[]byte("sealed")}, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ask := doctor.StoreAsk{Known: "vault", Folder: root, Backups: true, Now: time.Now()}
	const good, bad = "reach and list: good, written once: good, clock: good", "reach and list: good, written once: bad, clock: good"
	if got := outcomes(doctor.Store(t.Context(), st, ask)); got != good {
		t.Errorf("writable: %s", got)
	}
	if left, err := os.ReadDir(filepath.Join(root, ".tmp")); err != nil || len(left) > 0 {
		t.Errorf("%q is left, %v", left, err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,ro", root).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	found := doctor.Store(t.Context(), st, ask)
	if got := outcomes(found); got != bad {
		t.Errorf("read-only: %s", got)
	}
	told(t, found)
	ask.Backups = false
	if got := outcomes(doctor.Store(t.Context(), st, ask)); got != strings.Replace(bad, "bad", "warning", 1) {
		t.Errorf("read-only, to restore from: %s", got)
	}
}

// TestLockNext: what is said of a lock that does not hold names the setting.
func TestLockNext(t *testing.T) {
	for url, want := range map[string]string{"file:///srv/backup": "CAP_LINUX_IMMUTABLE", "s3://host/bucket": "s3:PutObjectRetention"} {
		if next := doctor.LockNext("site", url); !strings.Contains(next, want) || !strings.Contains(next, "vaults.site.lock") || !strings.Contains(next, "vaults.site.store") {
			t.Errorf("%s: %s", url, next)
		}
	}
}

// TestRun: looks go on at once, their findings stay in order, and one that hangs holds up
// nobody for ever.
func TestRun(t *testing.T) {
	hanging := make(chan struct{})
	defer close(hanging)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	meet := make(chan struct{})
	found := doctor.Run(ctx, []doctor.Look{
		{Subject: "dead disk", What: "read", Try: func(context.Context) []control.Check { <-hanging; return nil }},
		{Subject: "one", Try: func(context.Context) []control.Check {
			meet <- struct{}{}
			return []control.Check{doctor.Good("a", "x")}
		}},
		{Subject: "two", Try: func(context.Context) []control.Check {
			<-meet
			return []control.Check{doctor.Good("b", "x"), doctor.Bad("c", "mend it", "y")}
		}},
	})
	var got []string
	for _, c := range found {
		got = append(got, c.Subject+" "+c.What+" "+c.Outcome)
	}
	if want := "dead disk read bad; one a good; two b good; two c bad"; strings.Join(got, "; ") != want {
		t.Errorf("%q", got)
	}
	told(t, found)
}
