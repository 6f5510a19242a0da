//go:build linux

package testkit

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ockAlone is set, to the name of the test, in the process that OpenCryptoki starts.
const ockAlone = "COFFER_TEST_OPENCRYPTOKI"

// OpenCryptoki calls test with the soft token of openCryptoki, initialised and empty.
// It does OAEP with SHA-256.
//
// openCryptoki has one daemon, one lock and one shared memory for the whole machine.
// So the calling test is run again in a process that has mounts, processes and
// shared memory of its own, where openCryptoki is as freshly installed: it meets
// none that runs already, and nothing of it is left. The tests below it are counted
// here too. It needs root.
func OpenCryptoki(t *testing.T, test func(*testing.T, Token)) {
	Part(t, "HSM")
	t.Helper()
	module := library(t, "libopencryptoki.so", "apt-get install opencryptoki", "/usr/lib/*/pkcs11", "/usr/lib*/opencryptoki")
	if os.Getenv(ockAlone) == t.Name() && os.Getpid() == 1 {
		test(t, startOpenCryptoki(t, module))
		return
	}
	if os.Geteuid() != 0 {
		Missing(t, "root", "run the tests as root: openCryptoki is started in namespaces of its own")
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), ockAlone+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL, // and with it, as process 1, all that it started
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if errors.Is(err, syscall.EPERM) {
		Missing(t, "namespaces", "run the tests as a root that may unshare them")
	}
	result := regexp.MustCompile(`(?m)^    --- (PASS|FAIL|SKIP): ` + regexp.QuoteMeta(t.Name()) + `/(\S+)`)
	found := result.FindAllStringSubmatch(out.String(), -1)
	for _, match := range found {
		t.Run(match[2], func(t *testing.T) {
			if match[1] != "PASS" {
				t.Errorf("%s in a process of its own:\n%s", match[1], &out)
			}
		})
	}
	if (err != nil || len(found) == 0) && !t.Failed() {
		t.Errorf("the test in a process of its own: %v\n%s", err, &out)
	}
}

// startOpenCryptoki starts the daemon and gives the token its PINs. What was on this
// machine before is covered, for this process, by empty file systems.
func startOpenCryptoki(t *testing.T, module string) Token {
	t.Helper()
	const locks, data = "/run/lock/opencryptoki/swtok", "/var/lib/opencryptoki/swtok/TOK_OBJ"
	must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	must(t, syscall.Mount("proc", "/proc", "proc", 0, ""))
	for _, dir := range []string{"/run", "/var/lib/opencryptoki", "/dev/shm"} {
		must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	}
	must(t, os.Chmod("/dev/shm", 0o1777))
	group, err := user.LookupGroup("pkcs11")
	must(t, err)
	gid, err := strconv.Atoi(group.Gid)
	must(t, err)
	for _, dir := range []string{locks, data} {
		must(t, os.MkdirAll(dir, 0o770))
		for range 2 { // it and the folder above it
			must(t, os.Chown(dir, 0, gid))
			must(t, os.Chmod(dir, 0o770))
			dir = filepath.Dir(dir)
		}
	}
	conf := "/run/opencryptoki.conf" // the soft token alone: others look for their hardware
	must(t, os.WriteFile(conf, []byte("version opencryptoki-3.1\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\n"), 0o644))
	must(t, syscall.Mount(conf, "/etc/opencryptoki/opencryptoki.conf", "", syscall.MS_BIND, ""))

	tok := Token{Module: module, Label: "IBM OS PKCS#11", PIN: "pin-4711"} // at most 8 characters
	tok.PINFile = tok.writePIN(t)
	output(t, "pkcsslotd")
	// The PINs of the factory have to be changed before it does anything else.
	const slot, officer = "3", "so-0815"
	output(t, "pkcsconf", "-c", slot, "-P", "-S", "87654321", "-n", officer)
	output(t, "pkcsconf", "-c", slot, "-u", "-S", officer, "-n", "12345678")
	output(t, "pkcsconf", "-c", slot, "-p", "-U", "12345678", "-n", tok.PIN)
	if info := output(t, "pkcsconf", "-t"); strings.Contains(info, "TO_BE_CHANGED") {
		t.Fatalf("the token still has a PIN of the factory:\n%s", info)
	}
	return tok
}
