//go:build linux

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/testkit"
)

// one is a configuration with one item, a policy and metrics.
var one = strings.NewReplacer("agent: {", `agent: {metrics: "$DIR/metrics", `,
	"  pipe: {vault: local, stream: {name: dump}}\n", "policies:\n  nightly: {items: [docs], schedule: daily at 02:00, retention: {last: 100}}\n").Replace(plain)

// failing is the arguments with which strace has the kernel's calls on some files answer
// with an input/output error, and where it says what it did.
func (h *host) failing(inject string, files ...string) (args []string, said string) {
	h.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		testkit.Missing(h, "strace", "apt-get install strace")
	}
	log, err := os.CreateTemp(h.dir, "strace")
	must(h, err)
	must(h, log.Close())
	calls, _, _ := strings.Cut(inject, ":")
	args = []string{"strace", "-f", "-q", "-o", log.Name(), "-e", "trace=" + calls, "-e", "inject=" + inject}
	for _, f := range files {
		args = append(args, "-P", f)
	}
	return args, log.Name()
}

// dying has the disk under some files of the running agent fail, until well is called,
// which returns how many calls did.
func (h *host) dying(inject string, files ...string) (well func() int) {
	h.Helper()
	args, said := h.failing(inject, files...)
	pid := h.daemon.cmd.Process.Pid
	cmd := exec.Command(args[0], append(args[1:], "-p", fmt.Sprint(pid))...)
	must(h, cmd.Start())
	until(h, "strace looks at the agent", func() bool { return traced(h, pid) })
	var once sync.Once
	letGo := func() {
		once.Do(func() {
			must(h, cmd.Process.Signal(syscall.SIGINT)) // it lets go of the agent
			_ = cmd.Wait()                              // it says that it was interrupted
		})
	}
	h.Cleanup(letGo)
	return func() int {
		h.Helper()
		letGo()
		return injected(h, said)
	}
}

// traced tells whether all threads of a process are looked at.
func traced(t testing.TB, pid int) bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(t, err)
	for _, f := range files {
		status, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(status), "TracerPid:\t0\n") {
			return false
		}
	}
	return len(files) > 0
}

// injected counts the calls that failed.
func injected(t testing.TB, said string) int {
	t.Helper()
	log, err := os.ReadFile(said)
	must(t, err)
	return strings.Count(string(log), "(INJECTED)")
}

// indexes returns the local indexes, with the files that SQLite has beside each.
func (h *host) indexes() []string {
	h.Helper()
	found, err := filepath.Glob(h.path("state/index/*/*"))
	must(h, err)
	var all []string
	for _, path := range found {
		if filepath.Ext(path) == "" && !strings.Contains(filepath.Base(path), "-") {
			all = append(all, path, path+"-wal", path+"-journal")
		}
	}
	if len(all) != 3 {
		h.Fatalf("local indexes are %q", found)
	}
	return all
}

// TestIndexNotRead has the disk fail under the local index of an agent that runs, from the
// first read of a thread on, or the second, and so on until there are no more. Restores
// are right, and say that they go on without.
func TestIndexNotRead(t *testing.T) {
	h := newHost(t, one)
	furnish(t, h.path("docs"))
	h.ready()
	h.backup("docs")
	met := 0
	for n := 1; ; n++ {
		well := h.dying(fmt.Sprintf("read,pread64:error=EIO:when=%d+", n), h.indexes()...)
		back := h.path(fmt.Sprint("back", n))
		restored := h.coffer("restore", "docs", back).done()
		faults := well()
		sameTree(t, h.path("docs"), back+h.path("docs"))
		if faults == 0 {
			break
		}
		if strings.Contains(restored.err, "in memory") {
			met++
		}
		h.backup("docs") // without a restart
		aside, err := filepath.Glob(h.path("state/index/*/*.damaged"))
		must(t, err)
		for _, file := range aside { // the disk read it again when it was looked at
			h.coffer("status").says(control.ExitDone, filepath.Base(file), "set aside")
			must(t, os.Remove(file))
		}
	}
	if met < 4 {
		t.Errorf("only %d restores went on without the index", met)
	}
	t.Logf("%d restores went on without the index", met)
	h.coffer("verify", "docs").done()
	h.coffer("status").says(control.ExitDone, "All well")
}

// TestIndexNotWritten has the disk fail when the local index is written, or is to be on
// disk, or cannot be opened. A backup says why, unless it is done; a restore does without;
// and all is well when the disk is.
func TestIndexNotWritten(t *testing.T) {
	h := newHost(t, one)
	furnish(t, h.path("docs"))
	h.ready()
	h.backup("docs")
	for _, inject := range []string{"pwrite64:error=EIO", "pwrite64:error=EIO:when=3+", "pwrite64:error=EIO:when=8+",
		"fsync,fdatasync:error=EIO", "fsync,fdatasync:error=EIO:when=2+", "openat:error=EIO", "pwrite64:error=EROFS"} {
		t.Run(inject, func(t *testing.T) {
			h := h.in(t)
			must(t, os.WriteFile(h.path("docs", "letter.txt"), []byte("Dear "+inject), 0o600))
			before := h.points("docs")
			well := h.dying(inject, h.indexes()...)
			backup := h.coffer("backup", "docs")
			h.coffer("restore", "docs", h.path("back"), "--delete").done()
			n := well()
			if n == 0 {
				t.Fatal("nothing met a fault")
			}
			t.Logf("%d calls failed; the backup ended with %d", n, backup.code)
			if backup.code != control.ExitDone {
				backup.fails(control.ExitFailed, "local index "+h.path("state"), "state folder")
			}
			h.backup("docs") // without a restart
			if after := h.points("docs"); len(after) <= len(before) || !slices.Equal(after[:len(before)], before) {
				t.Errorf("points are %q, they were %q", after, before)
			}
			h.coffer("restore", "docs", h.path("back"), "--delete").done()
			sameTree(t, h.path("docs"), h.path("back")+h.path("docs"))
			h.coffer("verify", "docs").done()
			h.coffer("status").says(control.ExitDone, "All well")
		})
	}
}

// TestAuditDies has the disk fail under the audit log. No key is used then, so that a
// restore is refused, and it says what to do; without a restart all is well when the disk
// is, and the log is whole.
func TestAuditDies(t *testing.T) {
	h := newHost(t, one)
	furnish(t, h.path("docs"))
	id := h.ready()
	h.backup("docs")
	for _, inject := range []string{"pwrite64:error=EIO", "fsync:error=EIO"} {
		t.Run(inject, func(t *testing.T) {
			h := h.in(t)
			well := h.dying(inject, h.path("state/audit/000001.jsonl"))
			h.coffer("restore", "docs", h.path("back")).fails(control.ExitFailed, "audit log", "input/output error", "cofferd rescue")
			h.coffer("status").says(control.ExitDone, "audit log", "input/output error", "state folder")
			rescued := h.path("rescued " + inject)
			h.run(nil, "cofferd", "rescue", "--store", "file://"+h.path("vault"), "--vault-id", id, "--key", "file://"+h.path("kek.pem"), "restore", "docs", rescued).done()
			sameTree(t, h.path("docs"), rescued+h.path("docs"))
			if well() == 0 {
				t.Fatal("nothing met a fault")
			}
			h.givesBack("docs", inject)
			h.coffer("audit", "verify").done()
			h.coffer("status").says(control.ExitDone, "All well")
		})
	}
}

// TestStateNotRead starts the agent on a state whose files are not read by their disk. It
// does not begin without what it cannot lose, says which file that is, and sets nothing
// aside; what it can do without it does.
func TestStateNotRead(t *testing.T) {
	h := newHost(t, one)
	furnish(t, h.path("docs"))
	h.allState()
	h.stop()
	for name, starts := range map[string]bool{"vaults.json": false, "custody.json": false, "audit/head": false, "audit/000001.jsonl": false,
		"jobs/00000001.json": true, "schedule.json": true, "notify.json": true} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			file := h.path("state", filepath.FromSlash(name))
			before, err := os.ReadFile(file)
			must(t, err)
			args, said := h.failing("openat,read,pread64:error=EIO", file)
			h.under = append(args, "-D") // the agent is our child
			if starts {
				h.start()
				h.givesBack("docs", name)
				h.stop()
			} else {
				d := h.launch("coffer.yaml")
				if code := d.wait(t); code != control.ExitFailed {
					t.Errorf("it ended with %d", code)
				}
				result{t: t, what: "cofferd", code: control.ExitFailed, out: h.read(d.log)}.says(control.ExitFailed, file, "input/output error")
			}
			if injected(t, said) == 0 {
				t.Error("nothing met a fault")
			}
			if aside, _ := filepath.Glob(h.path("state") + "/*.damaged"); len(aside) > 0 {
				t.Errorf("set aside: %q", aside)
			}
			if after, err := os.ReadFile(file); err != nil || !starts && string(after) != string(before) {
				t.Errorf("%s is not what it was: %v", file, err)
			}
		})
	}
	h.start()
	h.givesBack("docs", "well again")
	h.coffer("audit", "verify").done()
	h.coffer("status").says(control.ExitDone, "All well")
}

// allState starts an agent and has it write every file of its state. It returns the id of
// the vault.
func (h *host) allState() string {
	h.Helper()
	id := h.ready()
	h.backup("docs")
	h.coffer("verify", "docs").done()
	must(h, os.Rename(h.path("vault"), h.path("away")))
	h.coffer("backup", "docs").fails(control.ExitFailed, "store") // which is told
	must(h, os.Rename(h.path("away"), h.path("vault")))
	patiently(h, "it is known what was told", func() bool {
		_, err := os.Stat(h.path("state/notify.json"))
		return err == nil
	})
	return id
}

// TestStateDiskDies has the state on a disk that from some moment on does not take what is
// written: a file system in a file that cannot grow. The kernel answers with errors, and
// takes it for read-only then. Backups say so, nothing that was told to be kept is lost,
// and all goes on when the disk is well.
func TestStateDiskDies(t *testing.T) {
	for name, features := range map[string]string{"with a journal": "has_journal", "without": "^has_journal"} {
		t.Run(name, func(t *testing.T) { diskDies(t, features) })
	}
}

func diskDies(t *testing.T, features string) {
	h := newHost(t, one)
	furnish(t, h.path("docs"))
	small(t, h.path("box"), 24)
	image, filler := h.path("box/image"), h.path("box/filler")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 128<<20))
	finish(t, exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-O", features, image)).done()
	must(t, os.Mkdir(h.path("state"), 0o700))
	attach := func() {
		t.Helper()
		finish(t, exec.Command("mount", "-o", "loop", image, h.path("state"))).done()
	}
	attach()
	t.Cleanup(func() { // before the box goes
		h.kill()
		finish(t, exec.Command("umount", h.path("state"))).done()
	})
	id := h.ready()
	points := []string{h.backup("docs").ID}
	fillUp(t, filler)
	var failed result
	for n := 0; ; n++ {
		must(t, os.WriteFile(h.path("docs", "letter.txt"), []byte(fmt.Sprint("Dear ", n)), 0o600))
		if failed = h.coffer("backup", "docs", "--json"); failed.code != control.ExitDone {
			break
		}
		points = append(points, fromJSON[control.Job](failed).Result.Point.ID)
		if n == 200 {
			t.Fatal("the disk does not die")
		}
	}
	failed.says(control.ExitFailed, "state folder")
	if !strings.Contains(failed.out, "input/output error") && !strings.Contains(failed.out, "read-only file system") {
		t.Error("it was not the disk")
	}
	rescued := h.path("rescued")
	h.run(nil, "cofferd", "rescue", "--store", "file://"+h.path("vault"), "--vault-id", id, "--key", "file://"+h.path("kek.pem"), "restore", "docs", rescued).done()

	h.kill()
	must(t, os.Remove(filler))
	finish(t, exec.Command("umount", h.path("state"))).done()
	attach()
	h.start()
	for i, p := range points {
		if !slices.Contains(h.points("docs"), p) {
			t.Errorf("point %d, %s, is gone", i, p)
		}
	}
	h.backup("docs")
	h.givesBack("docs", "well again")
	h.coffer("verify", "docs").done()
}
